//! What comes to a host while it runs: modules, policies, tasks, conversations, isolates that were put aside.

use std::time::Duration;

use super::FilePath;

/// Guest modules that clients publish while the host runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modules {
    /// Whether it may be done at all.
    pub publish: bool,
    /// Names of types whose limits they may take; the first one when nobody says which.
    pub types: Vec<String>,
    /// Isolates of each, unless told otherwise.
    pub count: u32,
    /// Size of one.
    pub max_bytes: u64,
    /// Names at once.
    pub max_names: u32,
    /// Earlier versions kept of each.
    pub versions: u32,
    /// Where they are kept, to be there again after a restart; `None`: nowhere.
    pub folder: Option<FilePath>,
}

/// Models of the catalog, which clients load and unload while the host runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// Whether it may be done at all.
    pub load: bool,
    /// The catalog's file; `None`: the user's.
    pub file: Option<FilePath>,
    /// Memory of all models together, those of the configuration included; `None`: what the machine has.
    pub memory_bytes: Option<u64>,
    /// How long a request waits for a model that was unloaded.
    pub wait: Duration,
    /// Names of types whose limits the nodes of such a model may take; the first one when nobody says which.
    pub types: Vec<String>,
    /// Nodes of each, unless told otherwise.
    pub count: u32,
    /// Tokens of context, unless told otherwise or the model was trained for fewer.
    pub context: u32,
    /// Sequences decoded together, unless told otherwise.
    pub sequences: u32,
    /// Layers kept on GPUs.
    pub gpu_layers: u32,
    /// Names of the GPUs they may be kept on; empty: all there are.
    pub gpu_devices: Vec<String>,
}

/// Where isolates are put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hibernation {
    /// A folder of this host alone; `None`: nothing is put aside.
    pub folder: Option<FilePath>,
}

/// Policies that are loaded while the host runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policies {
    /// Whether clients may load them.
    pub load: bool,
    /// Computing time of a call, unless told otherwise.
    pub time: Duration,
    /// What may be told otherwise.
    pub max_time: Duration,
    /// Memory of an instance in bytes, unless told otherwise.
    pub memory_bytes: u64,
    /// What may be told otherwise.
    pub max_memory_bytes: u64,
    /// Of a module.
    pub max_bytes: u64,
    /// Whether policies see prompts.
    pub grants_prompt: bool,
    /// Where policies lie that the host loads by itself, again when they change; `None`: nowhere.
    pub folder: Option<FilePath>,
    /// How often a scaler is asked.
    pub scale_every: Duration,
}

/// Requests that are answered later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tasks {
    /// A folder of this host alone; `None`: they are in memory, and end with the host.
    pub folder: Option<FilePath>,
    /// Those that run at once.
    pub max_running: u32,
    /// Those that may wait.
    pub max_queued: u32,
    /// What requests and texts may take together.
    pub max_bytes: u64,
    /// Runs of one that may break off.
    pub attempts: u32,
    /// How long one is kept after its end.
    pub keep: Duration,
}

/// Conversations that are kept for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// Time without use after which one is gone, unless told otherwise.
    pub ttl: Duration,
    /// What may be told otherwise.
    pub max_ttl: Duration,
    /// Of the host.
    pub max_sessions: u32,
    /// Of one tenant.
    pub max_sessions_per_tenant: u32,
    /// Of all together.
    pub max_bytes: u64,
    /// Of one.
    pub max_messages: u32,
    /// Where they are kept, to be there again after a restart; `None`: in memory only.
    pub folder: Option<FilePath>,
}

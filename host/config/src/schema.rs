//! What a configuration says, as plain data: defaults filled in, sizes in bytes, paths resolved.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

/// A whole configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// At least one; names are unique. The first one answers requests that name none.
    pub models: Vec<ModelConfig>,
    /// At least one, in file order; names are unique.
    pub types: Vec<TypeConfig>,
    /// Tenants with a weight of their own, in file order; names are unique.
    pub tenants: Vec<TenantConfig>,
    /// What clients may publish.
    pub modules: Modules,
    /// Where isolates are put aside.
    pub hibernation: Hibernation,
    /// How nodes are chosen.
    pub balancing: Balancing,
    /// What waits when all nodes are busy.
    pub queue: Queue,
    /// Where requests come in.
    pub network: Network,
    /// How the host ends.
    pub shutdown: Shutdown,
    /// What it writes about itself.
    pub logging: Logging,
    /// What it keeps on disk.
    pub cache: Cache,
}

/// Whose requests are kept apart, and share what there is by weight.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantConfig {
    /// The name types refer to.
    pub name: String,
    /// Share of a full batch, relative to other tenants.
    pub weight: f64,
    /// What each of its requests may use, whichever type serves it.
    pub budget: RequestBudget,
}

/// What one request may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestBudget {
    /// Tokens generated, by all models together.
    pub tokens: Option<u32>,
    /// Keys and values that its generations hold at a time, in bytes.
    pub kv_bytes: Option<u64>,
    /// Time, where its own deadline is not earlier.
    pub time: Option<Duration>,
}

/// One model that is loaded at the start.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// What clients and node types call it.
    pub name: String,
    /// Where its weights come from.
    pub source: ModelSource,
    /// Tokens of prompt and answer together, for each sequence; `None`: what the model was trained for.
    pub context: Option<u32>,
    /// Sequences decoded together at most.
    pub sequences: u32,
    /// Threads that compute; `None`: the machine's cores.
    pub threads: Option<u32>,
    /// Layers kept on GPUs.
    pub gpu_layers: u32,
    /// Names of the GPUs they may be kept on; empty: all there are.
    pub gpu_devices: Vec<String>,
    /// A smaller model of the same vocabulary that guesses ahead; `None`: none.
    pub draft: Option<ModelSource>,
    /// Tokens that it guesses at a time.
    pub draft_tokens: u32,
    /// How the KV cache is kept.
    pub kv_type: KvType,
    /// Whether it also answers embedding requests.
    pub embeddings: bool,
    /// Memory for keys and values that may be used again.
    pub kv_memory_bytes: u64,
    /// The same on disk.
    pub kv_disk_bytes: u64,
}

/// Where a model's weights come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// `builtin:demo`, inside the program.
    Demo,
    /// `builtin:demo-small`, inside the program.
    DemoSmall,
    /// A GGUF file. Not looked at here.
    File(FilePath),
}

/// Number format of the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// 16-bit floats.
    #[default]
    F16,
    /// 8-bit blocks: about half the memory, slightly different answers.
    Q8_0,
}

/// A kind of isolate, and how many there are at the start.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeConfig {
    /// `[a-z][a-z0-9-]{0,31}`.
    pub name: String,
    /// Isolates at the start; more or fewer can be asked for later.
    pub count: u32,
    /// Share of one core it may use over time, above 0; 1 is a whole core.
    pub cpu: f64,
    /// Guest memory in bytes; past it the guest is ended. See [`TypeConfig::linear_memory_bytes`] for one memory's limit.
    pub memory_bytes: u64,
    /// Name of one of [`Config::models`].
    pub model: String,
    /// Names of models that its guests may ask; `None`: all.
    pub models: Option<Vec<String>>,
    /// What runs in it.
    pub module: ModuleSource,
    /// Arguments of a command after its name; `{prompt}` stands for what it is asked.
    pub args: Vec<String>,
    /// Environment of a command.
    pub env: Vec<(String, String)>,
    /// Whether its isolates can be put aside on disk.
    pub hibernate: bool,
    /// Share of requests under [`Strategy::WeightedRandom`], relative to others; above 0.
    pub weight: f64,
    /// Capability class for routing, 0 to 2; higher is stronger.
    pub tier: u8,
    /// Whose isolates these are: `default`, or one of [`Config::tenants`].
    pub tenant: String,
    /// CPU time the guest may use for one request.
    pub cpu_time: Duration,
    /// Calls a guest may make to the host in a second.
    pub host_calls_per_second: u32,
    /// Text a guest may send for one request, in bytes.
    pub max_output_bytes: u64,
    /// Text a guest may send in a second, in bytes, averaged over the request.
    pub output_bytes_per_second: u64,
    /// What each request may use; its tenant may allow less.
    pub budget: RequestBudget,
    /// Elements in all of a guest's tables.
    pub table_elements: u32,
    /// Wasm stack in bytes.
    pub stack_bytes: u64,
}

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

/// Where isolates are put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hibernation {
    /// A folder of this host alone; `None`: nothing is put aside.
    pub folder: Option<FilePath>,
}

/// The guest module of a node type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleSource {
    /// `builtin:default`, inside the program: passes the prompt to the model and its answer back.
    Default,
    /// A `.wasm` component, or a core module that is a command. Not looked at here.
    File(FilePath),
}

/// A path in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath {
    /// As it is written in the file; what messages show.
    pub written: String,
    /// The same, counted from the file's folder when it is relative. Relative itself when the file was named by a relative
    /// path.
    pub resolved: PathBuf,
}

/// How a node is chosen for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balancing {
    /// The strategy at the start; it can be switched later.
    pub strategy: Strategy,
    /// Nodes tried for one request before it fails, at least 1. Only requests of which nothing was sent yet are tried again.
    pub attempts: u32,
}

/// Built-in balancing strategies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Each in turn.
    RoundRobin,
    /// The smallest share of its capacity in use.
    #[default]
    LeastLoaded,
    /// The fewest requests in flight.
    LeastConnections,
    /// Any, evenly.
    Random,
    /// Any, in proportion to the weights of the types.
    WeightedRandom,
    /// The less loaded of two taken at random.
    PowerOfTwo,
}

/// Requests that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Requests that wait for a node at most; beyond that they are refused. 0: nothing waits.
    pub max_waiting: u32,
    /// Requests served at once by the whole host at most.
    pub max_in_flight: u32,
    /// How long one waits before it is refused.
    pub max_wait: Duration,
}

/// Where requests come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// gRPC listens here. Port 0 takes any free port.
    pub grpc: SocketAddr,
    /// HTTP listens here. Port 0 takes any free port.
    pub http: SocketAddr,
    /// Bytes of one request at most.
    pub max_request_bytes: u64,
    /// How long a client may take nothing of its answer before the request is given up.
    pub client_stall_timeout: Duration,
    /// Whether addresses that other machines reach were accepted.
    pub insecure: bool,
}

/// How the host ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long requests under way may take to finish; after it they are cut off. 0: at once.
    pub drain: Duration,
}

/// What the host writes about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// How lines look.
    pub format: LogFormat,
    /// Filter directives, for example `info` or `warn,llambo_llama=debug`; each is `level` or `target=level`.
    pub level: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Folder for compiled guest modules; `None`: one in the user's cache folder.
    pub modules: Option<FilePath>,
    /// Folder for keys and values; `None`: one in the user's cache folder.
    pub kv: Option<FilePath>,
}

// === impl Config ===

impl Config {
    /// The model of that name.
    pub fn model(&self, name: &str) -> Option<&ModelConfig> {
        self.models.iter().find(|model| model.name == name)
    }

    /// The type of that name.
    pub fn node_type(&self, name: &str) -> Option<&TypeConfig> {
        self.types.iter().find(|node_type| node_type.name == name)
    }

    /// The weight of that tenant; 1 where it has none of its own.
    pub fn tenant_weight(&self, name: &str) -> f64 {
        self.tenants.iter().find(|tenant| tenant.name == name).map_or(1.0, |tenant| tenant.weight)
    }

    /// What each request may use that a type serves: the smaller of what the type and its tenant say.
    pub fn budget(&self, node_type: &TypeConfig) -> RequestBudget {
        let tenant = self.tenants.iter().find(|tenant| tenant.name == node_type.tenant);
        let (own, tenant) = (node_type.budget, tenant.map(|tenant| tenant.budget).unwrap_or_default());
        RequestBudget {
            tokens: [own.tokens, tenant.tokens].into_iter().flatten().min(),
            kv_bytes: [own.kv_bytes, tenant.kv_bytes].into_iter().flatten().min(),
            time: [own.time, tenant.time].into_iter().flatten().min(),
        }
    }
}

// === impl TypeConfig ===

impl TypeConfig {
    /// Where one linear memory of the guest ends, in bytes: wasm32 addresses reach 4 GiB, however much the type may use.
    pub fn linear_memory_bytes(&self) -> u64 {
        self.memory_bytes.min(1 << 32)
    }
}

// === impl names ===

macro_rules! named {
    ($(#[$doc:meta])* $type:ident { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl $type {
            /// Each with the name it has in the file.
            pub(crate) const NAMES: &'static [(&'static str, Self)] = &[$(($name, Self::$variant)),+];

            /// The name it has in the file.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

named!(KvType { F16 => "f16", Q8_0 => "q8_0" });
named!(LogFormat { Text => "text", Json => "json" });
named!(Strategy {
    RoundRobin => "round-robin",
    LeastLoaded => "least-loaded",
    LeastConnections => "least-connections",
    Random => "random",
    WeightedRandom => "weighted-random",
    PowerOfTwo => "power-of-two",
});

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Demo => f.write_str("builtin:demo"),
            Self::DemoSmall => f.write_str("builtin:demo-small"),
            Self::File(path) => path.fmt(f),
        }
    }
}

impl fmt::Display for ModuleSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("builtin:default"),
            Self::File(path) => path.fmt(f),
        }
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

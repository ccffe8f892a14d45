//! What a configuration says, as plain data: defaults filled in, sizes in bytes, paths resolved.

mod loaded;
mod network;
mod routing;
mod scaling;
mod telemetry;

use std::{fmt, path::PathBuf, time::Duration};

pub use loaded::{Catalog, Hibernation, Modules, Policies, Sessions, Tasks};
pub use network::{Access, Exposure, Network, Permission, Tls};
pub use routing::{Balancing, Classifier, Queue, Strategy};
pub use scaling::Scaling;
pub use telemetry::{Metrics, OtlpProtocol, Tracing};

/// A whole configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// At least one; names are unique. The first one answers requests that name none.
    pub models: Vec<ModelConfig>,
    /// At least one, in file order; names are unique.
    pub types: Vec<TypeConfig>,
    /// Tenants with something of their own, in file order; names are unique.
    pub tenants: Vec<TenantConfig>,
    /// Which other models clients may load.
    pub catalog: Catalog,
    /// What clients may publish.
    pub modules: Modules,
    /// Modules that decide in the host's place.
    pub policies: Policies,
    /// Requests that are answered later.
    pub tasks: Tasks,
    /// Conversations that are kept for clients.
    pub sessions: Sessions,
    /// Where isolates are put aside.
    pub hibernation: Hibernation,
    /// How nodes are chosen.
    pub balancing: Balancing,
    /// Whether trouble may be made on purpose.
    pub allow_faults: bool,
    /// What waits when all nodes are busy.
    pub queue: Queue,
    /// Where requests come in.
    pub network: Network,
    /// How the host ends.
    pub shutdown: Shutdown,
    /// What it writes about itself.
    pub logging: Logging,
    /// What it counts and measures.
    pub metrics: Metrics,
    /// Traces of requests.
    pub tracing: Tracing,
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
    /// What all of its requests together may use.
    pub quota: Quota,
    /// Keys and values of its earlier requests that each model may keep, in memory and on disk; `None`: as much as there is room for.
    pub max_kept_kv_bytes: Option<u64>,
    /// SHA-256 of each of its tokens.
    pub tokens: Vec<[u8; 32]>,
    /// A file with more of them, read again when it changes.
    pub tokens_file: Option<FilePath>,
    /// Names in client certificates that are its own.
    pub certificates: Vec<String>,
    /// What it may do.
    pub may: Vec<Permission>,
    /// Names of models that it may ask, also published ones; `None`: all.
    pub models: Option<Vec<String>>,
    /// Names of types that may serve it, also published ones; `None`: all.
    pub types: Option<Vec<String>>,
}

/// What all requests of a tenant together may use; `None`: as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Requests that begin within a minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens of prompts and answers within a minute.
    pub tokens_per_minute: Option<u32>,
    /// Requests served at a time.
    pub max_in_flight: Option<u32>,
    /// Requests that wait at a time.
    pub max_waiting: Option<u32>,
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
    /// A model by its name in the catalog, which is not looked at here either.
    Catalog(String),
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
    /// Notes for policies, in order of their keys.
    pub labels: Vec<(String, String)>,
    /// The fewest and the most isolates that a scaler policy may leave it; `None`: it scales others only.
    pub scale: Option<(u32, u32)>,
    /// How many there are while the host runs; `None`: as many as operators say.
    pub scaling: Option<Scaling>,
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

// === impl TenantConfig ===

impl TenantConfig {
    /// Whether it can be told from others: by a token or a certificate.
    pub fn is_known(&self) -> bool {
        !self.tokens.is_empty() || self.tokens_file.is_some() || !self.certificates.is_empty()
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

pub(crate) use named;

named!(KvType { F16 => "f16", Q8_0 => "q8_0" });
named!(Classifier { Heuristic => "heuristic", Off => "off" });
named!(LogFormat { Text => "text", Json => "json" });
named!(Strategy {
    RoundRobin => "round-robin",
    LeastLoaded => "least-loaded",
    LeastConnections => "least-connections",
    Random => "random",
    WeightedRandom => "weighted-random",
    PowerOfTwo => "power-of-two",
    CognitiveAffinity => "cognitive-affinity",
    CacheAware => "cache-aware",
});

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Demo => f.write_str("builtin:demo"),
            Self::DemoSmall => f.write_str("builtin:demo-small"),
            Self::File(path) => path.fmt(f),
            Self::Catalog(name) => write!(f, "catalog:{name}"),
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

//! Guest modules that clients publish, as the edge sees them. What they are and where they run the program knows.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use llambo_inference::{ModelName, TypeName};
use llambo_orchestrator::ClusterError;

/// Modules that are published by name.
pub trait Modules: Send + Sync + 'static {
    /// The model that a published module asks; `None` for a name that is not published.
    fn parent(&self, name: &ModelName) -> Option<ModelName>;

    /// All versions, by name, the newest first.
    fn list(&self) -> Vec<PublishedModule>;

    /// Checks a module, tries it and puts it into service.
    fn load(&self, module: NewModule) -> BoxFuture<'_, Result<LoadedModule, ModuleError>>;

    /// Takes a name out of service with all its versions. Answers how many isolates go.
    fn unload(&self, name: ModelName) -> BoxFuture<'_, Result<u32, ModuleError>>;

    /// Puts `version` back into service, or the one before the present one.
    fn roll_back(&self, name: ModelName, version: Option<u32>) -> BoxFuture<'_, Result<LoadedModule, ModuleError>>;
}

/// What a client wants to publish.
#[derive(Clone, Debug)]
pub struct NewModule {
    /// What clients will ask for.
    pub name: ModelName,
    /// WebAssembly.
    pub wasm: Arc<[u8]>,
    /// Whose limits it takes; `None`: the first type that may be taken.
    pub node_type: Option<TypeName>,
    /// Isolates; `None`: as many as the version before has, or as configured.
    pub count: Option<u32>,
    /// What it is asked on trial; `None`: there is no trial.
    pub trial: Option<String>,
}

/// One version of a published module.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedModule {
    /// What clients ask for.
    pub name: ModelName,
    /// Counted from 1.
    pub version: u32,
    /// Whether this version serves; otherwise it is kept.
    pub serves: bool,
    /// `component` or `command`.
    pub kind: &'static str,
    /// Whose limits it took.
    pub node_type: TypeName,
    /// The model that it asks.
    pub parent: ModelName,
    /// Bytes of the module.
    pub size_bytes: u64,
    /// Of the module, in hex.
    pub sha256: String,
    /// Isolates now.
    pub n_nodes: u32,
    /// When it was loaded.
    pub loaded_at: SystemTime,
}

/// A version that was put into service.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedModule {
    /// What serves now.
    pub module: PublishedModule,
    /// What served before.
    pub replaced: Option<u32>,
    /// How it did on trial, if there was one.
    pub trial: Option<TrialReport>,
    /// Time to compile it.
    pub compile: Duration,
    /// Time of one spawn, in microseconds.
    pub spawn_p50_us: f64,
}

/// One request that a module answered on trial.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialReport {
    /// The beginning of its answer.
    pub text: String,
    /// What it says went wrong, if it gave up in good order.
    pub gave_up: Option<String>,
    /// Tokens generated.
    pub output_tokens: u32,
    /// From the request to its end.
    pub took: Duration,
    /// Linear memory afterwards.
    pub memory_bytes: u64,
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The configuration does not let clients do this.
    #[error("{what}; {remedy}")]
    NotPermitted {
        /// What was asked for.
        what: String,
        /// Which key of the configuration permits it.
        remedy: String,
    },
    /// A field that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A model or type of the configuration has that name.
    #[error("`{name}` is the name of a {whose} of this host; publish it by another name")]
    NameTaken {
        /// The name asked for.
        name: ModelName,
        /// `model` or `type`.
        whose: &'static str,
    },
    /// It is no guest module, or does not fit the limits.
    #[error("{0}")]
    Unfit(String),
    /// It ran, and did not stand the trial.
    #[error("{0}; nothing was published. `skip_trial` (`--no-trial`) publishes it as it is")]
    TrialFailed(String),
    /// As many names are published as may be.
    #[error("{limit} modules are published, the most there may be; unload one, or raise `modules.max-names`")]
    TooMany {
        /// `modules.max-names`.
        limit: u32,
    },
    /// Nothing is published by that name.
    #[error("no module is published as `{name}`; there are: {}", if known.is_empty() { "none".into() } else { known.join(", ") })]
    Unknown {
        /// The name asked for.
        name: ModelName,
        /// What is published.
        known: Vec<String>,
    },
    /// That version is not kept.
    #[error("{what} of `{name}` is not kept; there are: {}", kept.join(", "))]
    UnknownVersion {
        /// Which was asked for.
        what: String,
        /// Of which module.
        name: ModelName,
        /// Versions that are kept.
        kept: Vec<String>,
    },
    /// The folder that published modules are kept in cannot be written.
    #[error("{0}")]
    Folder(String),
    /// Isolates could not be made or changed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl ModuleError {
    /// A stable upper-case name for clients.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotPermitted { .. } => "NOT_PERMITTED",
            Self::Invalid(_) => "INVALID_REQUEST",
            Self::NameTaken { .. } => "NAME_TAKEN",
            Self::Unfit(_) => "INVALID_MODULE",
            Self::TrialFailed(_) => "TRIAL_FAILED",
            Self::TooMany { .. } => "TOO_MANY_MODULES",
            Self::Unknown { .. } => "UNKNOWN_MODULE",
            Self::UnknownVersion { .. } => "UNKNOWN_VERSION",
            Self::Folder(_) => "BACKEND_FAILED",
            Self::Cluster(error) => error.reason(),
        }
    }
}

/// A host where nothing can be published.
pub struct NoModules;

impl Modules for NoModules {
    fn parent(&self, _: &ModelName) -> Option<ModelName> {
        None
    }

    fn list(&self) -> Vec<PublishedModule> {
        Vec::new()
    }

    fn load(&self, _: NewModule) -> BoxFuture<'_, Result<LoadedModule, ModuleError>> {
        let what = "this host publishes no modules".to_owned();
        Box::pin(async { Err(ModuleError::NotPermitted { what, remedy: "ask another one".into() }) })
    }

    fn unload(&self, name: ModelName) -> BoxFuture<'_, Result<u32, ModuleError>> {
        Box::pin(async { Err(ModuleError::Unknown { name, known: Vec::new() }) })
    }

    fn roll_back(&self, name: ModelName, _: Option<u32>) -> BoxFuture<'_, Result<LoadedModule, ModuleError>> {
        Box::pin(async { Err(ModuleError::Unknown { name, known: Vec::new() }) })
    }
}

//! Models that come and go while a host runs, as the edge sees them. Where they are and what loads them the program knows.

use std::time::Duration;

use futures::future::BoxFuture;
use llambo_inference::{ModelName, TypeName};
use llambo_orchestrator::ClusterError;

/// Who loads and unloads models.
pub trait ModelDesk: Send + Sync + 'static {
    /// How a model stands; `None` for one that is not in service.
    fn status(&self, name: &ModelName) -> Option<ModelStatus>;

    /// Brings a model into memory, and into service if it was not there.
    fn load(&self, wanted: WantedModel) -> BoxFuture<'_, Result<LoadedModel, ModelError>>;

    /// Takes a model out of memory once nobody uses it; `retire`: out of service.
    fn unload(&self, name: ModelName, retire: bool) -> BoxFuture<'_, Result<UnloadedModel, ModelError>>;

    /// Keeps it in memory, or no longer.
    fn pin(&self, name: ModelName, is_pinned: bool) -> Result<(), ModelError>;
}

/// How a model stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelStatus {
    /// `loaded`, `unloading`, `unloaded` or `loading`.
    pub state: &'static str,
    /// Whether it stays when room is needed.
    pub is_pinned: bool,
    /// What it is counted with.
    pub memory_bytes: u64,
}

/// What a client wants to have loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedModel {
    /// Its name.
    pub name: ModelName,
    /// Whose limits its nodes take; `None`: those of the first type that may be taken.
    pub node_type: Option<TypeName>,
    /// Nodes; `None`: as configured, and so on.
    pub count: Option<u32>,
    /// Tokens of context.
    pub context: Option<u32>,
    /// Sequences decoded together.
    pub sequences: Option<u32>,
    /// Whether it is to stay.
    pub pin: bool,
}

/// A model that is in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedModel {
    /// It was there already.
    pub was_loaded: bool,
    /// How long it took.
    pub took: Duration,
    /// Who went to make room.
    pub unloaded: Vec<ModelName>,
}

/// A model that is not in memory any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnloadedModel {
    /// What is free by that.
    pub freed_bytes: u64,
    /// Nodes that went.
    pub draining: u32,
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
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
    /// Something else has that name.
    #[error("`{name}` is the name of a {whose} here; register the model by another name")]
    NameTaken {
        /// The name asked for.
        name: ModelName,
        /// `type` or `published module`.
        whose: &'static str,
    },
    /// Neither in service nor in the catalog.
    #[error("{0}")]
    Unknown(String),
    /// What the shelf says.
    #[error("{message}")]
    Shelf {
        /// A stable upper-case name.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// Nodes could not be made or changed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl ModelError {
    /// A stable upper-case name for clients.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotPermitted { .. } => "NOT_PERMITTED",
            Self::Invalid(_) => "INVALID_REQUEST",
            Self::NameTaken { .. } => "NAME_TAKEN",
            Self::Unknown(_) => "UNKNOWN_MODEL",
            Self::Shelf { reason, .. } => reason,
            Self::Cluster(error) => error.reason(),
        }
    }
}

/// A host whose models stay as they are.
pub struct FixedModels;

impl ModelDesk for FixedModels {
    fn status(&self, _: &ModelName) -> Option<ModelStatus> {
        None
    }

    fn load(&self, _: WantedModel) -> BoxFuture<'_, Result<LoadedModel, ModelError>> {
        Box::pin(async { Err(fixed()) })
    }

    fn unload(&self, _: ModelName, _: bool) -> BoxFuture<'_, Result<UnloadedModel, ModelError>> {
        Box::pin(async { Err(fixed()) })
    }

    fn pin(&self, _: ModelName, _: bool) -> Result<(), ModelError> {
        Err(fixed())
    }
}

fn fixed() -> ModelError {
    ModelError::NotPermitted { what: "the models of this host stay as they are".into(), remedy: "ask another one".into() }
}

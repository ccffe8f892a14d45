use std::time::Duration;

use llambo_inference::{InferenceError, ModelName};

/// Why a model is not in memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShelfError {
    /// There is no room, and nothing can go.
    #[error(
        "model `{model}` needs {} of memory, and {} are free; the other models are in use or pinned: unload or unpin one, or raise \
         `catalog.memory`",
        size(*needed_bytes),
        size(*free_bytes)
    )]
    NoRoom {
        /// The model.
        model: ModelName,
        /// What it takes.
        needed_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// It could not be loaded.
    #[error("model `{model}` cannot be loaded: {why}")]
    Unloadable {
        /// The model.
        model: ModelName,
        /// What stops it.
        why: String,
    },
    /// It was waited for in vain.
    #[error("model `{model}` was not in memory after {} ms; try again", waited.as_millis())]
    Slow {
        /// The model.
        model: ModelName,
        /// `catalog.wait`.
        waited: Duration,
    },
    /// There is no such model here.
    #[error("model `{model}` is not there; there are: {}", known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))]
    Unknown {
        /// The name asked for.
        model: ModelName,
        /// What there is.
        known: Vec<ModelName>,
    },
    /// It is pinned.
    #[error("model `{model}` is pinned; unpin it first")]
    Pinned {
        /// The model.
        model: ModelName,
    },
}

/// Bytes as people read them.
fn size(n: u64) -> String {
    if n < 1 << 30 { format!("{:.1} MiB", n as f64 / 1_048_576.0) } else { format!("{:.1} GiB", n as f64 / 1_073_741_824.0) }
}

impl ShelfError {
    /// A stable upper-case name for clients.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoRoom { .. } => "NO_MODEL_MEMORY",
            Self::Unloadable { .. } => "MODEL_UNLOADABLE",
            Self::Slow { .. } => "MODEL_NOT_READY",
            Self::Unknown { .. } => "UNKNOWN_MODEL",
            Self::Pinned { .. } => "MODEL_PINNED",
        }
    }
}

/// What a request is told that could not have its model.
impl From<ShelfError> for InferenceError {
    fn from(error: ShelfError) -> Self {
        match error {
            ShelfError::Unknown { model, known } => Self::UnknownModel { model, loaded: known },
            error => Self::ModelAbsent { reason: error.reason(), detail: error.to_string() },
        }
    }
}

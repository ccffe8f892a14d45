//! `wasi:nn` for components: handles that guests hold, and what `compute` does with them.
//!
//! Graphs are names and cost nothing to hold; what is being generated belongs to the request (`session`), not to the handle,
//! and ends with it. The meaning of tensors is written down in `wit/README.md`.

mod host;
mod options;
mod session;

use llambo_inference::{InferenceError, ModelName};

pub(crate) use self::{
    options::{Options, to_json},
    session::{Output, Session, SessionInput},
};
use crate::bindings::wasi::nn::{errors::ErrorCode, tensor::TensorType};

/// The name under which a guest finds the model of the request at hand.
pub(crate) const DEFAULT: &str = "default";
/// Generations that one request may have under way: an agent compares a few, and one that could take every sequence of a
/// model would take it from all others.
pub(crate) const MAX_SESSIONS: usize = 16;

/// A model by name, looked up when it is used: it may be unloaded while a guest holds this.
#[derive(Debug)]
pub struct Graph {
    /// `None` is `default`: whichever model the request at hand names.
    pub(crate) model: Option<ModelName>,
}

/// Where `compute` happens.
#[derive(Debug)]
pub struct ExecutionContext {
    pub(crate) model: Option<ModelName>,
}

/// Data that a guest gave or was given.
#[derive(Debug)]
pub struct Tensor {
    pub(crate) dimensions: Vec<u32>,
    pub(crate) ty: TensorType,
    pub(crate) data: Vec<u8>,
}

/// An error that a guest may look at.
#[derive(Debug)]
pub struct NnError {
    pub(crate) code: ErrorCode,
    pub(crate) data: String,
}

// === impl Tensor ===

impl Tensor {
    pub(crate) fn text(text: String) -> Self {
        let data = text.into_bytes();
        Self { dimensions: vec![u32::try_from(data.len()).unwrap_or(u32::MAX)], ty: TensorType::U8, data }
    }

    pub(crate) fn floats(values: &[f32]) -> Self {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dimensions: vec![u32::try_from(values.len()).unwrap_or(u32::MAX)], ty: TensorType::Fp32, data }
    }

    /// What the host keeps for it.
    pub(crate) fn n_bytes(&self) -> usize {
        size_of::<Self>() + self.data.len() + self.dimensions.len() * size_of::<u32>()
    }
}

// === impl NnError ===

impl NnError {
    pub(crate) fn invalid(data: impl Into<String>) -> Self {
        Self { code: ErrorCode::InvalidArgument, data: data.into() }
    }
}

impl From<&InferenceError> for NnError {
    fn from(error: &InferenceError) -> Self {
        let code = match error {
            InferenceError::InvalidRequest(_) | InferenceError::InvalidOption(_) => ErrorCode::InvalidArgument,
            InferenceError::PromptTooLong { .. } => ErrorCode::TooLarge,
            InferenceError::UnknownModel { .. } => ErrorCode::NotFound,
            InferenceError::DeadlineExceeded { .. } => ErrorCode::Timeout,
            _ => ErrorCode::RuntimeError,
        };
        Self { code, data: error.to_string() }
    }
}

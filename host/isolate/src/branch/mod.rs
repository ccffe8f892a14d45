//! `llambo:engine` for components: texts under way that a guest forks, cuts, grows and measures.
//!
//! A branch is a list of tokens that belongs to its handle. What is being generated from it belongs to the request, as with `nn`, and
//! ends with it. What these calls promise is written down in `wit/deps/llambo-engine/engine.wit`.

mod check;
mod host;

use llambo_inference::{InferenceError, ModelName, TokenId, TokenLog};

use crate::bindings::llambo::engine::branches::Error;

/// A text as tokens.
#[derive(Debug)]
pub struct Branch {
    /// `None` is `default`: whichever model the request at hand names.
    pub(crate) model: Option<ModelName>,
    pub(crate) tokens: Vec<TokenId>,
    /// What goes on from it, while something does.
    growing: Option<Growing>,
}

/// Tokens that come, and how many of them are part of the branch already.
#[derive(Debug)]
struct Growing {
    log: TokenLog,
    wants_logprobs: bool,
    n_taken: usize,
}

// === impl Branch ===

impl Branch {
    pub(crate) fn new(model: Option<ModelName>, tokens: Vec<TokenId>) -> Self {
        Self { model, tokens, growing: None }
    }

    /// The same text, of which nothing goes on.
    pub(crate) fn fork(&self) -> Self {
        Self::new(self.model.clone(), self.tokens.clone())
    }

    /// What the host keeps for it.
    pub(crate) fn n_bytes(&self) -> usize {
        size_of::<Self>() + token_bytes(self.tokens.len())
    }
}

fn token_bytes(n: usize) -> usize {
    n.saturating_mul(size_of::<TokenId>())
}

// === impl Error ===

impl From<&InferenceError> for Error {
    fn from(error: &InferenceError) -> Self {
        let text = error.to_string();
        match error {
            InferenceError::InvalidRequest(_) | InferenceError::InvalidOption(_) => Self::Invalid(text),
            InferenceError::PromptTooLong { .. } => Self::TooLong(text),
            InferenceError::UnknownModel { .. } => Self::NotFound(text),
            InferenceError::DeadlineExceeded { .. } => Self::Timeout(text),
            _ => Self::Failed(text),
        }
    }
}

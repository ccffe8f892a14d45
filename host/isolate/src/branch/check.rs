//! What a guest's own messages and tokens must be.

use llambo_inference::{InferenceEngine, InferenceError, Message, Role, TokenId};

use crate::bindings::llambo::engine::branches;

/// A message with a role that there is.
pub(super) fn message(message: branches::Message) -> std::result::Result<Message, InferenceError> {
    let branches::Message { role, content } = message;
    match Role::parse(&role) {
        Some(role) => Ok(Message { role, content }),
        None => Err(InferenceError::InvalidRequest(format!("there is no role `{role}`; use system, user or assistant"))),
    }
}

/// Tokens of a guest's own, when they are of the model's vocabulary and fit.
pub(super) fn fitting(engine: &dyn InferenceEngine, tokens: Vec<TokenId>) -> std::result::Result<Vec<TokenId>, InferenceError> {
    check_length(engine, tokens.len())?;
    let n_vocab = engine.info().n_vocab;
    match tokens.iter().find(|token| **token >= n_vocab) {
        Some(token) => Err(InferenceError::InvalidRequest(format!("there is no token {token}; the vocabulary has {n_vocab}"))),
        None => Ok(tokens),
    }
}

/// Whether so many tokens fit into the model's context.
pub(super) fn check_length(engine: &dyn InferenceEngine, n: usize) -> std::result::Result<(), InferenceError> {
    let info = engine.info();
    if n <= info.n_context as usize {
        return Ok(());
    }
    Err(InferenceError::PromptTooLong { model: info.name.clone(), n_prompt: n as u64, n_context: info.n_context })
}

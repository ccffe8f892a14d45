//! What OpenAI's clients speak, under `/v1`: chat completions, completions, embeddings, models.
//!
//! Reads requests into the neutral form that the door takes, and tells its answers in theirs. Extensions are those of llama-server and
//! vLLM: `top_k`, `min_p`, `repeat_penalty`, `ignore_eos`, `grammar`, `json_schema`. Tools are text to the model: `tools` says how.

mod chat;
mod choice;
mod completions;
mod embeddings;
mod field;
mod logprobs;
mod models;
mod request;
mod sampling;
mod sse;
mod tier;
mod tools;
mod usage;
mod watch;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};
use utoipa::OpenApi;

use crate::door::Door;

/// What `models` tells about.
struct Served {
    door: Door,
    /// When the host was started, in seconds since 1970.
    since: u64,
}

/// This group's part of the document.
#[derive(OpenApi)]
#[openapi(
    paths(chat::complete, completions::complete, embeddings::embed, models::list, models::one),
    tags((name = "OpenAI", description = "What OpenAI's clients speak"))
)]
pub(super) struct Document;

pub(super) fn router(door: &Door) -> Router {
    let served = Arc::new(Served { door: door.clone(), since: request::seconds_since_1970() });
    let models =
        Router::new().route("/v1/models", get(models::list)).route("/v1/models/{*id}", get(models::one)).with_state(served);
    Router::new()
        .route("/v1/chat/completions", post(chat::complete))
        .route("/v1/completions", post(completions::complete))
        .route("/v1/embeddings", post(embeddings::embed))
        .with_state(Arc::new(door.clone()))
        .merge(models)
}

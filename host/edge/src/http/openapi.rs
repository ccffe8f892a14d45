//! `GET /openapi.json`: what is served over HTTP, for programs.

use axum::{Json, Router, routing::get};
use utoipa::{OpenApi, openapi};

use super::{cluster, openai, sessions, tasks, watch};

/// Each group of routes merges a document of its own into it.
#[derive(OpenApi)]
#[openapi(info(
    title = "llambo",
    description = "Tiny sandboxed engines beside one batched llama.cpp. Every answer has an `x-request-id`; errors have the form of OpenAI's.",
    license(name = "Apache-2.0 OR MIT")
))]
struct Document;

pub(super) fn router() -> Router {
    let document = document();
    Router::new().route("/openapi.json", get(async move || Json(document.clone())))
}

fn document() -> openapi::OpenApi {
    let mut document = Document::openapi();
    let groups = [
        openai::Document::openapi(),
        tasks::Doc::openapi(),
        cluster::Doc::openapi(),
        watch::Doc::openapi(),
        sessions::Doc::openapi(),
    ];
    for group in groups {
        document.merge(group);
    }
    document
}

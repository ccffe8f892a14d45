//! `GET /v1/models`: what can be asked.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    extract::{Path, State},
    http::Extensions,
};
use llambo_inference::{InferenceError, ModelInfo, ModelName};
use serde::Serialize;
use utoipa::ToSchema;

use super::Served;
use crate::{
    caller::Caller,
    door::Askable,
    http::failure::{ApiError, ErrorBody},
};

/// All models.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelList {
    /// Always `list`.
    object: &'static str,
    data: Vec<ModelObject>,
}

/// One model, or a guest that is published under a name of its own.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelObject {
    id: String,
    /// Always `model`.
    object: &'static str,
    /// When it was published, or the host was started, in seconds since 1970.
    created: u64,
    /// Always `llambo`.
    owned_by: &'static str,
    /// The model that a published guest asks.
    parent: Option<String>,
    /// Tokens that prompt and answer may have together.
    max_model_len: u32,
    meta: ModelMeta,
}

#[derive(Debug, Serialize, ToSchema)]
struct ModelMeta {
    n_vocab: u32,
    n_embd: u32,
    n_params: u64,
    /// Bytes of the weights.
    size: u64,
}

/// What can be asked.
#[utoipa::path(get, path = "/v1/models", tag = "OpenAI", responses((status = 200, description = "All models", body = ModelList)))]
pub(super) async fn list(State(served): State<Arc<Served>>, extensions: Extensions) -> Json<ModelList> {
    Json(ModelList { object: "list", data: all(&served, &Caller::of(&extensions)) })
}

/// One model.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    tag = "OpenAI",
    params(("id" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "The model", body = ModelObject),
        (status = "4XX", description = "There is no such model", body = ErrorBody),
    )
)]
pub(super) async fn one(
    State(served): State<Arc<Served>>,
    Path(id): Path<String>,
    extensions: Extensions,
) -> Result<Json<ModelObject>, ApiError> {
    let mut models = all(&served, &Caller::of(&extensions));
    if let Some(i) = models.iter().position(|model| model.id == id) {
        return Ok(Json(models.swap_remove(i)));
    }
    let loaded = models.into_iter().map(|model| model.id.into()).collect();
    Err(InferenceError::UnknownModel { model: id.into(), loaded }.into())
}

fn all(served: &Served, caller: &Caller) -> Vec<ModelObject> {
    let object = |Askable { name, engine, module }: Askable| match module {
        None => ModelObject::new(&name, engine.info(), served.since, None),
        Some(module) => ModelObject::new(&name, engine.info(), seconds(module.loaded_at), Some(&module.parent)),
    };
    served.door.askable(caller).into_iter().map(object).collect()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl ModelObject {
    fn new(name: &ModelName, info: &ModelInfo, created: u64, parent: Option<&ModelName>) -> Self {
        Self {
            id: name.to_string(),
            object: "model",
            created,
            owned_by: "llambo",
            parent: parent.map(ModelName::to_string),
            max_model_len: info.n_context,
            meta: ModelMeta { n_vocab: info.n_vocab, n_embd: info.n_embd, n_params: info.n_params, size: info.size_bytes },
        }
    }
}

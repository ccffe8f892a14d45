//! Requests that are accepted now and answered later.

mod events;
mod wire;

use axum::{
    Json, Router,
    extract::{Path, Query, Request, State, rejection::QueryRejection},
    http::{Extensions, HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use llambo_orchestrator::DispatchError;
use llambo_tasks::{Filter, NewTask, TaskError, TaskState, Tasks, Work};
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};

pub(super) use self::wire::{Ask, Urgency, Usage};
use self::wire::{List, Told};
use super::{
    failure::{ApiError, ErrorBody},
    reading::{json_bytes, parse},
};
use crate::{
    caller::Caller,
    door::{Door, new_request_id},
};

/// Tasks of one list, unless told otherwise and at most.
const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1000;
/// Characters of an id or a key.
const MAX_NAME: usize = 128;

/// What is served here, for programs.
#[derive(OpenApi)]
#[openapi(
    paths(submit, list, show, remove, cancel, events::events),
    components(schemas(Ask, Told, List, ErrorBody)),
    tags((name = "tasks", description = "Requests that are accepted now and answered later"))
)]
pub(super) struct Doc;

/// Which tasks to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Only those in this state.
    state: Option<String>,
    /// At most so many, 1 to 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only those that were submitted before this one.
    after: Option<String>,
}

pub(super) fn router(door: &Door) -> Router {
    Router::new()
        .route("/v2/tasks", post(submit).get(list))
        .route("/v2/tasks/{id}", get(show).delete(remove))
        .route("/v2/tasks/{id}/cancel", post(cancel))
        .route("/v2/tasks/{id}/events", get(events::events))
        .with_state(door.clone())
}

impl From<TaskError> for ApiError {
    fn from(error: TaskError) -> Self {
        let (status, code) = match &error {
            TaskError::Unknown { .. } => (StatusCode::NOT_FOUND, "unknown_task"),
            TaskError::Conflict { .. } => (StatusCode::CONFLICT, "task_conflict"),
            TaskError::NotEnded { .. } => (StatusCode::CONFLICT, "task_not_ended"),
            TaskError::Full { .. } | TaskError::NoRoom { .. } => (StatusCode::TOO_MANY_REQUESTS, "tasks_full"),
            TaskError::Busy => (StatusCode::TOO_MANY_REQUESTS, "tasks_busy"),
            TaskError::NoEvent { .. } => (StatusCode::BAD_REQUEST, "invalid_request"),
            TaskError::Closed => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
            // and what is added later: it is the host's in any case
            _ => (StatusCode::SERVICE_UNAVAILABLE, "task_store_failed"),
        };
        let told = Self::new(status, code, error.to_string());
        match error.retry_after() {
            Some(delay) => told.retry_after(delay),
            None => told,
        }
    }
}

/// Accepts a task. Once it is answered, the task ends exactly once, whatever becomes of the host (where `durable` is true).
#[utoipa::path(
    post, path = "/v2/tasks", tag = "tasks", request_body = Ask,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key with the same body is the same task")),
    responses(
        (status = 202, description = "Accepted", body = Told, headers(("Location" = String))),
        (status = 200, description = "It was accepted before", body = Told),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody),
        (status = 409, description = "The same id or key came with another body", body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody),
    )
)]
async fn submit(
    State(door): State<Door>,
    extensions: Extensions,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let caller = Caller::of(&extensions);
    let body = json_bytes(request, door.max_request_bytes).await?;
    let ask: Ask = parse(&body)?;
    drop(body);
    if door.host.cluster.is_draining() {
        return Err(DispatchError::Draining.into());
    }
    let key = headers.get("idempotency-key").map(|value| value.to_str().unwrap_or_default().to_owned());
    if let Some(key) = &key
        && (key.is_empty() || key.len() > MAX_NAME)
    {
        return Err(ApiError::invalid(format!("`Idempotency-Key` must have 1 to {MAX_NAME} printable ASCII characters")));
    }
    if let Some(id) = &ask.id
        && !is_name(id)
    {
        let what = format!("`id` must have 1 to {MAX_NAME} characters of A-Z, a-z, 0-9, `.`, `_` and `-`");
        return Err(ApiError::invalid(what).param("id"));
    }
    if ask.timeout_ms() == Some(0) {
        return Err(ApiError::invalid("`timeout_ms` is 0, but must be at least 1").param("timeout_ms"));
    }
    let (digest, timeout_ms) = (ask.digest(), ask.timeout_ms());
    let id = ask.id.clone().unwrap_or_else(|| new_request_id().to_string());
    let asked = ask.asked(Urgency::Batch)?;
    if let Some(node_type) = &asked.node_type {
        door.check_type(&caller, node_type)?;
    }
    let request = door.resolve(asked, &caller, None)?;
    let task = NewTask {
        id,
        key,
        digest,
        tenant: request.share.tenant.to_string(),
        weight: request.share.tenant_weight,
        work: Work::of(&request, rand::random()),
        timeout_ms,
    };
    let (task, is_new) = door.host.tasks.submit(task).await?;
    tracing::debug!(task = task.id, model = task.model, is_new, "a task was accepted");
    let status = if is_new { StatusCode::ACCEPTED } else { StatusCode::OK };
    let place = format!("/v2/tasks/{}", task.id);
    Ok((status, [(header::LOCATION, place)], told(&door.host.tasks, task)).into_response())
}

/// Tasks without their texts, newest first.
#[utoipa::path(
    get, path = "/v2/tasks", tag = "tasks", params(Wanted),
    responses((status = 200, body = List), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
async fn list(
    State(door): State<Door>,
    extensions: Extensions,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<List>, ApiError> {
    let Query(Wanted { state, limit, after }) = wanted.map_err(|error| ApiError::invalid(error.body_text()))?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::invalid(format!("`limit` is {limit}, but must be 1 to {MAX_LIMIT}")).param("limit"));
    }
    let state = match state {
        None => None,
        Some(name) => Some(TaskState::parse(&name).ok_or_else(|| {
            let names = TaskState::ALL.map(TaskState::as_str).join(", ");
            ApiError::invalid(format!("`state` is {name:?}, but must be one of {names}")).param("state")
        })?),
    };
    let filter = Filter { state, after, limit: limit + 1 };
    let tasks = &door.host.tasks;
    let found = tasks.list(Caller::of(&extensions).tenant.as_str(), filter).await?;
    Ok(Json(List::of(found, limit, tasks.is_durable())))
}

/// A task with its text so far.
#[utoipa::path(
    get, path = "/v2/tasks/{id}", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = Told), (status = 404, body = ErrorBody))
)]
async fn show(State(door): State<Door>, extensions: Extensions, Path(id): Path<String>) -> Result<Json<Told>, ApiError> {
    let tasks = &door.host.tasks;
    Ok(told(tasks, tasks.show(Caller::of(&extensions).tenant.as_str(), &id).await?))
}

/// Calls a task off. One that has ended stays as it is.
#[utoipa::path(
    post, path = "/v2/tasks/{id}/cancel", tag = "tasks", params(("id" = String, Path)),
    responses((status = 200, body = Told), (status = 404, body = ErrorBody))
)]
async fn cancel(State(door): State<Door>, extensions: Extensions, Path(id): Path<String>) -> Result<Json<Told>, ApiError> {
    let tasks = &door.host.tasks;
    Ok(told(tasks, tasks.cancel(Caller::of(&extensions).tenant.as_str(), &id).await?))
}

/// Forgets a task that has ended.
#[utoipa::path(
    delete, path = "/v2/tasks/{id}", tag = "tasks", params(("id" = String, Path)),
    responses(
        (status = 204, description = "Forgotten"), (status = 404, body = ErrorBody),
        (status = 409, description = "It has not ended", body = ErrorBody),
    )
)]
async fn remove(State(door): State<Door>, extensions: Extensions, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    door.host.tasks.delete(Caller::of(&extensions).tenant.as_str(), &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn told(tasks: &Tasks, task: llambo_tasks::Task) -> Json<Told> {
    Json(Told::whole(task, tasks.is_durable()))
}

/// Fit to stand in a path as it is.
fn is_name(id: &str) -> bool {
    (1..=MAX_NAME).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && id != "."
        && id != ".."
}

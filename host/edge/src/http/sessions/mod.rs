//! `/v2/sessions`: conversations that the host keeps, over HTTP.

mod convert;
mod wire;

use axum::{
    Json, Router,
    extract::{Path, Query, Request, State, rejection::QueryRejection},
    http::{Extensions, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures::{StreamExt, TryStreamExt};
use llambo_inference::InferenceError;
use llambo_proto::{
    status,
    v1::{self, generate_response::Event as Answer},
};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tonic::Status;
use utoipa::OpenApi;

use super::{
    failure::{ApiError, ErrorBody},
    reading,
};
use crate::{answer::Deadline, caller::Caller, door::Door, pump::pump, sessions::Conversing};

/// The part of the interface that is told here.
#[derive(OpenApi)]
#[openapi(
    paths(create, list, show, delete, messages, append, ask, fork),
    components(schemas(wire::Token, wire::Started)),
    tags((name = "sessions", description = "Conversations that the host keeps"))
)]
pub(super) struct Doc;

pub(super) fn router(door: &Door) -> Router {
    Router::new()
        .route("/v2/sessions", post(create).get(list))
        .route("/v2/sessions/{id}", get(show).delete(delete))
        .route("/v2/sessions/{id}/messages", get(messages).post(append))
        .route("/v2/sessions/{id}/ask", post(ask))
        .route("/v2/sessions/{id}/fork", post(fork))
        .with_state(Conversing { door: door.clone() })
}

/// Reads a body. An empty one says nothing, which is what many of them may say.
async fn read<T: DeserializeOwned + Default>(all: &Conversing, request: Request) -> Result<T, ApiError> {
    let bytes = reading::json_bytes(request, all.door.max_request_bytes).await?;
    if bytes.is_empty() { Ok(T::default()) } else { reading::parse(&bytes) }
}

/// Make a session.
#[utoipa::path(post, path = "/v2/sessions", tag = "sessions", request_body = wire::Create,
    responses((status = 201, body = wire::Session), (status = "4XX", body = ErrorBody)))]
async fn create(State(all): State<Conversing>, extensions: Extensions, request: Request) -> Result<Response, ApiError> {
    let new: wire::Create = read(&all, request).await?;
    let made = all.create(&Caller::of(&extensions), new.into_request()?).await?;
    Ok((StatusCode::CREATED, Json(wire::Session::from(made))).into_response())
}

/// The caller's sessions, the newest first.
#[utoipa::path(get, path = "/v2/sessions", tag = "sessions", params(wire::Listing),
    responses((status = 200, body = wire::Page), (status = "4XX", body = ErrorBody)))]
async fn list(
    State(all): State<Conversing>,
    extensions: Extensions,
    query: Result<Query<wire::Listing>, QueryRejection>,
) -> Result<Json<wire::Page>, ApiError> {
    let Query(wire::Listing { limit, after }) = query.map_err(|error| ApiError::invalid(error.body_text()))?;
    let request = v1::ListSessionsRequest { limit: limit.unwrap_or(0), after: after.unwrap_or_default() };
    Ok(Json(all.list(&Caller::of(&extensions), &request)?.into()))
}

/// A session with everything said in it.
#[utoipa::path(get, path = "/v2/sessions/{id}", tag = "sessions", params(("id" = String, Path)),
    responses((status = 200, body = wire::Whole), (status = "4XX", body = ErrorBody)))]
async fn show(
    State(all): State<Conversing>,
    Path(id): Path<String>,
    extensions: Extensions,
) -> Result<Json<wire::Whole>, ApiError> {
    Ok(Json(all.get(&Caller::of(&extensions), &id)?.into()))
}

/// Take a session away.
#[utoipa::path(delete, path = "/v2/sessions/{id}", tag = "sessions", params(("id" = String, Path)),
    responses((status = 204), (status = "4XX", body = ErrorBody)))]
async fn delete(State(all): State<Conversing>, Path(id): Path<String>, extensions: Extensions) -> Result<StatusCode, ApiError> {
    all.delete(&Caller::of(&extensions), &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What was said in a session.
#[utoipa::path(get, path = "/v2/sessions/{id}/messages", tag = "sessions", params(("id" = String, Path)),
    responses((status = 200, body = wire::Said), (status = "4XX", body = ErrorBody)))]
async fn messages(
    State(all): State<Conversing>,
    Path(id): Path<String>,
    extensions: Extensions,
) -> Result<Json<wire::Said>, ApiError> {
    Ok(Json(all.get(&Caller::of(&extensions), &id)?.into()))
}

/// Add messages, without asking.
#[utoipa::path(post, path = "/v2/sessions/{id}/messages", tag = "sessions", params(("id" = String, Path)), request_body = wire::Append,
    responses((status = 200, body = wire::Session), (status = "4XX", body = ErrorBody)))]
async fn append(
    State(all): State<Conversing>,
    Path(id): Path<String>,
    extensions: Extensions,
    request: Request,
) -> Result<Json<wire::Session>, ApiError> {
    let new: wire::Append = read(&all, request).await?;
    let request = v1::AppendMessagesRequest { session_id: id, chat: Some(convert::chat(new.messages)) };
    Ok(Json(all.append(&Caller::of(&extensions), request).await?.into()))
}

/// Make a session that begins as this one did.
#[utoipa::path(post, path = "/v2/sessions/{id}/fork", tag = "sessions", params(("id" = String, Path)), request_body = wire::Fork,
    responses((status = 201, body = wire::Session), (status = "4XX", body = ErrorBody)))]
async fn fork(
    State(all): State<Conversing>,
    Path(id): Path<String>,
    extensions: Extensions,
    request: Request,
) -> Result<Response, ApiError> {
    let wire::Fork { at_message } = read(&all, request).await?;
    let made = all.fork(&Caller::of(&extensions), v1::ForkSessionRequest { session_id: id, at_message }).await?;
    Ok((StatusCode::CREATED, Json(wire::Session::from(made))).into_response())
}

/// Ask within a session: as server-sent events `started`, `token` and `end`, or `error`; with `stream: false` one object.
#[utoipa::path(post, path = "/v2/sessions/{id}/ask", tag = "sessions", params(("id" = String, Path)), request_body = wire::Ask,
    responses((status = 200, content((wire::Answer = "application/json"), (String = "text/event-stream"))),
        (status = "4XX", body = ErrorBody)))]
async fn ask(
    State(all): State<Conversing>,
    Path(id): Path<String>,
    extensions: Extensions,
    request: Request,
) -> Result<Response, ApiError> {
    let received = Instant::now();
    let question: wire::Ask = read(&all, request).await?;
    let deadline = question.timeout().map(|timeout| Deadline::new(received, timeout));
    let streams = question.stream.unwrap_or(true);
    let answer = all.ask(&Caller::of(&extensions), question.into_request(id)?, received, deadline).await?;
    let stalled = |waited| Err(status::status(&InferenceError::stalled(waited)));
    if !streams {
        return Ok(Json(whole(answer).await?).into_response());
    }
    let events = pump(answer, all.door.patience, stalled).map(|message| Ok::<_, axum::Error>(event(message)));
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

async fn whole(answer: impl futures::Stream<Item = Result<v1::GenerateResponse, Status>>) -> Result<wire::Answer, ApiError> {
    let mut answer = std::pin::pin!(answer);
    let (mut started, mut text) = (wire::Started::default(), String::new());
    let mut end = wire::End::default();
    while let Some(message) = answer.try_next().await? {
        match message.event {
            Some(Answer::Started(event)) => started = event.into(),
            Some(Answer::Piece(piece)) => text.push_str(&piece.text),
            Some(Answer::Finished(event)) => end = event.into(),
            None => {}
        }
    }
    Ok(wire::Answer { started, text, end })
}

fn event(message: Result<v1::GenerateResponse, Status>) -> Event {
    let (name, data) = match message {
        Ok(v1::GenerateResponse { event: Some(Answer::Started(event)) }) => ("started", wire::json(&wire::Started::from(event))),
        Ok(v1::GenerateResponse { event: Some(Answer::Piece(piece)) }) => ("token", wire::json(&wire::Token::from(piece))),
        Ok(v1::GenerateResponse { event: Some(Answer::Finished(event)) }) => ("end", wire::json(&wire::End::from(event))),
        Ok(v1::GenerateResponse { event: None }) => return Event::default().comment(""),
        Err(status) => ("error", wire::json(&ApiError::from(status).into_body())),
    };
    Event::default().event(name).data(data)
}

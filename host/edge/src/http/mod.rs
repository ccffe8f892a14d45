//! Everything that is served over HTTP.

mod cluster;
pub(crate) mod failure;
mod meter;
mod openai;
mod openapi;
mod page;
mod probes;
pub(crate) mod reading;
mod request_id;
mod sessions;
mod tasks;
mod watch;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Response, StatusCode, Uri, header},
    middleware::from_fn,
    response::IntoResponse,
};

use crate::door::Door;
use failure::ApiError;
pub(crate) use page::PageSwitch;

/// All groups of routes, with what every request goes through.
pub(crate) fn router(door: &Door, page: PageSwitch) -> Router {
    probes::router(Arc::clone(&door.host))
        .merge(openai::router(door))
        .merge(tasks::router(door))
        .merge(cluster::router(door))
        .merge(watch::router(door))
        .merge(sessions::router(door))
        .merge(openapi::router())
        .merge(page::router(page))
        .method_not_allowed_fallback(not_allowed)
        .fallback(not_found)
        .layer(from_fn(meter::count))
        .layer(from_fn(request_id::identify))
}

async fn not_found(uri: Uri, headers: HeaderMap) -> Response<Body> {
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return tonic::Status::unavailable("this port speaks no gRPC; that is at `network.grpc` of the host")
            .into_http::<tonic::body::Body>()
            .map(Body::new);
    }
    let what = format!("nothing is served at `{}`; `/openapi.json` lists what is", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, "unknown_url", what).into_response()
}

async fn not_allowed(method: Method, uri: Uri) -> ApiError {
    let what = format!("`{}` does not take {method}; `/openapi.json` says what it takes", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", what)
}

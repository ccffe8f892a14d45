//! In front of everything that is served: finds out who asks, and refuses those who may not.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use axum::response::IntoResponse;
use futures::future::{Either, Ready, ready};
use llambo_proto::status::Failure;
use tonic::codegen::{Service, http};
use tower_layer::Layer;

use super::{Access, Protocol, Refusal};
use crate::http::failure::ApiError;

/// Requests that were not let in, by why.
const REFUSED: &str = "llambo_edge_refused_total";

/// Describes what is counted here to the recorder.
pub(crate) fn describe() {
    metrics::describe_counter!(REFUSED, "Requests that were not let in, by protocol and reason");
}

/// `B` is the body of answers.
pub(crate) struct AccessLayer<B> {
    pub(crate) access: Arc<Access>,
    pub(crate) protocol: Protocol,
    /// How a refusal is told.
    pub(crate) refuse: fn(&Refusal) -> http::Response<B>,
}

pub(crate) struct Guarded<S, B> {
    inner: S,
    layer: AccessLayer<B>,
}

// === impl AccessLayer ===

impl<B> Clone for AccessLayer<B> {
    fn clone(&self) -> Self {
        Self { access: Arc::clone(&self.access), protocol: self.protocol, refuse: self.refuse }
    }
}

impl<S, B> Layer<S> for AccessLayer<B> {
    type Service = Guarded<S, B>;

    fn layer(&self, inner: S) -> Guarded<S, B> {
        Guarded { inner, layer: self.clone() }
    }
}

// === impl Guarded ===

impl<S: Clone, B> Clone for Guarded<S, B> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S, B, Body> Service<http::Request<Body>> for Guarded<S, B>
where
    S: Service<http::Request<Body>, Response = http::Response<B>>,
{
    type Response = http::Response<B>;
    type Error = S::Error;
    type Future = Either<Ready<Result<http::Response<B>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let AccessLayer { access, protocol, refuse } = &self.layer;
        match access.admit(&request, *protocol) {
            Ok(caller) => {
                // nobody behind this needs it, and what is not there cannot be told
                request.headers_mut().remove(http::header::AUTHORIZATION);
                request.extensions_mut().insert(caller);
                Either::Right(self.inner.call(request))
            }
            Err(refusal) => {
                let port = match protocol {
                    Protocol::Grpc => "grpc",
                    Protocol::Http => "http",
                };
                metrics::counter!(REFUSED, "protocol" => port, "reason" => refusal.reason()).increment(1);
                tracing::debug!(protocol = port, reason = refusal.reason(), why = %refusal, "not let in");
                Either::Left(ready(Ok(refuse(&refusal))))
            }
        }
    }
}

/// As gRPC tells it.
pub(crate) fn refused_grpc(refusal: &Refusal) -> http::Response<tonic::body::Body> {
    Failure::new(refusal.reason(), refusal.to_string()).into_status().into_http()
}

/// As HTTP tells it.
pub(crate) fn refused_http(refusal: &Refusal) -> http::Response<axum::body::Body> {
    let mut told = ApiError::of_reason(refusal.reason(), refusal.to_string()).into_response();
    if told.status() == http::StatusCode::UNAUTHORIZED {
        let challenge = match refusal {
            Refusal::Unknown => "Bearer realm=\"llambo\", error=\"invalid_token\"",
            _ => "Bearer realm=\"llambo\"",
        };
        told.headers_mut().insert(http::header::WWW_AUTHENTICATE, http::HeaderValue::from_static(challenge));
    }
    told
}

//! Counts HTTP requests as [`crate::meter`] counts gRPC calls: by route, and by how they ended.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    extract::{MatchedPath, Request},
    http::{Method, StatusCode},
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use metrics::SharedString;

use crate::meter::{IN_FLIGHT, REQUESTS};

/// Who looks whether anything is under way must not be what is.
const NOT_COUNTED: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// How a request ended whose answer had begun well: among its extensions, for whoever streams the answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome(Arc<AtomicU16>);

/// One request. Counted as it is dropped; CANCELLED unless its answer was sent whole.
struct Call {
    route: SharedString,
    code: Option<StatusCode>,
    outcome: Outcome,
}

struct Metered {
    body: Body,
    status: StatusCode,
    call: Call,
}

impl Outcome {
    /// The answer broke off with this.
    pub(crate) fn failed(&self, status: StatusCode) {
        self.0.store(status.as_u16(), Ordering::Relaxed);
    }

    fn status(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.0.load(Ordering::Relaxed)).ok()
    }
}

/// Whatever no route matches is counted as `other`, so that labels stay few.
pub(super) async fn count(mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    if route.is_some_and(|path| NOT_COUNTED.contains(&path.as_str())) {
        return next.run(request).await;
    }
    let route = route.map(|path| SharedString::from(path.as_str().to_owned()));
    let outcome = Outcome::default();
    request.extensions_mut().insert(outcome.clone());
    metrics::gauge!(IN_FLIGHT).increment(1.0);
    let mut call = Call { route: route.unwrap_or(SharedString::const_str("other")), code: None, outcome };
    let is_head = request.method() == Method::HEAD;
    let response = next.run(request).await;
    let status = response.status();
    response.map(|body| {
        // such a body is never asked for
        if is_head || http_body::Body::is_end_stream(&body) {
            call.code = Some(status);
        }
        Body::new(Metered { body, status, call })
    })
}

impl Drop for Call {
    fn drop(&mut self) {
        metrics::gauge!(IN_FLIGHT).decrement(1.0);
        let code = self.outcome.status().or(self.code);
        let code = code.map_or(SharedString::const_str("CANCELLED"), |status| status.as_str().to_owned().into());
        metrics::counter!(REQUESTS, "method" => self.route.clone(), "code" => code).increment(1);
    }
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let is_last = matches!(frame, Poll::Ready(None)) || (frame.is_ready() && self.body.is_end_stream());
        if is_last {
            self.call.code = Some(self.status);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! Every request has a name, which its answer tells and every log line about it has.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use llambo_inference::RequestId;

use crate::door::new_request_id;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of a client's own name for its request.
const MAX_CHARS: usize = 128;

/// Takes the client's own name where that is printable, and makes one otherwise. It lies among the request's extensions.
pub(super) async fn identify(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let given = given.filter(|id| (1..=MAX_CHARS).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()));
    let id = given.map_or_else(new_request_id, RequestId::from);
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

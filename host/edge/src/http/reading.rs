//! Reads a request's body as JSON.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::Request,
    http::{HeaderMap, StatusCode, header},
};
use futures::StreamExt;
use http_body::Body as _;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::failure::ApiError;

/// Of a body that is too large, so much more is read before it is refused: a client that is still sending would otherwise see a broken
/// connection in the place of the answer.
const READ_ON_BYTES: usize = 16 << 20;
/// And for so long.
const READ_ON: Duration = Duration::from_secs(5);
/// How long a client may send nothing in the middle of a body.
const PATIENCE: Duration = Duration::from_secs(30);

/// The body of a request that says it is JSON.
///
/// # Errors
/// It is of another kind, larger than `max_bytes`, or breaks off.
pub(crate) async fn json_bytes(request: Request, max_bytes: usize) -> Result<Bytes, ApiError> {
    let (parts, body) = request.into_parts();
    if !is_json(&parts.headers) {
        let what = "the body must be JSON: send the header `content-type: application/json`";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", what));
    }
    bytes(body, max_bytes).await
}

/// Reads JSON, and says which field is wrong if one is. Members that are not known are left out: clients send new ones.
///
/// # Errors
/// It is not JSON, or not of this form.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::invalid("the body is empty; send a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner();
        if cause.is_data() && path != "." {
            ApiError::invalid(format!("`{path}`: {cause}")).param(path)
        } else if cause.is_data() {
            ApiError::invalid(cause.to_string())
        } else {
            ApiError::invalid(format!("the body is not JSON: {cause}"))
        }
    })?;
    json.end().map_err(|cause| ApiError::invalid(format!("the body is not JSON: {cause}")))?;
    Ok(value)
}

/// No header at all is taken for JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return true };
    let kind = kind.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

async fn bytes(body: Body, max_bytes: usize) -> Result<Bytes, ApiError> {
    // what says that it is too large is not waited for
    let says_too_much = body.size_hint().lower() > max_bytes as u64;
    let mut chunks = body.into_data_stream();
    if !says_too_much && let Some(whole) = whole(&mut chunks, max_bytes).await? {
        return Ok(whole);
    }
    let read_on = async {
        let mut n_bytes = 0;
        while n_bytes < READ_ON_BYTES
            && let Some(Ok(chunk)) = chunks.next().await
        {
            n_bytes += chunk.len();
        }
    };
    // whichever comes first; what was read is not used
    let _ = timeout(READ_ON, read_on).await;
    let what = format!("the request has more than {max_bytes} bytes; shorten it, or raise `network.max-request-size`");
    Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", what))
}

/// `None`: there is more than that.
async fn whole(chunks: &mut BodyDataStream, max_bytes: usize) -> Result<Option<Bytes>, ApiError> {
    let mut whole = Vec::new();
    loop {
        let Ok(chunk) = timeout(PATIENCE, chunks.next()).await else {
            let what = format!("nothing more of the body came within {} s", PATIENCE.as_secs());
            return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", what));
        };
        let Some(chunk) = chunk else { return Ok(Some(whole.into())) };
        let chunk = chunk.map_err(|cause| ApiError::invalid(format!("the body broke off: {cause}")))?;
        if whole.len() + chunk.len() > max_bytes {
            return Ok(None);
        }
        whole.extend_from_slice(&chunk);
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Outer {
        #[serde(rename = "list")]
        _list: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[serde(rename = "n")]
        _n: u8,
    }

    fn error(body: &str) -> serde_json::Value {
        let error = parse::<Outer>(body.as_bytes()).unwrap_err();
        assert_eq!(error.status(), 400);
        serde_json::to_value(error.into_body()).unwrap()["error"].take()
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        assert_eq!(error(r#"{"list": [{"n": 1}, {"n": "x"}]}"#)["param"], "list[1].n");
        assert!(error(r#"{"list": []"#)["message"].as_str().unwrap().starts_with("the body is not JSON: "));
        assert!(error(r#"{"list": []} x"#)["message"].as_str().unwrap().contains("trailing"));
        assert!(error("{}")["message"].as_str().unwrap().contains("missing field `list`"));
        assert_eq!(error(" ")["message"], "the body is empty; send a JSON object");
        assert!(parse::<serde_json::Value>("[".repeat(100_000).as_bytes()).is_err(), "no stack is deep enough");
    }

    #[test]
    fn json_says_that_it_is_json() {
        let kind = |kind: &str| is_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]));
        assert!(is_json(&HeaderMap::new()) && kind("application/json; charset=utf-8") && kind("application/ld+JSON"));
        assert!(!kind("text/plain") && !kind("application/x-www-form-urlencoded"));
    }
}

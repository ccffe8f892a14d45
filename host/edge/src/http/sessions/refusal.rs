//! Refusals, as clients of language models over HTTP know them.

use axum::{
    Json,
    extract::rejection::{BytesRejection, QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use llambo_proto::status::{Details, Failure, code_name};
use serde::Serialize;
use tonic::{Code, Status};
use utoipa::ToSchema;

/// An answer that is none.
#[derive(Debug)]
pub(super) struct Refusal {
    status: Status,
    /// Where it says more than the status.
    http: Option<StatusCode>,
    param: Option<String>,
}

/// What a refusal looks like.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionError)]
pub(super) struct ErrorBody {
    error: ErrorObject,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SessionErrorObject)]
struct ErrorObject {
    /// For people.
    message: String,
    /// `invalid_request_error`, `rate_limit_error` or `server_error`.
    r#type: &'static str,
    /// The field that is wrong.
    param: Option<String>,
    /// The stable name of the cause, such as `UNKNOWN_SESSION`.
    code: String,
}

// === impl Refusal ===

impl Refusal {
    pub(super) fn invalid(param: Option<&str>, message: impl Into<String>) -> Self {
        let status = Failure::new("INVALID_REQUEST", message).into_status();
        Self { status, http: None, param: param.map(str::to_owned) }
    }

    /// A body that is no JSON, or says what nobody knows.
    pub(super) fn of_json(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let field = text.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')).map(|(field, _)| field);
        Self::invalid(field, format!("the body cannot be read: {text}"))
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let param = Details::of(&status).fields.into_iter().next().map(|(field, _)| field);
        Self { status, http: None, param }
    }
}

impl From<BytesRejection> for Refusal {
    fn from(rejection: BytesRejection) -> Self {
        let http = rejection.status();
        let what = if http == StatusCode::PAYLOAD_TOO_LARGE {
            "the body is larger than `network.max-request-size` permits; shorten it".to_owned()
        } else {
            rejection.body_text()
        };
        Self { http: Some(http), ..Self::invalid(None, what) }
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(None, rejection.body_text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let http = self.http.unwrap_or_else(|| http_status(self.status.code()));
        let mut body = ErrorBody::of(&self.status);
        body.error.param = self.param;
        let retry_after = Details::of(&self.status).retry_after;
        let mut response = (http, Json(body)).into_response();
        if let Some(delay) = retry_after {
            // whole seconds, and never too early
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

// === impl ErrorBody ===

impl ErrorBody {
    pub(super) fn of(status: &Status) -> Self {
        let r#type = match http_status(status.code()) {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            http if http.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        let code = Details::of(status).reason.unwrap_or_else(|| code_name(status.code()).to_owned());
        Self { error: ErrorObject { message: status.message().to_owned(), r#type, param: None, code } }
    }
}

fn http_status(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::FailedPrecondition => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

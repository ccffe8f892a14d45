//! Errors over HTTP, in the form that OpenAI's clients read.

use std::{borrow::Cow, time::Duration};

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use llambo_inference::{InferenceError, shortened};
use llambo_orchestrator::DispatchError;
use llambo_proto::status::{Details, code_name, code_of};
use serde::Serialize;
use tonic::{Code, Status};
use utoipa::ToSchema;

/// The same as `Retry-After`, in milliseconds; OpenAI's clients prefer it.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// OpenAI's clients try again by themselves after some statuses, unless this is `false`.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Names that somebody sent may be longer than is fit to be told.
const MAX_MESSAGE_BYTES: usize = 2048;

/// Why a request was not served.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: Cow<'static, str>,
    message: String,
    param: Option<String>,
    retry_after: Option<Duration>,
}

/// The body of every answer that is an error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorObject,
}

#[derive(Debug, Serialize, ToSchema)]
struct ErrorObject {
    /// For people: what happened, to what, and what to do.
    message: String,
    /// The kind of error, by the status: `invalid_request_error`, `rate_limit_error`, `server_error` and others.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field of the request that is wrong.
    param: Option<String>,
    /// The cause, for programs.
    code: Cow<'static, str>,
}

impl ApiError {
    /// One with a status of its own. `code` is for programs, in lower case.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = shortened(message.into(), MAX_MESSAGE_BYTES);
        Self { status, code: code.into(), message, param: None, retry_after: None }
    }

    /// One with the status that belongs to a reason of `llambo.proto`.
    pub(crate) fn of_reason(reason: &str, message: impl Into<String>) -> Self {
        let code = match reason {
            "UNKNOWN_MODEL" => "model_not_found".into(),
            "PROMPT_TOO_LONG" => "context_length_exceeded".into(),
            reason => Cow::Owned(reason.to_ascii_lowercase()),
        };
        Self { code, ..Self::new(status_of(reason), "", message) }
    }

    /// A request that cannot be served as it stands.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::of_reason("INVALID_REQUEST", message)
    }

    /// Says which field is wrong, as a path such as `messages[0].role`.
    pub(crate) fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Says when trying again makes sense.
    pub(crate) fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// What it is told with.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// What it says.
    pub(crate) fn into_body(self) -> ErrorBody {
        let Self { status, code, message, param, .. } = self;
        ErrorBody { error: ErrorObject { message, kind: kind_of(status), param, code } }
    }
}

/// The HTTP status of a reason: that of its gRPC code, unless HTTP says more than that.
fn status_of(reason: &str) -> StatusCode {
    match reason {
        "CLIENT_STALLED" => StatusCode::REQUEST_TIMEOUT,
        "SESSION_BUSY" => StatusCode::CONFLICT,
        reason => status_of_code(code_of(reason)),
    }
}

fn status_of_code(code: Option<Code>) -> StatusCode {
    match code {
        Some(Code::InvalidArgument | Code::OutOfRange) => StatusCode::BAD_REQUEST,
        Some(Code::Unauthenticated) => StatusCode::UNAUTHORIZED,
        Some(Code::PermissionDenied) => StatusCode::FORBIDDEN,
        Some(Code::NotFound) => StatusCode::NOT_FOUND,
        Some(Code::AlreadyExists | Code::Cancelled) => StatusCode::CONFLICT,
        Some(Code::FailedPrecondition) => StatusCode::UNPROCESSABLE_ENTITY,
        Some(Code::ResourceExhausted) => StatusCode::TOO_MANY_REQUESTS,
        Some(Code::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
        Some(Code::DeadlineExceeded) => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn kind_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

impl From<InferenceError> for ApiError {
    fn from(error: InferenceError) -> Self {
        let param = match &error {
            InferenceError::InvalidOption(option) if option.option == "constraint" => Some("response_format"),
            InferenceError::InvalidOption(option) => Some(option.option),
            InferenceError::UnknownModel { .. } => Some("model"),
            _ => None,
        };
        let told = Self::of_reason(error.reason(), error.to_string());
        Self { param: param.map(str::to_owned), ..told }
    }
}

impl From<DispatchError> for ApiError {
    fn from(error: DispatchError) -> Self {
        let retry_after = error.retry_after();
        let told = match error {
            DispatchError::Inference(error) => error.into(),
            error => Self::of_reason(error.reason(), error.to_string()),
        };
        match retry_after {
            Some(delay) => told.retry_after(delay),
            None => told,
        }
    }
}

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        let Details { reason, retry_after, fields, .. } = Details::of(&status);
        let told = if let Some(reason) = reason {
            Self::of_reason(&reason, status.message())
        } else {
            let code = Cow::Owned(code_name(status.code()).to_ascii_lowercase());
            Self { code, ..Self::new(status_of_code(Some(status.code())), "", status.message()) }
        };
        Self { param: fields.into_iter().next().map(|(field, _)| field), retry_after, ..told }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        // a struct of strings
        let body = serde_json::to_vec(&self.into_body()).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        let headers = response.headers_mut();
        if let Some(delay) = retry_after {
            headers.insert(RETRY_AFTER_MS, number(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)));
            headers.insert(header::RETRY_AFTER, number(delay.as_secs() + u64::from(delay.subsec_nanos() > 0)));
        } else if matches!(status.as_u16(), 408 | 409 | 500..) {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response
    }
}

fn number(n: u64) -> HeaderValue {
    n.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: impl Into<ApiError>) -> (u16, serde_json::Value) {
        let error = error.into();
        (error.status().as_u16(), serde_json::to_value(error.into_body()).unwrap()["error"].take())
    }

    #[test]
    fn each_cause_has_the_status_that_clients_know() {
        let unknown = InferenceError::UnknownModel { model: "x".into(), loaded: vec![] };
        let (status, error) = told(unknown);
        assert_eq!((status, &error["code"], &error["param"]), (404, &"model_not_found".into(), &"model".into()));
        let (status, error) = told(InferenceError::PromptTooLong { model: "x".into(), n_prompt: 9, n_context: 8 });
        assert_eq!((status, &error["code"]), (400, &"context_length_exceeded".into()));
        let (status, error) = told(InferenceError::Guest { reason: "CPU_EXHAUSTED", detail: "1".into() });
        assert_eq!((status, &error["type"], &error["code"]), (500, &"server_error".into(), &"cpu_exhausted".into()));
        assert_eq!(told(InferenceError::DeadlineExceeded { n_generated: 0 }).0, 504);
        assert_eq!(told(InferenceError::stalled(Duration::from_secs(1))).0, 408);
        assert_eq!(told(InferenceError::Cancelled).0, 409);
        assert_eq!(told(DispatchError::NoNode { model: "x".into(), node_type: None }).0, 503);
    }

    #[test]
    fn when_to_come_back_is_told_in_seconds_and_milliseconds() {
        let full = DispatchError::QueueFull { waiting: 1, limit: 1, retry_after: Duration::from_millis(1200) };
        let response = ApiError::from(full).into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["retry-after-ms"], "1200");
        assert!(!response.headers().contains_key("x-should-retry"));
    }

    #[test]
    fn what_would_fail_again_is_not_tried_again() {
        let response = ApiError::from(InferenceError::DeadlineExceeded { n_generated: 3 }).into_response();
        assert_eq!(response.headers()["x-should-retry"], "false");
    }
}

//! Failures as gRPC statuses with rich details, and back.
//!
//! The table at the top of `llambo.proto` is the contract: a stable upper-case reason decides the code, and travels in
//! `google.rpc.ErrorInfo` with domain `llambo`. Messages are for people and may change; reasons may not.

use std::{collections::HashMap, time::Duration};

use llambo_inference::{InferenceError, shortened};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// `ErrorInfo.domain` of every error that llambo makes.
pub const DOMAIN: &str = "llambo";

/// Of a message, and of each value beside it. Statuses travel in headers, which clients take up to 8 KiB of: a name that somebody
/// sent may be longer.
const MAX_TEXT_BYTES: usize = 1024;

/// The code of a reason; `None` for a reason that is not in the contract.
pub fn code_of(reason: &str) -> Option<Code> {
    Some(match reason {
        "INVALID_REQUEST" | "INVALID_OPTION" | "PROMPT_TOO_LONG" | "UNKNOWN_STRATEGY" | "INVALID_MODULE" | "INVALID_TRACE" => {
            Code::InvalidArgument
        }
        "UNKNOWN_MODEL" | "UNKNOWN_TYPE" | "UNKNOWN_NODE" | "UNKNOWN_MODULE" | "UNKNOWN_VERSION" | "UNKNOWN_POLICY"
        | "UNKNOWN_SESSION" => Code::NotFound,
        "DUPLICATE_NODE" | "NAME_TAKEN" => Code::AlreadyExists,
        "UNAUTHENTICATED" => Code::Unauthenticated,
        "NOT_PERMITTED" => Code::PermissionDenied,
        "TRIAL_FAILED" | "SESSION_BUSY" | "MODEL_PINNED" | "MODEL_UNLOADABLE" => Code::FailedPrecondition,
        "QUEUE_FULL"
        | "QUOTA_EXCEEDED"
        | "NOT_ADMITTED"
        | "FULL"
        | "POOL_EXHAUSTED"
        | "CLIENT_STALLED"
        | "TOO_MANY_MODULES"
        | "TOO_MANY_FAULTS"
        | "TOO_MANY_SESSIONS"
        | "SESSION_FULL"
        | "SESSION_BUDGET_EXHAUSTED"
        | "NO_MODEL_MEMORY" => Code::ResourceExhausted,
        "NO_NODE" | "STOPPED" | "DRAINING" | "MODEL_NOT_READY" => Code::Unavailable,
        "DEADLINE_EXCEEDED" => Code::DeadlineExceeded,
        "CANCELLED" => Code::Cancelled,
        "GUEST_TRAP"
        | "GUEST_ERROR"
        | "MEMORY_EXHAUSTED"
        | "TABLE_EXHAUSTED"
        | "STACK_EXHAUSTED"
        | "CPU_EXHAUSTED"
        | "HOST_CALLS_EXHAUSTED"
        | "OUTPUT_EXHAUSTED"
        | "TOKENS_EXHAUSTED"
        | "KV_EXHAUSTED"
        | "WAKE_FAILED"
        | "NOT_RESUMABLE" => Code::Aborted,
        "BACKEND_FAILED" => Code::Internal,
        _ => return None,
    })
}

/// A code as gRPC's own documents write it, for example `NOT_FOUND`.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A failure on its way to a client.
///
/// ```
/// use std::time::Duration;
/// use llambo_proto::status::{Details, Failure};
///
/// let status = Failure::new("QUEUE_FULL", "32 of 32 requests wait; try again")
///     .retry_after(Duration::from_secs(1))
///     .quota("queue", "32 of 32 waiting")
///     .into_status();
/// assert_eq!(status.code(), tonic::Code::ResourceExhausted);
/// assert_eq!(Details::of(&status).retry_after, Some(Duration::from_secs(1)));
/// ```
#[derive(Debug)]
#[must_use]
pub struct Failure {
    code: Code,
    message: String,
    reason: &'static str,
    metadata: HashMap<String, String>,
    details: ErrorDetails,
}

/// What a status says beyond code and message. Everything is absent in a status that did not come from llambo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// `ErrorInfo.reason`.
    pub reason: Option<String>,
    /// `ErrorInfo.metadata`: the names and numbers of the message, for programs.
    pub metadata: HashMap<String, String>,
    /// `RetryInfo.retry_delay`.
    pub retry_after: Option<Duration>,
    /// `BadRequest.field_violations` as field and description.
    pub fields: Vec<(String, String)>,
}

// === impl Failure ===

impl Failure {
    /// One with the code that belongs to `reason`; INTERNAL for a reason outside the contract.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code: code_of(reason).unwrap_or(Code::Internal),
            message: message.into(),
            reason,
            metadata: HashMap::new(),
            details: ErrorDetails::new(),
        }
    }

    /// Adds a name or number that programs may read.
    #[expect(clippy::needless_pass_by_value, reason = "numbers and names both read better without an ampersand")]
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Says when trying again makes sense.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.details.set_retry_info(Some(delay));
        self
    }

    /// Says which limit was reached.
    pub fn quota(mut self, subject: &str, description: impl Into<String>) -> Self {
        let description = shortened(description.into(), MAX_TEXT_BYTES);
        self.details.add_quota_failure_violation(subject, description);
        self
    }

    /// Says which field of the request is wrong, as a path such as `options.top_p`.
    pub fn field(mut self, field: impl Into<String>, description: impl Into<String>) -> Self {
        let description = shortened(description.into(), MAX_TEXT_BYTES);
        self.details.add_bad_request_violation(field, description);
        self
    }

    /// The status, details encoded.
    pub fn into_status(mut self) -> Status {
        let metadata = self.metadata.into_iter().map(|(key, value)| (key, shortened(value, MAX_TEXT_BYTES)));
        self.details.set_error_info(self.reason, DOMAIN, metadata.collect::<HashMap<_, _>>());
        Status::with_error_details(self.code, shortened(self.message, MAX_TEXT_BYTES), self.details)
    }
}

impl From<&InferenceError> for Failure {
    fn from(error: &InferenceError) -> Self {
        let failure = Self::new(error.reason(), error.to_string());
        match error {
            InferenceError::InvalidOption(e) => failure
                .with("option", e.option)
                .with("found", &e.found)
                .field(option_field(e.option), format!("must be {}", e.allowed)),
            InferenceError::PromptTooLong { model, n_prompt, n_context } => failure
                .with("model", model)
                .with("n_prompt", n_prompt)
                .with("n_context", n_context)
                .field("prompt", format!("{n_prompt} tokens, but prompt and answer together may have {n_context}")),
            InferenceError::UnknownModel { model, loaded } => failure
                .with("model", model)
                .with("loaded", loaded.iter().map(llambo_inference::ModelName::as_str).collect::<Vec<_>>().join(",")),
            InferenceError::Full { what, in_flight, capacity } => failure
                .with("in_flight", in_flight)
                .with("capacity", capacity)
                .quota(what, format!("{in_flight} of {capacity} in flight")),
            InferenceError::DeadlineExceeded { n_generated } => failure.with("n_generated", n_generated),
            InferenceError::Stalled { waited_ms } => failure.with("waited_ms", waited_ms),
            InferenceError::Guest { reason, .. } => {
                // a guest's own reasons may grow; whatever the name, the module was stopped
                Self { code: code_of(reason).unwrap_or(Code::Aborted), ..failure }
            }
            _ => failure,
        }
    }
}

/// Where an option of [`llambo_inference::SamplingOptions`] lies in a request.
fn option_field(option: &str) -> String {
    match option {
        "constraint" => "options".to_owned(),
        _ => format!("options.{option}"),
    }
}

/// The status of an error, with its details.
pub fn status(error: &InferenceError) -> Status {
    Failure::from(error).into_status()
}

// === impl Details ===

impl Details {
    /// Reads them from a status. Details of another domain or in another form are left out.
    pub fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        Self {
            reason: info.map(|info| info.reason.clone()),
            metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            fields: details.bad_request().map_or_else(Vec::new, |bad| {
                bad.field_violations.iter().map(|v| (v.field.clone(), v.description.clone())).collect()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use llambo_inference::{Sampling, SamplingOptions};

    use super::*;

    const PROTO: &str = include_str!("../../../proto/llambo/v1/llambo.proto");

    /// The table at the top of the .proto file: each code with its reasons.
    fn contract() -> Vec<(String, Vec<String>)> {
        let mut table: Vec<(String, Vec<String>)> = Vec::new();
        for line in PROTO.lines().take_while(|line| line.starts_with("//")) {
            let Some(row) = line.strip_prefix("//   ") else { continue };
            let words: Vec<&str> = row.split([' ', ',']).filter(|word| !word.is_empty()).collect();
            let upper = |word: &&&str| word.len() > 3 && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b == b':');
            let mut names = words.iter().filter(upper).map(|word| word.trim_end_matches(':').to_owned());
            if !row.starts_with(' ') {
                table.push((names.next().unwrap(), Vec::new()));
            }
            table.last_mut().unwrap().1.extend(names);
        }
        table
    }

    #[test]
    fn the_table_in_the_proto_file_is_kept() {
        let table = contract();
        assert_eq!(table.len(), 12, "{table:?}");
        for (code, reasons) in table {
            assert!(!reasons.is_empty(), "{code}");
            for reason in reasons {
                let found = format!("{:?}", code_of(&reason).unwrap_or_else(|| panic!("`{reason}` has no code")));
                assert_eq!(found.to_uppercase(), code.replace('_', ""), "{reason}");
            }
        }
    }

    #[test]
    fn an_option_outside_its_range_names_its_field() {
        let options = SamplingOptions { top_p: Some(2.0), ..SamplingOptions::default() };
        let error = InferenceError::from(options.resolve(&Sampling::default()).unwrap_err());
        let status = status(&error);
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = Details::of(&status);
        assert_eq!(details.reason.as_deref(), Some("INVALID_OPTION"));
        assert_eq!(details.fields, [("options.top_p".to_owned(), "must be above 0 and at most 1".to_owned())]);
        assert_eq!(details.metadata["found"], "2");
    }

    #[test]
    fn an_unknown_model_says_which_are_there() {
        let error = InferenceError::UnknownModel { model: "x".into(), loaded: vec!["a".into(), "b".into()] };
        let status = status(&error);
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(Details::of(&status).metadata["loaded"], "a,b");
        assert!(status.message().contains("`a`, `b`"), "{}", status.message());
    }

    #[test]
    fn a_stopped_guest_is_aborted_whatever_its_reason() {
        for reason in ["CPU_EXHAUSTED", "SOMETHING_NEW"] {
            let status = status(&InferenceError::Guest { reason, detail: "1 of 1".into() });
            assert_eq!(status.code(), Code::Aborted);
            assert_eq!(Details::of(&status).reason.as_deref(), Some(reason));
        }
    }

    #[test]
    fn retry_and_quota_arrive() {
        let status =
            Failure::new("QUEUE_FULL", "full").retry_after(Duration::from_millis(1500)).quota("queue", "8 of 8").into_status();
        assert_eq!(Details::of(&status).retry_after, Some(Duration::from_millis(1500)));
        assert_eq!(status.get_details_quota_failure().unwrap().violations[0].subject, "queue");
    }

    #[test]
    fn a_status_of_another_program_has_no_details() {
        assert_eq!(Details::of(&Status::unavailable("connection refused")), Details::default());
    }
}

use std::{error::Error as _, time::Duration};

use llambo_proto::status::{Details, code_name};
use tonic::{Code, ConnectError, Status, TimeoutExpired};

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be one of a host.
    #[error("`{address}` is no address of a host: {why}; write it like `http://127.0.0.1:7400` or `https://host:7400`")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// A token or certificate that cannot be one.
    #[error("{0}")]
    Credentials(String),
    /// Nothing answered there.
    #[error("cannot reach a host at `{address}`: {why}; is `llambo serve` running?")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// What the system said.
        why: String,
    },
    /// The host went away during the call.
    #[error("the connection to `{address}` was lost: {why}")]
    Lost {
        /// The host.
        address: String,
        /// What the system said.
        why: String,
    },
    /// The host said no, or could not finish.
    #[error("{message}")]
    Refused {
        /// gRPC's own classification.
        code: Code,
        /// The stable upper-case name of the cause, such as `QUEUE_FULL`; the code's name where the host gave none.
        reason: String,
        /// For people.
        message: String,
        /// When trying again makes sense, if the host said so.
        retry_after: Option<Duration>,
    },
}

impl Error {
    /// The stable upper-case name of the cause.
    pub fn reason(&self) -> &str {
        match self {
            Self::Address { .. } => "INVALID_ADDRESS",
            Self::Credentials(_) => "INVALID_CREDENTIALS",
            Self::Unreachable { .. } => "UNREACHABLE",
            Self::Lost { .. } => "CONNECTION_LOST",
            Self::Refused { reason, .. } => reason,
        }
    }

    /// gRPC's classification.
    pub fn code(&self) -> Code {
        match self {
            Self::Address { .. } | Self::Credentials(_) => Code::InvalidArgument,
            Self::Unreachable { .. } | Self::Lost { .. } => Code::Unavailable,
            Self::Refused { code, .. } => *code,
        }
    }

    /// When trying again makes sense, if the host said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The answer to a status, from the host or made on this side because there was none.
    pub(crate) fn of(status: &Status, address: &str) -> Self {
        let details = Details::of(status);
        if let (None, Some(source)) = (&details.reason, status.source()) {
            let address = address.to_owned();
            if causes(source).any(Cause::is::<TimeoutExpired>) {
                return Self::timed_out();
            }
            let why = deepest(source);
            return if causes(source).any(Cause::is::<ConnectError>) {
                Self::Unreachable { address, why }
            } else {
                Self::Lost { address, why }
            };
        }
        // a host's transport says this when a call's time is over before the call said anything itself
        if details.reason.is_none() && status.code() == Code::Cancelled && status.message() == "Timeout expired" {
            return Self::timed_out();
        }
        // tonic's own words for an answer without a gRPC status
        if details.reason.is_none() && status.message().starts_with("grpc-status header missing") {
            let why = "an HTTP server that speaks no gRPC answers there; the gRPC port of a host is 7400, its HTTP port 7480, \
                       unless set otherwise";
            return Self::Unreachable { address: address.to_owned(), why: why.into() };
        }
        Self::Refused {
            code: status.code(),
            reason: details.reason.unwrap_or_else(|| code_name(status.code()).to_owned()),
            message: status.message().to_owned(),
            retry_after: details.retry_after,
        }
    }

    pub(crate) fn timed_out() -> Self {
        Self::Refused {
            code: Code::DeadlineExceeded,
            reason: "DEADLINE_EXCEEDED".into(),
            message: "the answer did not come within its time".into(),
            retry_after: None,
        }
    }
}

type Cause = dyn std::error::Error + 'static;

/// An error, its cause, the cause of that, and so on.
fn causes(error: &Cause) -> impl Iterator<Item = &Cause> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let this = next?;
        next = this.source();
        Some(this)
    })
}

/// What the innermost cause says: layers above it only repeat that something in the transport failed.
pub(crate) fn deepest(error: &Cause) -> String {
    causes(error).last().map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use llambo_proto::status::Failure;

    use super::*;

    #[test]
    fn a_refusal_keeps_code_reason_message_and_delay() {
        let status = Failure::new("QUEUE_FULL", "8 of 8 wait").retry_after(Duration::from_secs(2)).into_status();
        let error = Error::of(&status, "http://h");
        assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, "QUEUE_FULL"));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
        assert_eq!(error.to_string(), "8 of 8 wait");
    }

    #[test]
    fn a_status_without_details_is_named_by_its_code() {
        let error = Error::of(&Status::unimplemented("no such method"), "http://h");
        assert_eq!(error.reason(), "UNIMPLEMENTED");
    }

    #[test]
    fn a_transport_timeout_is_a_deadline_not_a_cancellation() {
        let error = Error::of(&Status::from_error(Box::new(TimeoutExpired(()))), "http://h");
        assert_eq!(error, Error::timed_out());
        assert_eq!(Error::of(&Status::cancelled("Timeout expired"), "http://h"), Error::timed_out());
    }
}

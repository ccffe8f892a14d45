//! Exit codes and how a failure is told.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | the host refused the request or could not finish it |
//! | 2 | it ran, and the answer is no: the host is not serving, or requests of a load failed |
//! | 64 | the command line is wrong |
//! | 65 | a configuration, or input that this program itself reads, is wrong |
//! | 69 | no host at that address |
//! | 73 | a file that should be written exists or cannot be made |
//! | 74 | reading or writing failed |
//! | 130 | interrupted |
//!
//! From 64 on these are the codes of BSD's `sysexits.h`, and the shell's for an interrupt.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use llambo_client::{Code, Error, code_name};
use serde_json::json;

use crate::output;

pub(crate) const OK: u8 = 0;
pub(crate) const NO: u8 = 2;
pub(crate) const USAGE: u8 = 64;
pub(crate) const INTERRUPTED: u8 = 130;
const FAILED: u8 = 1;
const BAD_INPUT: u8 = 65;
const UNREACHABLE: u8 = 69;
const CANNOT_CREATE: u8 = 73;
const IO: u8 = 74;

/// Why a command did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    exit: u8,
    reason: String,
    message: String,
    /// Of the host's answer, if it gave one.
    code: Option<Code>,
}

impl Failure {
    fn local(exit: u8, reason: &str, message: impl Into<String>) -> Self {
        Self { exit, reason: reason.to_owned(), message: message.into(), code: None }
    }

    /// What clap found wrong, without its styling.
    pub(crate) fn usage(error: &clap::Error) -> Self {
        Self::local(USAGE, "USAGE", error.to_string().trim().trim_start_matches("error: "))
    }

    /// What was asked for does not go together with how it was asked for.
    pub(crate) fn wrong_usage(message: impl Into<String>) -> Self {
        Self::local(USAGE, "USAGE", message)
    }

    /// A file or standard input that cannot be used.
    pub(crate) fn bad_input(message: impl Into<String>) -> Self {
        Self::local(BAD_INPUT, "BAD_INPUT", message)
    }

    /// A configuration with mistakes, one line each.
    pub(crate) fn bad_config(message: impl Into<String>) -> Self {
        Self::local(BAD_INPUT, "BAD_CONFIG", message)
    }

    pub(crate) fn cannot_create(message: impl Into<String>) -> Self {
        Self::local(CANNOT_CREATE, "CANNOT_CREATE", message)
    }

    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::local(UNREACHABLE, "UNREACHABLE", message)
    }

    /// A place on the disk that has no room, or cannot be used.
    pub(crate) fn disk(message: impl Into<String>) -> Self {
        Self::local(IO, "IO", message)
    }

    /// A connection that was there and is not.
    pub(crate) fn lost(message: impl Into<String>) -> Self {
        Self::local(UNREACHABLE, "CONNECTION_LOST", message)
    }

    /// The host answered, but not with what was asked for.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::local(FAILED, "REFUSED", message)
    }

    /// The host refused over HTTP, and said why.
    pub(crate) fn because(reason: &str, message: impl Into<String>) -> Self {
        Self::local(FAILED, reason, message)
    }

    /// `what` as in "cannot {what}".
    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        Self::local(IO, "IO", format!("cannot {what}: {error}"))
    }

    /// The code to exit with.
    pub(crate) fn code(&self) -> u8 {
        self.exit
    }

    /// For people.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Says where it happened, as editors jump to it.
    pub(crate) fn at(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Says what there is nevertheless.
    pub(crate) fn with_note(mut self, note: &str) -> Self {
        self.message = format!("{}; {note}", self.message);
        self
    }

    pub(crate) fn interrupted() -> Self {
        Self::local(INTERRUPTED, "INTERRUPTED", "interrupted")
    }
}

/// Standard output failed. That nobody reads it any more, as behind `| head`, is a good end and not a failure.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::local(OK, "CLOSED", ""),
            _ => Self::io("write to standard output", &error),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Address { .. } | Error::Credentials(_) => USAGE,
            Error::Unreachable { .. } | Error::Lost { .. } => UNREACHABLE,
            _ => FAILED,
        };
        let mut message = error.to_string();
        if let Some(delay) = error.retry_after() {
            message = format!("{message} (try again in {:.1} s)", delay.as_secs_f64());
        }
        Self { exit, reason: error.reason().to_owned(), message, code: Some(error.code()) }
    }
}

/// Tells standard error, for people or as `{"error": {...}}`, and gives the code to exit with.
pub(crate) fn report(failure: &Failure, json: bool) -> ExitCode {
    if failure.exit != OK {
        let Failure { reason, message, code, .. } = failure;
        let text = if json {
            let code = code.map_or_else(|| failure.exit.to_string(), |code| code_name(code).to_owned());
            json!({ "error": { "reason": reason, "message": message, "code": code } }).to_string()
        } else if *reason == "BAD_CONFIG" {
            // each line names its place already, in a form that editors jump to
            message.clone()
        } else {
            format!("error: {message}")
        };
        // if standard error is gone too, the exit code has to do
        let text = if json { text.into() } else { output::for_terminal(&text) };
        let _ = writeln!(io::stderr(), "{text}");
    }
    ExitCode::from(failure.exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_a_good_end() {
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit, OK);
        assert_eq!(Failure::from(io::Error::other("disk full")).exit, IO);
    }

    #[test]
    fn an_absent_host_has_its_own_code() {
        let error = Error::Unreachable { address: "http://h".into(), why: "refused".into() };
        assert_eq!(Failure::from(error).exit, UNREACHABLE);
    }
}

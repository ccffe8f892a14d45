//! What a host tells about itself: log lines, traces, and the page of metrics under the names that dashboards know.
//!
//! Others measure and write; here it is decided in which form that leaves the process. Nothing here ever waits for whoever reads it: logs go to
//! standard error, traces through a bounded queue whose overflow is counted, metrics are asked for.

mod aliases;
mod logs;
mod page;
mod recorder;
mod table;
mod traces;

pub use aliases::aliases;
pub use logs::{LogFormat, Logs, Writing};
pub use recorder::record;
pub use table::{Described, Kind, Listing, describe, labels_of};
pub use traces::{Destination, Exporting, Protocol, SpanQueue, Waiting, headers, span_queue};

/// Why logs or traces could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// Which lines are written cannot be read.
    #[error("logging.level: {0}")]
    Level(String),
    /// There is a subscriber already.
    #[error("logs cannot be written: {0}")]
    Taken(String),
    /// Measurements go somewhere else already.
    #[error("metrics cannot be recorded: {0}")]
    Recorder(String),
    /// Where traces go cannot be used.
    #[error("tracing.otlp `{endpoint}`: {cause}; write it like http://127.0.0.1:4317")]
    Destination {
        /// Where they should have gone.
        endpoint: String,
        /// What is wrong with that.
        cause: String,
    },
    /// A line of the file with headers. Its content is a secret and is not shown.
    #[error("tracing.headers-file: line {line} is no header; write each on a line of its own, like `authorization: Bearer ...`")]
    Header {
        /// Counted from 1.
        line: usize,
    },
}

/// Describes this crate's metrics to the recorder; call once, after it is installed.
pub fn describe_metrics() {
    metrics::describe_counter!(logs::LOST, "Log lines that nobody took in time: standard error was full or halted");
    metrics::describe_counter!(
        traces::SPANS,
        "Parts of traces, by outcome: sent, dropped because the queue was full, failed because the collector did not take them"
    );
}

//! Traces leave the house: parts become spans of OpenTelemetry, wait in one bounded queue, and go to a collector from one task.

mod destination;
mod export;
mod layer;

use opentelemetry_sdk::trace::SpanData;
use tokio::sync::mpsc;

pub use destination::{Destination, Protocol, headers};
pub use export::Exporting;

use layer::Parts;

pub(crate) const SPANS: &str = "llambo_telemetry_spans_total";

/// Spans that wait for the collector: about a second of 1,000 requests, in some 4 MB.
const WAITING_SPANS: usize = 4096;

/// Where parts of requests go when they end. Full, it counts and forgets them.
#[derive(Clone, Debug)]
pub struct SpanQueue(mpsc::Sender<SpanData>);

/// A queue, and what comes out of it.
pub fn span_queue() -> (SpanQueue, Waiting) {
    let (sender, waiting) = mpsc::channel(WAITING_SPANS);
    (SpanQueue(sender), Waiting(waiting))
}

/// Spans on their way to the collector.
#[derive(Debug)]
pub struct Waiting(mpsc::Receiver<SpanData>);

impl SpanQueue {
    pub(crate) fn layer(&self) -> Parts {
        Parts::new(self.0.clone())
    }
}

fn count(outcome: &'static str, n_spans: usize) {
    metrics::counter!(SPANS, "outcome" => outcome).increment(n_spans as u64);
}

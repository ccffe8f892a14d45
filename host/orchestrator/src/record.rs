//! What is known of a request when it has ended: counted, measured and logged once, as its record drops.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use llambo_inference::{Fault, Finished, GenerateRequest, InferenceError, ModelName, NodeId, RequestId, Usage};
use tokio::time::Instant;

use crate::{error::DispatchError, shared::Shared};

/// What happened since the host started. Once nothing is under way, `requests` is the sum of the four that follow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests that arrived.
    pub requests: u64,
    /// Those that were answered to the end.
    pub finished: u64,
    /// Those that ended with an error, deadlines included.
    pub failed: u64,
    /// Those whose asker went away or read nothing.
    pub cancelled: u64,
    /// Those that never reached a node.
    pub rejected: u64,
    /// Times that a request was sent to another node because the first one failed.
    pub redispatched: u64,
    /// Prompt tokens of finished requests.
    pub input_tokens: u64,
    /// Tokens generated, those of unfinished answers included.
    pub output_tokens: u64,
}

/// [`Totals`] as they grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: AtomicU64,
    finished: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    rejected: AtomicU64,
    redispatched: AtomicU64,
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
}

/// One request from its arrival to its end. Dropped without another outcome it counts as cancelled.
pub(crate) struct Record {
    shared: Arc<Shared>,
    id: RequestId,
    model: ModelName,
    node: Option<NodeId>,
    arrived: Instant,
    ttft: Option<Duration>,
    usage: Usage,
    outcome: Outcome,
    error: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Finished,
    Failed,
    Cancelled,
    Rejected,
}

// === impl Counters ===

impl Counters {
    pub(crate) fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            requests: read(&self.requests),
            finished: read(&self.finished),
            failed: read(&self.failed),
            cancelled: read(&self.cancelled),
            rejected: read(&self.rejected),
            redispatched: read(&self.redispatched),
            input_tokens: read(&self.input_tokens),
            output_tokens: read(&self.output_tokens),
        }
    }
}

// === impl Record ===

impl Record {
    pub(crate) fn open(shared: &Arc<Shared>, request: &GenerateRequest) -> Self {
        shared.counters.requests.fetch_add(1, Ordering::Relaxed);
        Self {
            shared: Arc::clone(shared),
            id: request.id.clone(),
            model: request.model.clone(),
            node: None,
            arrived: Instant::now(),
            ttft: None,
            usage: Usage::default(),
            outcome: Outcome::Cancelled,
            error: None,
        }
    }

    /// A node was found.
    pub(crate) fn assigned(&mut self, node: &NodeId) {
        if self.node.is_none() {
            metrics::histogram!("llambo_orchestrator_queue_wait_seconds").record(self.arrived.elapsed());
        }
        self.node = Some(node.clone());
    }

    pub(crate) fn redispatched(&self) {
        self.shared.counters.redispatched.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("llambo_orchestrator_redispatched_total").increment(1);
    }

    pub(crate) fn generated(&mut self, n_tokens: u32) {
        if self.ttft.is_none() {
            let ttft = self.arrived.elapsed();
            metrics::histogram!("llambo_orchestrator_ttft_seconds").record(ttft);
            self.ttft = Some(ttft);
        }
        self.usage.output_tokens = self.usage.output_tokens.saturating_add(n_tokens);
    }

    pub(crate) fn n_generated(&self) -> u32 {
        self.usage.output_tokens
    }

    pub(crate) fn finished(&mut self, finished: &Finished) {
        self.usage = finished.usage;
        self.outcome = Outcome::Finished;
    }

    pub(crate) fn failed(&mut self, error: &InferenceError) {
        let gone = matches!(error, InferenceError::Cancelled | InferenceError::Stalled { .. });
        self.outcome = if gone { Outcome::Cancelled } else { Outcome::Failed };
        self.error = (error.fault() == Fault::Node).then(|| error.to_string());
    }

    pub(crate) fn refused(&mut self, error: &DispatchError) {
        if let DispatchError::Inference(error) = error {
            return self.failed(error);
        }
        self.outcome = Outcome::Rejected;
        metrics::counter!("llambo_orchestrator_rejected_total", "reason" => error.reason()).increment(1);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let counters = &self.shared.counters;
        let (counter, outcome) = match self.outcome {
            Outcome::Finished => (&counters.finished, "finished"),
            Outcome::Failed => (&counters.failed, "failed"),
            Outcome::Cancelled => (&counters.cancelled, "cancelled"),
            Outcome::Rejected => (&counters.rejected, "rejected"),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        counters.input_tokens.fetch_add(self.usage.input_tokens.into(), Ordering::Relaxed);
        counters.output_tokens.fetch_add(self.usage.output_tokens.into(), Ordering::Relaxed);
        metrics::counter!("llambo_orchestrator_requests_total", "outcome" => outcome).increment(1);
        if self.outcome != Outcome::Rejected {
            metrics::histogram!("llambo_orchestrator_request_seconds").record(self.arrived.elapsed());
        }
        if let Some(error) = &self.error {
            // a node's fault that reached a client: the node itself says whether a person must act
            tracing::debug!(request_id = %self.id, error, "request failed");
        }
        tracing::debug!(
            request_id = %self.id,
            node_id = self.node.as_ref().map(NodeId::as_str),
            model = %self.model,
            ttft_ms = self.ttft.map(|ttft| ttft.as_secs_f64() * 1e3),
            n_prompt = self.usage.input_tokens,
            n_generated = self.usage.output_tokens,
            outcome,
            "request ended"
        );
    }
}

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

use crate::{
    error::DispatchError,
    latencies::{Latencies, LatencyCounts},
    observe::Observed,
    quota::Hold,
    route::RouteRecord,
    shared::Shared,
    tiers::TierNote,
    usage::Use,
};

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

/// What grows while requests run; [`Totals`] grow as they end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Tokens generated since the host started.
    pub generated_tokens: u64,
    /// From a request's arrival to its first token, of all requests that got one.
    pub ttft: LatencyCounts,
}

/// [`Totals`] and [`Pulse`] as they grow.
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
    generated: AtomicU64,
    ttft: Latencies,
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
    /// What its tenant uses, while that is counted.
    of_tenant: Option<Use>,
    /// What its tenant may use, where that is limited.
    hold: Option<Hold>,
    /// Its last decision in the record, and when its node was asked and said something first.
    decision: Option<u64>,
    asked: Option<Instant>,
    first: Option<Instant>,
    /// The tier it should have had, and the one that serves it, where there are several.
    tier: Option<(Option<u8>, u8)>,
    pub(crate) observed: Observed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
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

    pub(crate) fn pulse(&self) -> Pulse {
        Pulse { generated_tokens: self.generated.load(Ordering::Relaxed), ttft: self.ttft.counts() }
    }
}

// === impl Outcome ===

impl Outcome {
    pub(crate) const COUNT: usize = Self::Rejected as usize + 1;

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
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
            of_tenant: None,
            hold: None,
            decision: None,
            asked: None,
            first: None,
            tier: None,
            observed: Observed::open(shared.meters.of(&request.model), request),
        }
    }

    /// A node goes on with it.
    pub(crate) fn served_by(&mut self, tier: Option<&TierNote>) {
        self.tier = tier.map(|tier| (tier.wanted, tier.serves().1));
    }

    /// It is within what its tenant may use.
    pub(crate) fn hold(&mut self, hold: Option<Hold>) {
        self.hold = hold;
    }

    /// It was let in.
    pub(crate) fn let_in(&mut self, of_tenant: Option<Use>) {
        self.of_tenant = of_tenant;
    }

    /// A node was found.
    pub(crate) fn assigned(&mut self, node: &NodeId, decision: Option<u64>) {
        self.tell_end("failed");
        (self.decision, self.asked) = (decision, Some(Instant::now()));
        if let Some(of_tenant) = &mut self.of_tenant {
            of_tenant.runs();
        }
        self.observed.assigned(node, self.arrived.elapsed());
        self.node = Some(node.clone());
    }

    pub(crate) fn redispatched(&self) {
        self.shared.counters.redispatched.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("llambo_orchestrator_redispatched_total").increment(1);
    }

    pub(crate) fn generated(&mut self, n_tokens: u32) {
        let ttft = self.ttft.is_none().then(|| self.arrived.elapsed());
        self.observed.generated(n_tokens, ttft);
        let counters = &self.shared.counters;
        counters.generated.fetch_add(n_tokens.into(), Ordering::Relaxed);
        if let Some(took) = ttft {
            counters.ttft.add(took);
            (self.ttft, self.first) = (ttft, Some(Instant::now()));
        }
        self.usage.output_tokens = self.usage.output_tokens.saturating_add(n_tokens);
    }

    /// Tells whoever listens how the recorded decision went.
    fn tell_end(&mut self, outcome: &'static str) {
        let (Some(number), Some(asked)) = (self.decision.take(), self.asked) else { return };
        let ttft = self.first.map(|first| first.saturating_duration_since(asked));
        let (at, latency) = (self.shared.started.elapsed(), asked.elapsed());
        let end = RouteRecord::End { number, at, outcome, ttft, latency, usage: self.usage };
        let _ = self.shared.recorder.send(Arc::new(end));
    }

    pub(crate) fn finished(&mut self, finished: &Finished) {
        self.usage = finished.usage;
        self.observed.finished(finished);
        self.outcome = Outcome::Finished;
    }

    pub(crate) fn failed(&mut self, error: &InferenceError) {
        let gone = matches!(error, InferenceError::Cancelled | InferenceError::Stalled { .. });
        self.outcome = if gone { Outcome::Cancelled } else { Outcome::Failed };
        self.observed.failed(error.reason());
        self.error = (error.fault() == Fault::Node).then(|| error.to_string());
    }

    pub(crate) fn refused(&mut self, error: &DispatchError) {
        if let DispatchError::Inference(error) = error {
            return self.failed(error);
        }
        self.outcome = Outcome::Rejected;
        self.observed.failed(error.reason());
        metrics::counter!("llambo_orchestrator_rejected_total", "reason" => error.reason()).increment(1);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.tell_end(self.outcome.as_str());
        let counters = &self.shared.counters;
        let outcome = self.outcome.as_str();
        let counter = match self.outcome {
            Outcome::Finished => &counters.finished,
            Outcome::Failed => &counters.failed,
            Outcome::Cancelled => &counters.cancelled,
            Outcome::Rejected => &counters.rejected,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let n_tokens = u64::from(self.usage.input_tokens) + u64::from(self.usage.output_tokens);
        if let Some(of_tenant) = &mut self.of_tenant {
            of_tenant.cost(n_tokens);
        }
        if let Some(hold) = &mut self.hold {
            hold.cost(n_tokens);
        }
        counters.input_tokens.fetch_add(self.usage.input_tokens.into(), Ordering::Relaxed);
        counters.output_tokens.fetch_add(self.usage.output_tokens.into(), Ordering::Relaxed);
        self.shared.meters.requested(self.outcome);
        if let Some((Some(wanted), served)) = self.tier {
            self.shared.tiers.ended(wanted, served);
            let labels = [("wanted", wanted.to_string()), ("served", served.to_string())];
            metrics::counter!("llambo_orchestrator_tier_requests_total", &labels).increment(1);
        }
        self.observed.ended(outcome, self.arrived.elapsed());
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

//! What is measured of a request besides its record: by its model, and as parts of its trace.

use std::{sync::Arc, time::Duration};

use llambo_inference::{Finished, GenerateRequest, NodeId, Part, TraceContext, part};
use tokio::time::Instant;

use crate::meters::Meters;

/// One request from its arrival to its end. Dropping it ends its parts.
pub(crate) struct Observed {
    meters: Arc<Meters>,
    /// How it ended, where it was answered.
    finish: Option<&'static str>,
    /// It has no node yet.
    is_pending: bool,
    /// When the last token came.
    last: Option<Instant>,
    // the first of these two ends before the second begins
    queue: Part,
    node: Part,
    trace: Option<TraceContext>,
    n_attempts: u64,
}

impl Observed {
    pub(crate) fn open(meters: Arc<Meters>, request: &GenerateRequest) -> Self {
        meters.pending.increment(1.0);
        let trace = request.routing.trace;
        let queue = part!(trace, "queue", llambo.priority = request.priority.as_str());
        Self { meters, finish: None, is_pending: true, last: None, queue, node: Part::default(), trace, n_attempts: 0 }
    }

    /// It got a node, its first one or another. Answers with where the node's own parts belong.
    pub(crate) fn assigned(&mut self, node: &NodeId, waited: Duration) {
        self.n_attempts += 1;
        if self.n_attempts == 1 {
            self.meters.queue_wait.record(waited);
        }
        self.is_no_longer_pending();
        self.queue.end();
        // the node before ends before this one begins
        self.node.end();
        self.node = part!(self.trace, "node", llambo.node.id = node.as_str(), llambo.attempt = self.n_attempts);
    }

    /// Where the parts of the node that has it belong.
    pub(crate) fn trace(&self) -> Option<TraceContext> {
        self.node.context().or(self.trace)
    }

    /// A node failed before it said anything.
    pub(crate) fn node_failed(&self, reason: &str) {
        self.node.failed(reason);
    }

    /// Some tokens came; `ttft` where they are the first.
    pub(crate) fn generated(&mut self, n_tokens: u32, ttft: Option<Duration>) {
        let now = Instant::now();
        if let Some(ttft) = ttft {
            self.meters.ttft.record(ttft);
            self.last = Some(now);
        } else if let Some(last) = &mut self.last
            && n_tokens > 0
        {
            let interval = now.saturating_duration_since(*last) / n_tokens;
            self.meters.token_interval.record_many(interval, n_tokens as usize);
            *last = now;
        }
    }

    pub(crate) fn finished(&mut self, finished: &Finished) {
        self.finish = Some(finished.reason.as_str());
    }

    /// It failed, whoever had it then.
    pub(crate) fn failed(&self, reason: &str) {
        self.queue.failed(reason);
        self.node.failed(reason);
    }

    /// It has ended, as its record says.
    pub(crate) fn ended(&mut self, outcome: &'static str, took: Duration) {
        if outcome == "rejected" {
            return;
        }
        if outcome == "cancelled" {
            self.failed("CANCELLED");
        }
        let reason = self.finish.unwrap_or(outcome);
        self.meters.ended(reason);
        self.meters.request.record(took);
    }

    fn is_no_longer_pending(&mut self) {
        if std::mem::take(&mut self.is_pending) {
            self.meters.pending.decrement(1.0);
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.is_no_longer_pending();
    }
}

#[cfg(test)]
mod tests {
    use llambo_inference::{FinishReason, Priority, Prompt, Routing, Sampling, Share, Usage};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn observed() -> Observed {
        let request = GenerateRequest {
            id: "r".into(),
            model: "m".into(),
            node_type: None,
            prompt: Prompt::Text("hello".into()),
            sampling: Sampling::greedy(3),
            share: Share::default(),
            deadline: None,
            routing: Routing::default(),
            priority: Priority::default(),
            journal: None,
            log: None,
        };
        Observed::open(Arc::new(Meters::of(&request.model)), &request)
    }

    /// The page of metrics after `happens`.
    fn after(happens: impl FnOnce()) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, happens);
        recorder.handle().render()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_pending_until_it_has_a_node_or_goes() {
        let page = after(|| {
            let (mut served, waiting, gone) = (observed(), observed(), observed());
            served.assigned(&"n".into(), Duration::ZERO);
            served.assigned(&"another".into(), Duration::ZERO);
            drop((served, gone));
            std::mem::forget(waiting);
        });
        assert!(page.contains("llambo_orchestrator_pending_requests{model=\"m\"} 1\n"), "{page}");
        assert!(
            page.contains("llambo_orchestrator_queue_wait_seconds_count{model=\"m\"} 1\n"),
            "only up to the first node: {page}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_counted_by_its_reason_and_a_refusal_is_none() {
        let page = after(|| {
            let mut finished = observed();
            finished.generated(1, Some(Duration::from_millis(5)));
            finished.generated(3, None);
            finished.finished(&Finished { reason: FinishReason::Length, usage: Usage::default() });
            finished.ended("finished", Duration::from_secs(1));
            observed().ended("cancelled", Duration::from_secs(1));
            observed().ended("rejected", Duration::from_secs(1));
        });
        for line in [
            "llambo_orchestrator_ended_total{model=\"m\",reason=\"length\"} 1\n",
            "llambo_orchestrator_ended_total{model=\"m\",reason=\"cancelled\"} 1\n",
            "llambo_orchestrator_request_seconds_count{model=\"m\"} 2\n",
            "llambo_orchestrator_ttft_seconds_count{model=\"m\"} 1\n",
            "llambo_orchestrator_token_interval_seconds_count{model=\"m\"} 3\n",
        ] {
            assert!(page.contains(line), "{line}{page}");
        }
        assert!(!page.contains("rejected"), "{page}");
    }
}

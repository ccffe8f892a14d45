//! What became of requests, in figures.

use std::collections::BTreeMap;

use crate::{Candidate, ChooseNode, percentile};

/// How requests were spread over nodes and how long they took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Nodes that were candidates.
    pub nodes: u32,
    /// Requests of the busiest of them.
    pub served_max: u64,
    /// Requests of the idlest.
    pub served_min: u64,
    /// Standard deviation of requests over nodes, divided by their mean.
    pub spread: f64,
    /// Microseconds of a request on its node, as far as they are known or estimated.
    pub latency_mean_us: f64,
    /// The same, 95th percentile.
    pub latency_p95_us: f64,
    /// Of prompt bytes, the share that the nodes had probably computed before.
    pub cached_share: f64,
}

/// An outcome as it grows.
#[derive(Default)]
pub(super) struct Tally {
    /// Requests by node number; in order, so that sums are the same to the last bit each time.
    served: BTreeMap<u64, u64>,
    latencies_us: Vec<f64>,
    prompt_bytes: u64,
    cached_bytes: u64,
}

impl Tally {
    /// A request went to one of these candidates.
    pub(super) fn add(&mut self, ask: &ChooseNode, chosen: &Candidate, latency_us: Option<f64>) {
        for candidate in &ask.candidates {
            self.served.entry(candidate.node).or_default();
        }
        *self.served.entry(chosen.node).or_default() += 1;
        self.latencies_us.extend(latency_us);
        self.prompt_bytes += u64::from(ask.request.n_prompt_bytes);
        self.cached_bytes += u64::from(chosen.cached_bytes.min(ask.request.n_prompt_bytes));
    }

    pub(super) fn outcome(mut self) -> Outcome {
        let served = || self.served.values().copied();
        let n = self.served.len() as f64;
        let mean = share(served().sum::<u64>() as f64, n);
        let variance = share(served().map(|served| (served as f64 - mean).powi(2)).sum(), n);
        Outcome {
            nodes: u32::try_from(self.served.len()).unwrap_or(u32::MAX),
            served_max: served().max().unwrap_or(0),
            served_min: served().min().unwrap_or(0),
            spread: share(variance.sqrt(), mean),
            latency_mean_us: share(self.latencies_us.iter().sum(), self.latencies_us.len() as f64),
            cached_share: share(self.cached_bytes as f64, self.prompt_bytes as f64),
            latency_p95_us: percentile(&mut self.latencies_us, 0.95),
        }
    }
}

/// 0 of nothing.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

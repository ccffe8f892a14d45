//! How a request left its node, and what that says of the node.

use llambo_inference::NodeState;
use tokio::time::Instant;

use crate::{
    admission::{Admission, Effects},
    registry::NodeKey,
};

/// Weight of the newest value in a node's averages: about the last ten requests count.
const ALPHA: f32 = 0.2;
/// How a request left its node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    /// Whether the node was asked at all.
    pub(crate) used: bool,
    pub(crate) ttft_us: Option<f32>,
    /// Time of the whole request, if it was answered.
    pub(crate) latency_us: Option<f32>,
    /// Whether the node failed it.
    pub(crate) failed: bool,
    /// What the node says of itself after an error.
    pub(crate) observed: Option<NodeState>,
}

impl Admission {
    /// Gives a node back.
    pub(crate) fn give_back(&mut self, key: NodeKey, report: Report, now: Instant, effects: &mut Effects) {
        self.in_flight -= 1;
        if report.used {
            self.rate.ended(now);
            self.registry.ended(key);
        }
        let number = self.balance.number();
        let may_rest = self.registry.may_rest(key);
        let mut rest = None;
        self.change(key, effects, |entry| {
            entry.in_flight -= 1;
            if entry.served_under != number {
                (entry.served, entry.served_under) = (0, number);
            }
            entry.served += u64::from(report.used);
            entry.ttft_us = averaged(entry.ttft_us, report.ttft_us);
            entry.latency_us = averaged(entry.latency_us, report.latency_us);
            if report.used {
                entry.failures += ALPHA * (f32::from(u8::from(report.failed)) - entry.failures);
            }
            if report.latency_us.is_some() {
                entry.breaker.succeeded();
            } else if report.failed && entry.breaker.failed() && may_rest {
                rest = Some(entry.breaker.open(now));
            }
            if let Some(observed) = report.observed {
                entry.observed = observed;
            }
        });
        effects.rests.extend(rest.map(|until| (key, until)));
    }
}

/// An exponential average with one more value; 0 is none yet.
fn averaged(before: f32, value: Option<f32>) -> f32 {
    match value {
        Some(value) if before > 0.0 => before + ALPHA * (value - before),
        Some(value) => value,
        None => before,
    }
}

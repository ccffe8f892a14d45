//! Nodes that fail one request after the other rest for a while, so that requests need not find out one by one. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which a node rests.
const FAILURES: u32 = 5;
/// How long it rests at first; twice as long each time that it fails again right after.
const REST_MIN: Duration = Duration::from_millis(500);
const REST_MAX: Duration = Duration::from_secs(30);

/// A node's record of failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Breaker {
    failures: u32,
    rests: u32,
    until: Option<Instant>,
}

impl Breaker {
    /// It answered.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It failed a request. Answers whether it had better rest.
    pub(crate) fn failed(&mut self) -> bool {
        self.failures += 1;
        self.failures >= FAILURES && self.until.is_none()
    }

    /// It rests from now on. Answers until when.
    pub(crate) fn open(&mut self, now: Instant) -> Instant {
        let rest = REST_MIN.saturating_mul(1 << self.rests.min(10)).min(REST_MAX);
        self.rests += 1;
        let until = now + rest;
        self.until = Some(until);
        until
    }

    /// Its rest is over, if it was to be by now. The next failure makes it rest again, an answer makes all good.
    pub(crate) fn close(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            (self.until, self.failures) = (None, FAILURES - 1);
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_rests_after_five_failures_and_longer_after_each_more() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..4 {
            assert!(!breaker.failed());
        }
        for rest in [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000] {
            assert!(breaker.failed());
            let until = breaker.open(now);
            assert_eq!(until - now, Duration::from_millis(rest));
            breaker.close(until - Duration::from_millis(1));
            assert!(breaker.is_open(), "not before its time");
            breaker.close(until);
            assert!(!breaker.is_open());
            now = until;
        }
        breaker.succeeded();
        assert!((0..4).all(|_| !breaker.failed()), "an answer makes all good");
    }
}

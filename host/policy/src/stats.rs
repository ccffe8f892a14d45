//! How a policy does: calls, what became of them, and whether it may go on.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use llambo_strategy::{Fallback, percentile};

/// Calls whose times are kept.
const TIMED_CALLS: usize = 1024;
/// A policy that failed so many of so many calls is suspended.
const FAILURES: usize = 10;
const OF_CALLS: u64 = 100;
/// Between two lines of the log about one policy.
const QUIET: Duration = Duration::from_secs(1);

/// What is counted of one policy. Written by many threads; read now and then.
pub(crate) struct Stats {
    calls: AtomicU64,
    fallbacks: [AtomicU64; Fallback::ALL.len()],
    /// A ring.
    times_ns: Vec<AtomicU32>,
    pub(crate) compared: AtomicU64,
    pub(crate) agreed: AtomicU64,
    pub(crate) missed: AtomicU64,
    is_suspended: AtomicBool,
    trouble: Mutex<Trouble>,
}

#[derive(Default)]
struct Trouble {
    /// Calls that failed lately, by number.
    failed: VecDeque<u64>,
    told: Option<Instant>,
    reason: Option<String>,
}

/// What the failure of a call leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    Nothing,
    /// It is worth a line in the log.
    Tell,
    /// It is suspended from now on.
    Suspend,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            calls: AtomicU64::new(0),
            fallbacks: Default::default(),
            times_ns: (0..TIMED_CALLS).map(|_| AtomicU32::new(0)).collect(),
            compared: AtomicU64::new(0),
            agreed: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            is_suspended: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    /// A call has ended.
    pub(crate) fn called(&self, took: Duration) {
        let number = self.calls.fetch_add(1, Relaxed);
        let place = usize::try_from(number % TIMED_CALLS as u64).unwrap_or(0);
        self.times_ns[place].store(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX), Relaxed);
    }

    pub(crate) fn fell_back(&self, cause: Fallback) {
        self.fallbacks[cause as usize].fetch_add(1, Relaxed);
    }

    /// So many of the calls before failed, as only the last of them shows.
    pub(crate) fn failed_in(&self, n_calls: usize, detail: &str) -> Consequence {
        let number = self.calls.load(Relaxed);
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.failed.extend(std::iter::repeat_n(number, n_calls));
        while trouble.failed.front().is_some_and(|first| first + OF_CALLS <= number) {
            trouble.failed.pop_front();
        }
        if trouble.failed.len() >= FAILURES && trouble.reason.is_none() {
            trouble.reason = Some(format!("{FAILURES} of its last {OF_CALLS} calls failed, the last one so: {detail}"));
            self.is_suspended.store(true, Relaxed);
            return Consequence::Suspend;
        }
        if trouble.told.is_some_and(|told| told.elapsed() < QUIET) {
            return Consequence::Nothing;
        }
        trouble.told = Some(Instant::now());
        Consequence::Tell
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.is_suspended.load(Relaxed)
    }

    pub(crate) fn suspended_because(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).reason.clone()
    }

    /// What was is forgiven.
    pub(crate) fn resume(&self) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        *trouble = Trouble::default();
        self.is_suspended.store(false, Relaxed);
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    pub(crate) fn fallbacks(&self) -> BTreeMap<Fallback, u64> {
        let counts = Fallback::ALL.into_iter().map(|cause| (cause, self.fallbacks[cause as usize].load(Relaxed)));
        counts.filter(|(_, n)| *n > 0).collect()
    }

    /// Median and 99th percentile, in nanoseconds.
    pub(crate) fn times(&self) -> (f64, f64) {
        let n = usize::try_from(self.calls()).unwrap_or(usize::MAX).min(TIMED_CALLS);
        let mut times: Vec<f64> = self.times_ns[..n].iter().map(|time| f64::from(time.load(Relaxed))).collect();
        (percentile(&mut times, 0.50), percentile(&mut times, 0.99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_among_a_hundred_calls_suspend_and_nine_do_not() {
        let stats = Stats::new();
        let call = |fails: bool| {
            stats.called(Duration::from_nanos(1));
            if fails { stats.failed_in(1, "x") } else { Consequence::Nothing }
        };
        // nine in each hundred, for as long as it likes
        for n in 0..1000 {
            assert_ne!(call(n % 100 < 9), Consequence::Suspend, "{n}");
        }
        let told: Vec<_> = (0..10).map(|_| call(true)).collect();
        assert!(told.contains(&Consequence::Suspend) && stats.is_suspended(), "{told:?}");
        assert!(stats.suspended_because().is_some_and(|why| why.contains("10 of its last 100")));
        stats.resume();
        assert!(!stats.is_suspended() && stats.suspended_because().is_none());
        assert_eq!(call(true), Consequence::Tell);
        assert_eq!(call(true), Consequence::Nothing);
    }

    #[test]
    fn times_are_those_of_the_last_calls() {
        let stats = Stats::new();
        assert_eq!(stats.times(), (0.0, 0.0));
        (1..=2000).for_each(|ns| stats.called(Duration::from_nanos(ns)));
        assert_eq!(stats.times(), (1488.0, 1990.0));
    }
}

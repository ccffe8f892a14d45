//! The strategy in force, its entropy, and how it does.

use std::{sync::Arc, time::Duration};

use llambo_inference::Instant;
use llambo_strategy::{Balancer, Candidates, RequestView, Slot, percentile};

use crate::index::Index;

/// Choices whose times are kept, as the protocol promises.
const TIMED_CHOICES: usize = 1024;

pub(crate) struct Balance {
    balancer: Arc<dyn Balancer>,
    /// Counts strategies, so that what nodes served under an earlier one need not be cleared one by one.
    number: u64,
    choices: u64,
    /// Choices that were no candidates and were replaced.
    nonsense: u64,
    /// Nanoseconds of the last [`TIMED_CHOICES`], a ring.
    times_ns: Vec<u32>,
    entropy: u64,
}

/// How a strategy does since it was set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ChoiceReport {
    pub(crate) choices: u64,
    pub(crate) p50_ns: f64,
    pub(crate) p99_ns: f64,
}

impl Balance {
    pub(crate) fn new(balancer: Arc<dyn Balancer>, entropy: u64) -> Self {
        Self { balancer, number: 1, choices: 0, nonsense: 0, times_ns: Vec::with_capacity(TIMED_CHOICES), entropy }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.balancer.name()
    }

    pub(crate) fn balancer(&self) -> Arc<dyn Balancer> {
        Arc::clone(&self.balancer)
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn nonsense(&self) -> u64 {
        self.nonsense
    }

    /// All choices from now on are `balancer`'s; its report starts from nothing.
    pub(crate) fn set(&mut self, balancer: Arc<dyn Balancer>) -> &'static str {
        let before = std::mem::replace(&mut self.balancer, balancer).name();
        self.number += 1;
        self.choices = 0;
        self.times_ns.clear();
        before
    }

    #[cfg(test)]
    pub(crate) fn seed(&mut self, entropy: u64) {
        self.entropy = entropy;
    }

    /// The strategy's choice and how long it took. A choice that is no candidate is replaced by the next that is.
    pub(crate) fn choose(&mut self, index: &Index, request: &RequestView<'_>) -> Option<(Slot, Duration)> {
        if index.is_empty() {
            return None;
        }
        let entropy = self.next_entropy();
        let started = Instant::now();
        let choice = self.balancer.pick(index, request, entropy);
        let took = started.elapsed();
        let nanos = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX);
        let oldest = usize::try_from(self.choices % TIMED_CHOICES as u64).expect("below 1,024");
        match self.times_ns.get_mut(oldest) {
            Some(time) => *time = nanos,
            None => self.times_ns.push(nanos),
        }
        self.choices += 1;
        if let Some(slot) = choice.filter(|slot| index.is_eligible(*slot)) {
            return Some((slot, took));
        }
        self.nonsense += 1;
        index.next_after(index.last()).map(|slot| (slot, took))
    }

    pub(crate) fn report(&self) -> ChoiceReport {
        let mut times: Vec<f64> = self.times_ns.iter().copied().map(f64::from).collect();
        ChoiceReport { choices: self.choices, p50_ns: percentile(&mut times, 0.50), p99_ns: percentile(&mut times, 0.99) }
    }

    /// splitmix64 (Steele et al. 2014): seeded once, so that the choices of a run can be replayed.
    fn next_entropy(&mut self) -> u64 {
        self.entropy = self.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.entropy;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

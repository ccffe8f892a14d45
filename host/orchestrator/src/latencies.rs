//! How long things took, as counts by size: added to from anywhere without a lock, read as percentiles of any span of time.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The first size ends here; what is quicker than a tenth of a millisecond nobody tells apart.
const SMALLEST_US: f64 = 100.0;
/// Sizes per doubling: what is read is right to 9%.
const PER_DOUBLING: f64 = 4.0;
/// Up to 28 minutes; what takes longer counts as that.
const SIZES: usize = 96;

/// Counts that grow.
#[derive(Debug)]
pub(crate) struct Latencies([AtomicU64; SIZES]);

/// Counts at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyCounts([u64; SIZES]);

// === impl Latencies ===

impl Latencies {
    pub(crate) fn add(&self, took: Duration) {
        self.0[size_of(took)].fetch_add(1, Relaxed);
    }

    pub(crate) fn counts(&self) -> LatencyCounts {
        LatencyCounts(array::from_fn(|size| self.0[size].load(Relaxed)))
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }
}

fn size_of(took: Duration) -> usize {
    let doublings = (took.as_secs_f64() * 1e6 / SMALLEST_US).log2();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "what is too small becomes 0, as it should")]
    let size = (doublings * PER_DOUBLING).ceil() as usize;
    size.min(SIZES - 1)
}

// === impl LatencyCounts ===

impl LatencyCounts {
    /// Those that came after `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self(array::from_fn(|size| self.0[size].saturating_sub(before.0[size])))
    }

    /// How many there are.
    pub fn n(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The time in milliseconds that this share of them, between 0 and 1, took at most; `None` of none.
    pub fn percentile_ms(&self, share: f64) -> Option<f64> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most as many as there are")]
        let rank = ((share * self.n() as f64).ceil() as u64).max(1);
        let mut n = 0;
        let size = self.0.iter().position(|count| {
            n += count;
            n >= rank
        })?;
        // the middle of its size, as ratios go
        Some(SMALLEST_US / 1e3 * ((size as f64 - 0.5) / PER_DOUBLING).exp2())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_a_tenth() {
        let latencies = Latencies::default();
        (1..=1000).for_each(|ms| latencies.add(Duration::from_millis(ms)));
        let counts = latencies.counts();
        for (share, expected) in [(0.5, 500.0), (0.95, 950.0), (0.01, 10.0)] {
            let told = counts.percentile_ms(share).unwrap();
            assert!((told / expected - 1.0).abs() < 0.1, "{share}: {told} instead of {expected}");
        }
    }

    #[test]
    fn a_span_has_only_what_happened_in_it() {
        let latencies = Latencies::default();
        latencies.add(Duration::from_secs(9));
        let before = latencies.counts();
        assert_eq!(before.since(&before).percentile_ms(0.5), None);
        latencies.add(Duration::from_millis(1));
        let span = latencies.counts().since(&before);
        assert_eq!(span.n(), 1);
        assert!(span.percentile_ms(1.0).is_some_and(|ms| ms < 1.1));
    }

    #[test]
    fn the_quickest_and_the_slowest_have_a_size_too() {
        let latencies = Latencies::default();
        for took in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            latencies.add(took);
        }
        assert_eq!(latencies.counts().n(), 3);
        assert!(latencies.counts().percentile_ms(0.0).is_some_and(|ms| ms < 0.1));
    }
}

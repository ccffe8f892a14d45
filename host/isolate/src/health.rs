//! How an isolate's guests end: one whose guests always end badly rests between two of them, longer each time, so that replacing them does not
//! keep the host busy. Pure.

use std::time::{Duration, Instant};

/// Bad ends in a row without a rest: one may be the request's fault.
const FREE: u32 = 2;
const FIRST_REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// A rest that is shorter is waited for by the next request; a longer one is told to those who choose isolates.
const TOLD: Duration = Duration::from_secs(1);

/// What is remembered of an isolate's guests.
#[derive(Debug, Default)]
pub(crate) struct Health {
    n_bad: u32,
    until: Option<Instant>,
}

impl Health {
    /// A guest ended, well or badly.
    pub(crate) fn note(&mut self, well: bool, now: Instant) {
        if well {
            *self = Self::default();
            return;
        }
        self.n_bad = self.n_bad.saturating_add(1);
        self.until = rest_after(self.n_bad).map(|rest| now + rest);
    }

    /// How long the next guest should wait.
    pub(crate) fn rest(&self, now: Instant) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Whether it should not be chosen at all now.
    pub(crate) fn is_resting(&self, now: Instant) -> bool {
        self.rest(now) > TOLD
    }
}

fn rest_after(n_bad: u32) -> Option<Duration> {
    let doublings = n_bad.checked_sub(FREE + 1)?;
    Some(FIRST_REST.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST_REST))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rests_double_to_half_a_minute() {
        let rests: Vec<_> = (0..14).map(rest_after).map(|rest| rest.map_or(0, |rest| rest.as_millis())).collect();
        assert_eq!(rests, [0, 0, 0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(rest_after(u32::MAX), Some(LONGEST_REST));
    }

    proptest! {
        #[test]
        fn one_that_always_fails_is_replaced_less_and_less(n in 1u32..200) {
            let start = Instant::now();
            let (mut health, mut now) = (Health::default(), start);
            for _ in 0..n {
                now += health.rest(now);
                health.note(false, now);
            }
            let allowed = 13 + (now - start).as_secs() / LONGEST_REST.as_secs();
            prop_assert!(u64::from(n) <= allowed, "{n} guests in {:?}", now - start);
            health.note(true, now);
            prop_assert_eq!(health.rest(now), Duration::ZERO);
        }

        #[test]
        fn one_good_end_in_three_is_never_held_back(ends in prop::collection::vec(0u32..=FREE, 1..100)) {
            let (mut health, now) = (Health::default(), Instant::now());
            for n_bad in ends {
                for _ in 0..n_bad {
                    health.note(false, now);
                    prop_assert!(!health.is_resting(now) && health.rest(now).is_zero());
                }
                health.note(true, now);
            }
        }
    }
}

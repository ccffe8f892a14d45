//! What of a core an isolate may have.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// CPU time that an isolate may use before its share is looked at: short requests are never held back.
const BURST: Duration = Duration::from_millis(100);

/// Credit in CPU time: refills by the share, to the burst at most. Lasts as long as the isolate, whatever becomes of its guests.
pub(crate) struct CpuShare {
    share: f64,
    credit: Mutex<Credit>,
}

struct Credit {
    /// Below zero it is owed.
    seconds: f64,
    at: Instant,
}

// === impl CpuShare ===

impl CpuShare {
    /// `share` of one core, above 0.
    pub(crate) fn new(share: f64, now: Instant) -> Self {
        Self { share, credit: Mutex::new(Credit { seconds: BURST.as_secs_f64(), at: now }) }
    }

    /// Takes `used` from the credit. Says how long to wait until nothing is owed.
    pub(crate) fn charge(&self, used: Duration, now: Instant) -> Duration {
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        let earned = now.saturating_duration_since(credit.at).as_secs_f64() * self.share;
        credit.seconds = (credit.seconds + earned).min(BURST.as_secs_f64()) - used.as_secs_f64();
        credit.at = now;
        Duration::try_from_secs_f64(-credit.seconds / self.share).unwrap_or(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_share_is_held_beyond_the_burst() {
        let start = Instant::now();
        let share = CpuShare::new(0.1, start);
        assert_eq!(share.charge(100 * MS, start), Duration::ZERO);
        let owed = share.charge(10 * MS, start + 50 * MS).as_secs_f64();
        assert!((owed - 0.05).abs() < 1e-9, "{owed}: 10 ms at a tenth, of which 5 ms came back");
        assert_eq!(share.charge(Duration::ZERO, start + 100 * MS), Duration::ZERO);
        // an hour of rest is worth no more than the burst
        let later = start + Duration::from_hours(1);
        assert_eq!(share.charge(100 * MS, later), Duration::ZERO);
        assert!(share.charge(10 * MS, later) >= 99 * MS);
    }

    proptest! {
        #[test]
        fn over_any_time_no_more_than_the_share_and_the_burst_is_used(
            share in 0.01f64..2.0,
            steps in prop::collection::vec((0u64..20, 0u64..5000), 1..200),
        ) {
            let start = Instant::now();
            let cpu = CpuShare::new(share, start);
            let (mut now, mut used) = (start, Duration::ZERO);
            for (work_ms, rest_ms) in steps {
                now += Duration::from_millis(rest_ms);
                let work = Duration::from_millis(work_ms);
                used += work;
                // it waits as long as it is told
                now += cpu.charge(work, now);
                let allowed = BURST.as_secs_f64() + share * (now - start).as_secs_f64();
                prop_assert!(used.as_secs_f64() <= allowed + 1e-6, "{used:?} of {allowed}");
            }
        }

        #[test]
        fn who_stays_within_the_share_never_waits(share in 0.05f64..1.0, n in 1u32..500) {
            let start = Instant::now();
            let cpu = CpuShare::new(share, start);
            for i in 1..=n {
                let waits = cpu.charge(MS, start + i * MS.div_f64(share));
                prop_assert!(waits <= MS / 100, "{waits:?}");
            }
        }
    }
}

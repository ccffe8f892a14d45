//! How often the host tries again: where everything fails, trying everything twice makes it worse.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Thousandths of a retry, as all below.
const ONE: u64 = 1000;
/// What each request adds: of five requests one may be tried again.
const SHARE: u64 = 200;
/// What a millisecond adds, so that a host with few requests may try again as well: ten times a second.
const PER_MS: u64 = 10;
/// What is saved up at most: a hundred retries.
const MOST: u64 = 100_000;

/// Retries that may be made.
#[derive(Debug)]
pub(crate) struct Retries(Mutex<Balance>);

#[derive(Debug)]
struct Balance {
    left: u64,
    at: Instant,
}

impl Retries {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(Balance { left: MOST, at: now }))
    }

    /// A request came.
    pub(crate) fn earn(&self) {
        let mut balance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        balance.left = (balance.left + SHARE).min(MOST);
    }

    /// Whether one may be tried again, which is then counted.
    pub(crate) fn spend(&self, now: Instant) -> bool {
        let mut balance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed_ms = u64::try_from(now.saturating_duration_since(balance.at).as_millis()).unwrap_or(u64::MAX);
        balance.left = balance.left.saturating_add(passed_ms.saturating_mul(PER_MS)).min(MOST);
        balance.at += Duration::from_millis(passed_ms);
        let may = balance.left >= ONE;
        balance.left -= if may { ONE } else { 0 };
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fifth_of_requests_and_ten_a_second_may_be_tried_again() {
        let start = Instant::now();
        let retries = Retries::new(start);
        let spent = |now| (0..1000).filter(|_| retries.spend(now)).count();
        assert_eq!(spent(start), 100, "what is there at first");
        assert_eq!(spent(start), 0);
        assert_eq!(spent(start + Duration::from_secs(2)), 20);
        (0..100).for_each(|_| retries.earn());
        assert_eq!(spent(start + Duration::from_secs(2)), 20);
        assert_eq!(spent(start + Duration::from_hours(1)), 100, "not more than that is saved up");
    }
}

//! What tenants may use over time, and how many requests they may have at once.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use llambo_inference::TenantName;
use tokio::time::Instant;

use crate::error::DispatchError;

/// What a tenant is promised, and what it may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// Its share of what there is, relative to other tenants; above 0.
    pub weight: f64,
    /// Requests that may come in a minute; a minute's worth may come at once.
    pub requests_per_minute: Option<u32>,
    /// Tokens, of prompts and answers, that may be used in a minute. What a request used is known when it ends: the last one may pass it, and later
    /// ones wait for that.
    pub tokens_per_minute: Option<u32>,
    /// Requests that it may have at once, waiting ones included.
    pub max_in_flight: Option<u32>,
    /// Of these, those that may wait for a node.
    pub max_waiting: Option<u32>,
}

/// What a client is told to wait where it depends on its own other requests.
const RETRY_WHEN_OWN: Duration = Duration::from_secs(1);

/// The tenants that have terms.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    tenants: HashMap<TenantName, Arc<Account>>,
}

#[derive(Debug)]
struct Account {
    terms: Terms,
    requests: Bucket,
    tokens: Bucket,
    in_flight: AtomicU32,
}

/// What may be taken, refilled evenly over each minute.
#[derive(Debug)]
struct Bucket {
    per_minute: Option<f64>,
    level: Mutex<Level>,
}

#[derive(Debug)]
struct Level {
    /// Below 0 when more was taken than there was.
    left: f64,
    at: Instant,
}

/// One request of a tenant that has terms, until it ends.
#[derive(Debug)]
#[must_use = "a request that is not held has ended"]
pub struct Hold {
    account: Arc<Account>,
    n_tokens: u64,
}

// === impl Terms ===

impl Default for Terms {
    fn default() -> Self {
        Self { weight: 1.0, requests_per_minute: None, tokens_per_minute: None, max_in_flight: None, max_waiting: None }
    }
}

// === impl Quotas ===

impl Quotas {
    pub(crate) fn new(tenants: &HashMap<TenantName, Terms>, now: Instant) -> Self {
        let account = |terms: &Terms| {
            Arc::new(Account {
                requests: Bucket::new(terms.requests_per_minute, now),
                tokens: Bucket::new(terms.tokens_per_minute, now),
                in_flight: AtomicU32::new(0),
                terms: *terms,
            })
        };
        Self { tenants: tenants.iter().map(|(name, terms)| (name.clone(), account(terms))).collect() }
    }

    /// How many requests of a tenant may wait.
    pub(crate) fn max_waiting(&self, tenant: &TenantName) -> Option<u32> {
        self.tenants.get(tenant)?.terms.max_waiting
    }

    /// One more request of a tenant; `None` where it has no terms.
    pub(crate) fn open(&self, tenant: &TenantName, now: Instant) -> Result<Option<Hold>, DispatchError> {
        let Some(account) = self.tenants.get(tenant) else { return Ok(None) };
        let exceeded = |quota: &'static str, limit: Option<u32>, retry_after: Duration| DispatchError::QuotaExceeded {
            tenant: tenant.clone(),
            quota,
            limit: limit.unwrap_or_default(),
            retry_after,
        };
        let terms = &account.terms;
        account.tokens.take(0.0, now).map_err(|wait| exceeded("tokens-per-minute", terms.tokens_per_minute, wait))?;
        let most = terms.max_in_flight.unwrap_or(u32::MAX);
        let entered = account.in_flight.fetch_update(Relaxed, Relaxed, |n| (n < most).then_some(n + 1));
        entered.map_err(|_| exceeded("max-in-flight", terms.max_in_flight, RETRY_WHEN_OWN))?;
        let hold = Hold { account: Arc::clone(account), n_tokens: 0 };
        // last, so that a request that is refused for another reason is not counted
        account.requests.take(1.0, now).map_err(|wait| exceeded("requests-per-minute", terms.requests_per_minute, wait))?;
        Ok(Some(hold))
    }

    /// What is said of a tenant that has as many requests waiting as may.
    pub(crate) fn too_many_wait(tenant: &TenantName, limit: u32, retry_after: Duration) -> DispatchError {
        DispatchError::QuotaExceeded { tenant: tenant.clone(), quota: "max-waiting", limit, retry_after }
    }
}

// === impl Bucket ===

impl Bucket {
    fn new(per_minute: Option<u32>, now: Instant) -> Self {
        let per_minute = per_minute.map(f64::from);
        Self { per_minute, level: Mutex::new(Level { left: per_minute.unwrap_or_default(), at: now }) }
    }

    /// Takes so many, or says when there will be enough; taking none asks whether there is one.
    fn take(&self, n: f64, now: Instant) -> Result<(), Duration> {
        let Some(per_minute) = self.per_minute else { return Ok(()) };
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        level.refill(per_minute, now);
        let missing = n.max(1.0) - level.left;
        if missing > 0.0 {
            let seconds = (missing * 60.0 / per_minute).clamp(0.001, 3600.0);
            return Err(Duration::from_secs_f64(seconds));
        }
        level.left -= n;
        Ok(())
    }

    /// What was used, whether there was enough or not.
    fn charge(&self, n: f64, now: Instant) {
        let Some(per_minute) = self.per_minute else { return };
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        level.refill(per_minute, now);
        level.left -= n;
    }
}

impl Level {
    fn refill(&mut self, per_minute: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * per_minute / 60.0).min(per_minute);
        self.at = self.at.max(now);
    }
}

// === impl Hold ===

impl Hold {
    /// What it used in all.
    pub fn cost(&mut self, n_tokens: u64) {
        self.n_tokens = n_tokens;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.account.in_flight.fetch_sub(1, Relaxed);
        self.account.tokens.charge(self.n_tokens as f64, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(terms: Terms) -> Quotas {
        Quotas::new(&HashMap::from([("t".into(), terms)]), Instant::now())
    }

    fn refused(quotas: &Quotas) -> (&'static str, Duration) {
        match quotas.open(&"t".into(), Instant::now()) {
            Err(DispatchError::QuotaExceeded { quota, retry_after, .. }) => (quota, retry_after),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_minutes_requests_may_come_at_once_and_then_one_at_a_time() {
        let quotas = quotas(Terms { requests_per_minute: Some(6), ..Terms::default() });
        for _ in 0..6 {
            assert!(quotas.open(&"t".into(), Instant::now()).unwrap().is_some());
        }
        assert_eq!(refused(&quotas), ("requests-per-minute", Duration::from_secs(10)));
        tokio::time::advance(Duration::from_millis(10_001)).await;
        assert!(quotas.open(&"t".into(), Instant::now()).is_ok());
        assert_eq!(refused(&quotas).0, "requests-per-minute");
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_that_were_used_beyond_the_quota_are_waited_for() {
        let quotas = quotas(Terms { tokens_per_minute: Some(600), ..Terms::default() });
        let mut hold = quotas.open(&"t".into(), Instant::now()).unwrap().unwrap();
        hold.cost(900);
        drop(hold);
        let (quota, retry_after) = refused(&quotas);
        assert_eq!((quota, retry_after.as_secs()), ("tokens-per-minute", 30));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(quotas.open(&"t".into(), Instant::now()).is_ok());
    }

    #[tokio::test]
    async fn a_request_counts_until_it_ends_and_others_are_not_counted() {
        let quotas = quotas(Terms { max_in_flight: Some(2), ..Terms::default() });
        let held = [quotas.open(&"t".into(), Instant::now()), quotas.open(&"t".into(), Instant::now())];
        assert_eq!(refused(&quotas).0, "max-in-flight");
        assert!(quotas.open(&"other".into(), Instant::now()).unwrap().is_none());
        drop(held);
        assert!(quotas.open(&"t".into(), Instant::now()).is_ok());
    }
}

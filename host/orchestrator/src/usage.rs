//! What each tenant has been using: for admission policies, and kept only while there is one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use llambo_inference::TenantName;
use llambo_strategy::TenantUsage;
use tokio::time::Instant;

/// Seconds that are looked back at.
const SECONDS: usize = 60;
/// Tenants whose past is remembered although they have nothing under way.
const MAX_TENANTS: usize = 10_000;

/// Usage by tenant.
pub(crate) struct Usages {
    started: Instant,
    tenants: Mutex<HashMap<TenantName, Tenant>>,
}

#[derive(Debug)]
struct Tenant {
    in_flight: u32,
    waiting: u32,
    /// By second, around and around.
    past: [Second; SECONDS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    at: u64,
    requests: u32,
    tokens: u64,
}

/// One request of a tenant, as long as it lives.
pub(crate) struct Use {
    usages: Arc<Usages>,
    tenant: TenantName,
    runs: bool,
    tokens: u64,
}

// === impl Usages ===

impl Usages {
    pub(crate) fn new(started: Instant) -> Arc<Self> {
        Arc::new(Self { started, tenants: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantName, Tenant>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn second(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    pub(crate) fn of(&self, tenant: &TenantName) -> TenantUsage {
        let now = self.second();
        self.lock().get(tenant).map(|tenant| tenant.usage(now)).unwrap_or_default()
    }

    /// A request was let in, and waits for its node.
    pub(crate) fn open(self: &Arc<Self>, tenant: &TenantName) -> Use {
        let now = self.second();
        let mut tenants = self.lock();
        if tenants.len() >= MAX_TENANTS {
            tenants.retain(|_, tenant| tenant.in_flight + tenant.waiting > 0);
        }
        let row = tenants.entry(tenant.clone()).or_default();
        row.waiting += 1;
        row.now(now).requests += 1;
        drop(tenants);
        Use { usages: Arc::clone(self), tenant: tenant.clone(), runs: false, tokens: 0 }
    }
}

// === impl Tenant ===

impl Default for Tenant {
    fn default() -> Self {
        Self { in_flight: 0, waiting: 0, past: [Second::default(); SECONDS] }
    }
}

impl Tenant {
    fn now(&mut self, at: u64) -> &mut Second {
        let second = &mut self.past[usize::try_from(at % SECONDS as u64).expect("below 60")];
        if second.at != at {
            *second = Second { at, ..Second::default() };
        }
        second
    }

    fn usage(&self, now: u64) -> TenantUsage {
        let past = self.past.iter().filter(|second| now - second.at.min(now) < SECONDS as u64);
        let (requests, tokens) = past.fold((0, 0), |(requests, tokens), s| (requests + s.requests, tokens + s.tokens));
        TenantUsage {
            in_flight: self.in_flight,
            waiting: self.waiting,
            requests_last_minute: requests,
            tokens_last_minute: tokens,
        }
    }
}

// === impl Use ===

impl Use {
    /// It has a node.
    pub(crate) fn runs(&mut self) {
        if !std::mem::replace(&mut self.runs, true)
            && let Some(tenant) = self.usages.lock().get_mut(&self.tenant)
        {
            tenant.waiting -= 1;
            tenant.in_flight += 1;
        }
    }

    /// What it has cost.
    pub(crate) fn cost(&mut self, tokens: u64) {
        self.tokens = tokens;
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let now = self.usages.second();
        if let Some(tenant) = self.usages.lock().get_mut(&self.tenant) {
            *(if self.runs { &mut tenant.in_flight } else { &mut tenant.waiting }) -= 1;
            tenant.now(now).tokens += self.tokens;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_minute_is_looked_back_at_and_no_more() {
        let usages = Usages::new(Instant::now());
        let tenant = TenantName::from("a");
        let mut one = usages.open(&tenant);
        assert_eq!(usages.of(&tenant), TenantUsage { waiting: 1, requests_last_minute: 1, ..TenantUsage::default() });
        one.runs();
        one.runs();
        one.cost(70);
        assert_eq!(usages.of(&tenant), TenantUsage { in_flight: 1, requests_last_minute: 1, ..TenantUsage::default() });
        tokio::time::advance(Duration::from_secs(30)).await;
        drop(one);
        let two = usages.open(&tenant);
        drop(two);
        let all = TenantUsage { requests_last_minute: 2, tokens_last_minute: 70, ..TenantUsage::default() };
        assert_eq!(usages.of(&tenant), all);
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(usages.of(&tenant), TenantUsage { requests_last_minute: 1, ..all });
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(usages.of(&tenant), TenantUsage::default());
        assert_eq!(usages.of(&"b".into()), TenantUsage::default());
    }
}

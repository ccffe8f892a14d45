//! Whose turn it is: start-time fair queueing over tenants, and over isolates within a tenant. Pure.
//!
//! Everybody's account counts the tokens computed for it, divided by its weight; the lowest account goes first. A tenant's batch work has an account of its own. Who comes back after
//! a pause starts where the lowest of those present is: being away saves nothing up.

use std::collections::HashMap;

use llambo_inference::{NodeId, Priority, Share, TenantName};

/// A prompt's token next to a generated one: prompts are computed many tokens at a time.
const PROMPT_TOKEN_COST: f64 = 0.125;

/// Tells turns apart: less is sooner.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Turn {
    tenant: f64,
    isolate: f64,
}

/// The accounts of everybody who has a sequence in the engine.
#[derive(Default)]
pub(crate) struct Accounts {
    tenants: HashMap<(TenantName, Priority), Tenant>,
}

#[derive(Default)]
struct Tenant {
    account: Account,
    isolates: HashMap<Option<NodeId>, Account>,
}

#[derive(Clone, Copy, Default)]
struct Account {
    used: f64,
    n_sequences: usize,
}

// === impl Turn ===

impl Turn {
    pub(crate) fn total_cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.tenant.total_cmp(&other.tenant).then(self.isolate.total_cmp(&other.isolate))
    }
}

// === impl Accounts ===

impl Accounts {
    /// Whose turn is sooner.
    pub(crate) fn turn(&self, share: &Share) -> Turn {
        let Some(tenant) = self.tenants.get(&payer(share)) else { return Turn { tenant: 0.0, isolate: 0.0 } };
        let isolate = tenant.isolates.get(&share.isolate).map_or(0.0, |account| account.used);
        Turn { tenant: tenant.account.used, isolate }
    }

    /// A sequence came to the engine.
    pub(crate) fn enter(&mut self, share: &Share) {
        let floor = lowest(self.tenants.values().map(|tenant| tenant.account.used));
        let tenant = self
            .tenants
            .entry(payer(share))
            .or_insert_with(|| Tenant { account: Account { used: floor, n_sequences: 0 }, isolates: HashMap::new() });
        tenant.account.n_sequences += 1;
        let floor = lowest(tenant.isolates.values().map(|account| account.used));
        let isolate = tenant.isolates.entry(share.isolate.clone()).or_insert(Account { used: floor, n_sequences: 0 });
        isolate.n_sequences += 1;
    }

    /// A sequence left the engine.
    pub(crate) fn leave(&mut self, share: &Share) {
        let Some(tenant) = self.tenants.get_mut(&payer(share)) else { return };
        tenant.account.n_sequences -= 1;
        if let Some(isolate) = tenant.isolates.get_mut(&share.isolate) {
            isolate.n_sequences -= 1;
            if isolate.n_sequences == 0 {
                tenant.isolates.remove(&share.isolate);
            }
        }
        if tenant.account.n_sequences == 0 {
            self.tenants.remove(&payer(share));
        }
    }

    /// So many tokens of a prompt, and so many others, are computed for it.
    pub(crate) fn charge(&mut self, share: &Share, n_prompt: usize, n_generated: usize) {
        let cost = n_prompt as f64 * PROMPT_TOKEN_COST + n_generated as f64;
        let Some(tenant) = self.tenants.get_mut(&payer(share)) else { return };
        tenant.account.used += cost / (share.tenant_weight * share.priority.factor()).max(f64::MIN_POSITIVE);
        if let Some(isolate) = tenant.isolates.get_mut(&share.isolate) {
            isolate.used += cost / share.weight.max(f64::MIN_POSITIVE);
        }
    }
}

/// Whose account it is on.
fn payer(share: &Share) -> (TenantName, Priority) {
    (share.tenant.clone(), share.priority)
}

fn lowest(used: impl Iterator<Item = f64>) -> f64 {
    used.min_by(f64::total_cmp).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(tenant: usize, weight: u8, isolate: usize) -> Share {
        Share {
            tenant: format!("t{tenant}").into(),
            tenant_weight: f64::from(weight),
            priority: Priority::default(),
            isolate: Some(format!("i{isolate}").into()),
            weight: 1.0,
        }
    }

    /// Gives `n` tokens, one at a time, to whoever's turn it is.
    fn serve(accounts: &mut Accounts, shares: &[Share], n: usize) -> Vec<usize> {
        let mut served = vec![0; shares.len()];
        for _ in 0..n {
            let (i, share) = shares.iter().enumerate().min_by(|a, b| accounts.turn(a.1).total_cmp(&accounts.turn(b.1))).unwrap();
            accounts.charge(share, 0, 1);
            served[i] += 1;
        }
        served
    }

    proptest! {
        #[test]
        fn tenants_get_tokens_by_weight_whoever_has_more_isolates(weights in prop::collection::vec(1u8..8, 1..6), n_more in 1usize..5) {
            let mut accounts = Accounts::default();
            // the first tenant has several isolates, which gain it nothing
            let mut shares: Vec<Share> = (1..n_more).map(|i| share(0, weights[0], i)).collect();
            shares.extend(weights.iter().enumerate().map(|(tenant, weight)| share(tenant, *weight, 0)));
            for share in &shares {
                accounts.enter(share);
            }
            let served = serve(&mut accounts, &shares, 2000);
            let total: u32 = weights.iter().map(|w| u32::from(*w)).sum();
            for (tenant, weight) in weights.iter().enumerate() {
                let name = TenantName::from(format!("t{tenant}"));
                let got: usize = shares.iter().zip(&served).filter(|(s, _)| s.tenant == name).map(|(_, n)| n).sum();
                let due = 2000.0 * f64::from(*weight) / f64::from(total);
                prop_assert!((got as f64 - due).abs() <= 10.0, "{} of {} for {}", got, due, tenant);
            }
            for share in &shares {
                accounts.leave(share);
            }
            prop_assert!(accounts.tenants.is_empty());
        }
    }

    #[test]
    fn a_latecomer_neither_waits_for_the_past_nor_profits_from_it() {
        let (old, new) = (share(0, 1, 0), share(1, 1, 0));
        let mut accounts = Accounts::default();
        accounts.enter(&old);
        serve(&mut accounts, std::slice::from_ref(&old), 1000);
        accounts.enter(&new);
        assert_eq!(serve(&mut accounts, &[old, new], 100), [50, 50]);
    }

    #[test]
    fn batch_work_of_a_tenant_goes_on_beside_what_somebody_waits_for() {
        let batch = Share { priority: Priority::Batch, ..share(0, 1, 0) };
        let (mut accounts, shares) = (Accounts::default(), [share(0, 1, 0), batch]);
        for share in &shares {
            accounts.enter(share);
        }
        assert_eq!(serve(&mut accounts, &shares, 1700), [1600, 100]);
    }

    #[test]
    fn isolates_of_a_tenant_take_turns() {
        let shares = [share(0, 1, 0), share(0, 1, 1), share(0, 1, 2)];
        let mut accounts = Accounts::default();
        for share in &shares {
            accounts.enter(share);
        }
        assert_eq!(serve(&mut accounts, &shares, 99), [33, 33, 33]);
    }
}

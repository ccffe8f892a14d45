//! What tenants hold of what is kept, where they may not hold all of it. Pure.

use std::collections::HashMap;

use llambo_inference::TenantName;

/// The tenants that may hold so much and no more.
#[derive(Debug, Default)]
pub(crate) struct Allowances(HashMap<TenantName, Allowance>);

#[derive(Debug)]
struct Allowance {
    most_bytes: u64,
    held_bytes: u64,
}

// === impl Allowances ===

impl Allowances {
    pub(crate) fn new(most_bytes: &HashMap<TenantName, u64>) -> Self {
        Self(most_bytes.iter().map(|(name, &most_bytes)| (name.clone(), Allowance { most_bytes, held_bytes: 0 })).collect())
    }

    /// Whether a tenant may hold that many bytes at all.
    pub(crate) fn permit(&self, tenant: &TenantName, n_bytes: u64) -> bool {
        self.0.get(tenant).is_none_or(|allowance| n_bytes <= allowance.most_bytes)
    }

    pub(crate) fn is_passed(&self, tenant: &TenantName) -> bool {
        self.0.get(tenant).is_some_and(|allowance| allowance.held_bytes > allowance.most_bytes)
    }

    /// A tenant holds more, or less.
    pub(crate) fn count(&mut self, tenant: &TenantName, n_bytes: u64, is_more: bool) {
        if let Some(Allowance { held_bytes, .. }) = self.0.get_mut(tenant) {
            *held_bytes = if is_more { *held_bytes + n_bytes } else { *held_bytes - n_bytes };
        }
    }
}

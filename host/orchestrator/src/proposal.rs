//! What a policy is shown before it chooses, and the change to the node that it chose.
//!
//! A request has its node already when a policy is asked: the built-in strategy's choice. So it loses nothing when the policy fails, nobody waits while it computes,
//! and the queue's promises hold as they are. What the policy says moves the request from one node to the other in one step.

use std::{collections::HashSet, sync::Arc, time::Duration};

use llambo_inference::NodeId;
use llambo_strategy::{Cached, Candidate, Candidates, HostLoad, MAX_CANDIDATES, NodeChange, NodeKind, Nodes};
use tokio::time::Instant;

use crate::{
    admission::{Admission, Effects, Pick, SHARED},
    entry::Entry,
    registry::{NodeKey, Registry, ScopeId},
    shared::Shared,
    wanted::Wanted,
};

/// Nodes with a cached beginning that are shown before the idlest ones.
const MAX_HOMES: usize = 8;

/// What a policy is shown.
pub(crate) struct Proposal {
    /// The node that the request has is the first.
    pub(crate) candidates: Vec<Candidate>,
    /// How many could have served it.
    pub(crate) n_eligible: usize,
    pub(crate) kinds: Arc<Vec<NodeKind>>,
}

impl Registry {
    /// Where a scope has nodes of these numbers.
    pub(crate) fn slots_of(&self, numbers: &[(u64, u32)], scope: ScopeId) -> Vec<Cached> {
        let slot = |number| self.numbered(number)?.1.slot_in(scope);
        numbers.iter().filter_map(|(number, n_bytes)| Some(Cached { slot: slot(*number)?, n_bytes: *n_bytes })).collect()
    }
}

impl Admission {
    /// The scope to choose from: with a tier, the one of its types that has the idlest node; where that has none, of a stronger tier, then of a weaker one.
    pub(crate) fn preferred(&self, scope: ScopeId, avoid: &[NodeKey], wanted: &Wanted) -> ScopeId {
        let (Some(tier), None) = (wanted.tier, &wanted.node_type) else { return scope };
        let able = self
            .registry
            .by_tier(&wanted.model, wanted.tenant(), tier)
            .into_iter()
            .filter(|(_, id)| self.registry.can_serve(*id, avoid));
        let mut best: Option<(u8, u32, ScopeId)> = None;
        for (has, id) in able {
            if best.is_some_and(|(tier, ..)| tier != has) {
                break;
            }
            let index = &self.registry.scope(id).index;
            let least = index.least_loaded(index.last()).map_or(u32::MAX, |slot| index.load(slot).in_flight);
            if best.is_none_or(|(_, load, _)| least < load) {
                best = Some((has, least, id));
            }
        }
        best.map_or(scope, |(.., id)| id)
    }

    /// The node that a request has, as it was before, and others that could serve it in its place.
    pub(crate) fn propose(&self, own: NodeKey, wanted: &Wanted, avoid: &[NodeKey]) -> Option<Proposal> {
        let entry = self.registry.entry(own)?;
        let scope = match (wanted.tier, &wanted.node_type) {
            (Some(_), None) => entry.places[1].0,
            _ => self.registry.resolve(wanted).ok()?,
        };
        let index = &self.registry.scope(scope).index;
        let mut keys = Vec::with_capacity(MAX_CANDIDATES);
        keys.push(own);
        let homes = wanted.cached.iter().filter_map(|(number, _)| self.registry.numbered(*number));
        for (key, home) in homes {
            if keys.len() <= MAX_HOMES && !keys.contains(&key) && home.slot_in(scope).is_some_and(|slot| index.is_eligible(slot))
            {
                keys.push(key);
            }
        }
        let n_first = keys.len();
        for key in index.idlest(index.last(), MAX_CANDIDATES) {
            // the idlest ones are told once each: only those before them can be the same
            if keys.len() < MAX_CANDIDATES && !keys[..n_first].contains(&key) {
                keys.push(key);
            }
        }
        keys.retain(|key| !avoid.contains(key));
        let bytes_of = |number| wanted.cached.iter().find(|(home, _)| *home == number).map_or(0, |(_, n_bytes)| *n_bytes);
        let shared = bytes_of(SHARED);
        let candidate = |key: &NodeKey| {
            let entry = self.registry.entry(*key)?;
            let in_flight = entry.in_flight - u32::from(*key == own);
            let cached_bytes = if entry.shares_cache { shared } else { bytes_of(entry.number) };
            Some(Candidate { in_flight, cached_bytes, ..entry.candidate() })
        };
        let mut candidates = Vec::with_capacity(keys.len());
        candidates.extend(keys.iter().filter_map(candidate));
        let n_eligible = index.len() + usize::from(!entry.takes_requests());
        Some(Proposal { candidates, n_eligible, kinds: Arc::clone(self.registry.kinds()) })
    }

    /// Moves a request from the node that it has to another one; `None` when that cannot take it, and nothing has changed.
    pub(crate) fn relocate(&mut self, from: NodeKey, to: u64, wanted: &Wanted, avoid: &[NodeKey]) -> Option<(Pick, Effects)> {
        let scope = self.registry.resolve(wanted).ok()?;
        let (to, entry) = self.registry.numbered(to)?;
        if !entry.takes_requests() || entry.slot_in(scope).is_none() || avoid.contains(&to) || to == from {
            return None;
        }
        let mut effects = Effects::default();
        self.change(to, &mut effects, Entry::occupy);
        let pick = self.pick(to, Duration::ZERO)?;
        self.change(from, &mut effects, |entry| entry.in_flight -= 1);
        self.call_waiters(&mut effects);
        Some((pick, effects))
    }

    pub(crate) fn load_for(&self, wanted: &Wanted, now: Instant) -> HostLoad {
        let n = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let scope = self.registry.resolve(wanted);
        HostLoad {
            in_flight: n(self.in_flight()),
            max_in_flight: n(self.max_in_flight()),
            waiting: n(self.waiting()),
            max_waiting: n(self.max_waiting()),
            free_nodes: scope.map_or(0, |scope| n(self.registry.scope(scope).index.len())),
            retry_after_ms: u32::try_from(self.retry_after(now).as_millis()).unwrap_or(u32::MAX),
        }
    }
}

impl Nodes for Shared {
    fn name(&self, node: u64) -> Option<NodeId> {
        self.lock().registry.numbered(node).map(|(_, entry)| entry.id.clone())
    }

    fn changes_since(&self, change: Option<u64>) -> (Vec<NodeChange>, u64, bool) {
        let since = change.and_then(|change| {
            let mut admission = self.lock();
            let numbers = admission.registry.feed.since(change)?;
            let mut told = HashSet::new();
            let once: Vec<u64> = numbers.into_iter().filter(|node| told.insert(*node)).collect();
            let state = |node: u64| match admission.registry.numbered(node) {
                Some((_, entry)) if entry.takes_requests() => NodeChange::Open(entry.candidate()),
                _ => NodeChange::Closed(node),
            };
            let changes = once.into_iter().map(state).collect();
            Some((changes, admission.registry.feed.last()))
        });
        if let Some((changes, last)) = since {
            return (changes, last, false);
        }
        // from here on changes are remembered: what happens while all nodes are looked at is told next time
        let last = self.lock().registry.feed.last();
        let mut open = Vec::new();
        self.each_entry(|_, entry| {
            if entry.takes_requests() {
                open.push(NodeChange::Open(entry.candidate()));
            }
        });
        (open, last, true)
    }
}

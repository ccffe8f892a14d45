//! Who is there: every node of the host, how it does, and an [`Index`] of the nodes of each model and each node type.
//!
//! ```text
//!   add -> starting <-> ready <-> busy        in_flight < capacity: ready (or hibernated), else busy
//!                         |                   only ready and hibernated ones are candidates
//!                         +-> failed          the node says so itself; kept for operators to see
//!                         +-> draining        -> removed and stopped as soon as it is idle
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    ops::{Bound, Range},
    sync::Arc,
};

use llambo_inference::{ModelName, Node, NodeId, NodeState, NodeView, TenantName, TypeName};
use llambo_strategy::{Candidates, NodeKind, Slot};

use crate::{
    breaker::Breaker,
    entry::{Entry, is_live},
    factory::TypeInfo,
    feed::Feed,
    index::Index,
    scopes::Owner,
};

/// A node's place in the registry, taken by another node after its removal. A lease keeps its node from being removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeKey(pub(crate) u32);

/// A set of nodes that requests choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ScopeId(pub(crate) usize);

#[derive(Default)]
pub(crate) struct Registry {
    entries: Vec<Option<Entry>>,
    vacant: Vec<NodeKey>,
    /// How often each place was taken, so that a node's number is never another's.
    takings: Vec<u32>,
    /// What nodes have in common. Only ever grows; those who ask policies hold it.
    kinds: Arc<Vec<NodeKind>>,
    /// What changes, for policies that keep count.
    pub(crate) feed: Feed,
    by_id: BTreeMap<NodeId, NodeKey>,
    pub(crate) scopes: Vec<Scope>,
    /// The nodes of each model, by whose they are.
    pub(crate) by_model: HashMap<ModelName, Vec<(Owner, ScopeId)>>,
    pub(crate) types: BTreeMap<TypeName, TypeRow>,
    /// Whether a tenant's nodes are for its own requests alone.
    pub(crate) is_separate: bool,
    /// Whether some type gets nodes by itself.
    pub(crate) any_wakes: bool,
}

/// The nodes of one model, or those of one node type.
#[derive(Default)]
pub(crate) struct Scope {
    pub(crate) index: Index,
    /// Nodes that serve requests now or will: neither draining nor failed nor stopped.
    pub(crate) live: usize,
    /// Of these, those that rest because they failed.
    pub(crate) resting: usize,
    /// Requests that its live nodes serve, and can serve at once.
    pub(crate) in_flight: u32,
    pub(crate) capacity: u32,
    /// Of a type's scope without nodes: somebody would have been served by it since it was last looked at.
    pub(crate) is_missed: bool,
}

#[derive(Default)]
pub(crate) struct TypeRow {
    /// One scope for each model that nodes of this type serve; hardly ever more than one.
    pub(crate) models: Vec<(ModelName, ScopeId)>,
    /// By [`NodeState`], in the order of its declaration.
    states: [u32; NodeState::ALL.len()],
    /// Whether it, and what it serves, may be named while it has no nodes.
    pub(crate) is_known: bool,
    /// Whether it gets nodes by itself when somebody asks.
    pub(crate) wakes: bool,
    /// That of its last node.
    pub(crate) tier: u8,
    /// Whose its nodes are.
    pub(crate) tenant: Option<TenantName>,
    /// Requests that its nodes ended.
    pub(crate) ended: u64,
}

// === impl Scope ===

impl Scope {
    pub(crate) fn has_candidates(&self) -> bool {
        !self.index.is_empty()
    }
}

// === impl TypeRow ===

impl TypeRow {
    pub(crate) fn may_be_named(&self) -> bool {
        self.is_known || self.states.iter().any(|n| *n > 0)
    }
}

// === impl Registry ===

impl Registry {
    /// Lets requests name a type that has no nodes yet.
    pub(crate) fn know(&mut self, info: &TypeInfo) {
        self.model_scope(&info.model, &info.tenant);
        self.type_scope(&info.name, &info.model);
        let row = self.types.entry(info.name.clone()).or_default();
        (row.is_known, row.tenant, row.tier) = (true, Some(info.tenant.clone()), info.tier);
        row.wakes = info.scaling.is_some();
        self.any_wakes = self.types.values().any(|row| row.wakes);
    }

    /// Takes it back: the type, and its model if no other known type serves that, are there only as long as they have nodes.
    pub(crate) fn forget(&mut self, node_type: &TypeName) {
        if let Some(row) = self.types.get_mut(node_type) {
            row.is_known = false;
        }
    }

    /// Takes a node in; `None` if its id is taken.
    pub(crate) fn add(&mut self, node: Arc<dyn Node>, view: NodeView) -> Option<NodeKey> {
        if self.by_id.contains_key(&view.id) {
            return None;
        }
        let key = self.vacant.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.takings.push(0);
            NodeKey(u32::try_from(self.entries.len() - 1).expect("16,777,216 nodes at most"))
        });
        let scopes = [self.model_scope(&view.model, &view.traits.tenant), self.type_scope(&view.node_type, &view.model)];
        let places = scopes.map(|scope| (scope, self.scopes[scope.0].index.insert(key, view.capacity, view.weight)));
        self.by_id.insert(view.id.clone(), key);
        self.count(&view.node_type, NodeState::Stopped, 1);
        let taking = &mut self.takings[key.0 as usize];
        *taking = taking.wrapping_add(1);
        let number = u64::from(*taking) << 32 | u64::from(key.0);
        let kind = self.kind_of(&view);
        if let Some(row) = self.types.get_mut(&view.node_type) {
            (row.tier, row.tenant) = (view.traits.tier, Some(view.traits.tenant.clone()));
        }
        self.entries[key.0 as usize] = Some(Entry {
            node,
            id: view.id,
            node_type: view.node_type,
            in_flight: 0,
            // counted as such until `change` puts it right, with everything that depends on it
            observed: NodeState::Stopped,
            draining: false,
            ttft_us: 0.0,
            served: 0,
            served_under: 0,
            latency_us: 0.0,
            failures: 0.0,
            breaker: Breaker::default(),
            number,
            shares_cache: view.traits.shares_cache,
            kind,
            tier: view.traits.tier,
            #[expect(clippy::cast_possible_truncation, reason = "policies need no more digits")]
            weight: view.weight as f32,
            capacity: view.capacity,
            places,
        });
        self.change(key, |entry| entry.observed = view.state);
        Some(key)
    }

    /// Changes a node and all that is kept about it elsewhere. Answers with its scopes; none if there is no such node.
    pub(crate) fn change(&mut self, key: NodeKey, change: impl FnOnce(&mut Entry)) -> Option<[ScopeId; 2]> {
        let entry = self.entries.get_mut(key.0 as usize)?.as_mut()?;
        let (state, was_live, rested) = (entry.state(), entry.is_live(), entry.breaker.is_open());
        let had = if was_live { (entry.in_flight, entry.capacity) } else { (0, 0) };
        change(entry);
        let rests = entry.breaker.is_open();
        let (new_state, is_live, takes) = (entry.state(), entry.is_live(), entry.takes_requests());
        let has = if is_live { (entry.in_flight, entry.capacity) } else { (0, 0) };
        for (scope, slot) in entry.places {
            let scope = &mut self.scopes[scope.0];
            scope.live = scope.live + usize::from(is_live) - usize::from(was_live);
            scope.resting = scope.resting + usize::from(is_live && rests) - usize::from(was_live && rested);
            scope.in_flight = scope.in_flight + has.0 - had.0;
            scope.capacity = scope.capacity.saturating_add(has.1).saturating_sub(had.1);
            scope.index.set(slot, entry.in_flight, takes);
            scope.index.set_ttft(slot, entry.ttft_us);
        }
        let scopes = entry.places.map(|place| place.0);
        self.feed.note(entry.number);
        if state != new_state
            && let Some(row) = self.types.get_mut(&entry.node_type)
        {
            row.states[state as usize] -= 1;
            row.states[new_state as usize] += 1;
        }
        Some(scopes)
    }

    /// Takes a node out. Its scopes lose it; whoever holds the `Arc` may still use it.
    pub(crate) fn remove(&mut self, key: NodeKey) -> Option<Arc<dyn Node>> {
        self.change(key, |entry| entry.draining = true)?;
        let entry = self.entries[key.0 as usize].take()?;
        for (scope, slot) in entry.places {
            self.scopes[scope.0].index.remove(slot);
        }
        self.count(&entry.node_type, entry.state(), -1);
        self.by_id.remove(&entry.id);
        self.vacant.push(key);
        Some(entry.node)
    }

    pub(crate) fn scope(&self, scope: ScopeId) -> &Scope {
        &self.scopes[scope.0]
    }

    /// Whether a node of the scope outside `avoid` can take a request now.
    pub(crate) fn can_serve(&self, scope: ScopeId, avoid: &[NodeKey]) -> bool {
        self.scope(scope).index.len() > self.count_in(scope, avoid, Entry::takes_requests)
    }

    /// Whether a node of the scope outside `avoid` serves requests now or will.
    pub(crate) fn has_others(&self, scope: ScopeId, avoid: &[NodeKey]) -> bool {
        self.scope(scope).live > self.count_in(scope, avoid, Entry::is_live)
    }

    /// Lets `choose` pick among the candidates of a scope without those in `avoid`.
    pub(crate) fn choose(
        &mut self,
        scope: ScopeId,
        avoid: &[NodeKey],
        choose: impl FnOnce(&Index) -> Option<Slot>,
    ) -> Option<NodeKey> {
        self.set_aside(scope, avoid, true);
        let index = &mut self.scopes[scope.0].index;
        let chosen = choose(index);
        let key = chosen.and_then(|slot| {
            index.set_last(slot);
            index.node(slot)
        });
        self.set_aside(scope, avoid, false);
        key
    }

    pub(crate) fn entry(&self, key: NodeKey) -> Option<&Entry> {
        self.entries.get(key.0 as usize)?.as_ref()
    }

    /// The node of a number, if it is there.
    pub(crate) fn numbered(&self, number: u64) -> Option<(NodeKey, &Entry)> {
        let key = NodeKey(u32::try_from(number & u64::from(u32::MAX)).ok()?);
        self.entry(key).filter(|entry| entry.number == number).map(|entry| (key, entry))
    }

    /// What nodes of the numbers that candidates have in common.
    pub(crate) fn kinds(&self) -> &Arc<Vec<NodeKind>> {
        &self.kinds
    }

    fn kind_of(&mut self, view: &NodeView) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "policies need no more digits")]
        let weight = view.weight as f32;
        let is_it = |kind: &NodeKind| {
            let traits = &view.traits;
            kind.node_type == view.node_type
                && kind.model == view.model
                && (&kind.tenant, kind.tier) == (&traits.tenant, traits.tier)
                && kind.weight.total_cmp(&weight).is_eq()
                && kind.labels == traits.labels
        };
        // that of the node before, mostly
        let at = self.kinds.iter().rposition(is_it).unwrap_or_else(|| {
            let (tenant, labels) = (view.traits.tenant.clone(), Arc::clone(&view.traits.labels));
            let (node_type, model) = (view.node_type.clone(), view.model.clone());
            Arc::make_mut(&mut self.kinds).push(NodeKind { node_type, model, tenant, tier: view.traits.tier, weight, labels });
            self.kinds.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    pub(crate) fn ended(&mut self, key: NodeKey) {
        if let Some(Some(entry)) = self.entries.get(key.0 as usize)
            && let Some(row) = self.types.get_mut(&entry.node_type)
        {
            row.ended += 1;
        }
    }

    /// Whose a type's nodes are.
    pub(crate) fn tenant_of(&self, node_type: &TypeName) -> Option<TenantName> {
        self.types.get(node_type)?.tenant.clone()
    }

    pub(crate) fn n_ended(&self, node_type: &TypeName) -> u64 {
        self.types.get(node_type).map_or(0, |row| row.ended)
    }

    /// The nodes whose keys are in `keys`, in order of key; `None` from the end of all keys on.
    pub(crate) fn entries_at(&self, keys: Range<usize>) -> Option<impl Iterator<Item = (NodeKey, &Entry)>> {
        let part = self.entries.get(keys.start..keys.end.min(self.entries.len())).filter(|part| !part.is_empty())?;
        let keys = (keys.start..).map_while(|at| u32::try_from(at).ok().map(NodeKey));
        Some(keys.zip(part).filter_map(|(key, entry)| Some((key, entry.as_ref()?))))
    }

    /// Nodes in order of id, those after `after` or from the start.
    pub(crate) fn entries_after(&self, after: Option<&NodeId>) -> impl Iterator<Item = &Entry> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_id.range::<NodeId, _>((start, Bound::Unbounded)).filter_map(|(_, &key)| self.entry(key))
    }

    pub(crate) fn key(&self, id: &NodeId) -> Option<NodeKey> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Every known type with its nodes by state, in the order of [`NodeState::ALL`].
    pub(crate) fn types(&self) -> impl Iterator<Item = (&TypeName, &[u32; NodeState::ALL.len()])> {
        self.types.iter().filter(|(_, row)| row.may_be_named()).map(|(name, row)| (name, &row.states))
    }

    pub(crate) fn n_live(&self, node_type: &TypeName) -> u32 {
        let live = NodeState::ALL.into_iter().filter(|state| is_live(*state));
        self.types.get(node_type).map_or(0, |row| live.map(|state| row.states[state as usize]).sum())
    }

    pub(crate) fn knows(&self, node_type: &TypeName) -> bool {
        self.types.get(node_type).is_some_and(TypeRow::may_be_named)
    }

    fn count_in(&self, scope: ScopeId, keys: &[NodeKey], what: fn(&Entry) -> bool) -> usize {
        keys.iter().filter_map(|&key| self.entry(key)).filter(|entry| entry.slot_in(scope).is_some() && what(entry)).count()
    }

    fn set_aside(&mut self, scope: ScopeId, keys: &[NodeKey], aside: bool) {
        for key in keys {
            if let Some(Some(entry)) = self.entries.get(key.0 as usize)
                && let Some(slot) = entry.slot_in(scope)
            {
                self.scopes[scope.0].index.set(slot, entry.in_flight, entry.takes_requests() && !aside);
            }
        }
    }

    fn count(&mut self, node_type: &TypeName, state: NodeState, change: i32) {
        if let Some(row) = self.types.get_mut(node_type) {
            let count = &mut row.states[state as usize];
            *count = count.saturating_add_signed(change);
        }
    }
}

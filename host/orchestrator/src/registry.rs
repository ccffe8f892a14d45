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

use llambo_inference::{InferenceError, ModelName, Node, NodeId, NodeState, NodeView, TypeName};
use llambo_strategy::{Candidates, Slot};

use crate::{cluster::TypeInfo, error::DispatchError, index::Index};

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
    by_id: BTreeMap<NodeId, NodeKey>,
    scopes: Vec<Scope>,
    by_model: HashMap<ModelName, ScopeId>,
    types: BTreeMap<TypeName, TypeRow>,
}

/// The nodes of one model, or those of one node type.
#[derive(Default)]
pub(crate) struct Scope {
    pub(crate) index: Index,
    /// Nodes that serve requests now or will: neither draining nor failed nor stopped.
    pub(crate) live: usize,
}

#[derive(Default)]
struct TypeRow {
    /// One scope for each model that nodes of this type serve; hardly ever more than one.
    models: Vec<(ModelName, ScopeId)>,
    /// By [`NodeState`], in the order of its declaration.
    states: [u32; NodeState::ALL.len()],
    /// Whether it, and what it serves, may be named while it has no nodes.
    is_known: bool,
}

pub(crate) struct Entry {
    pub(crate) node: Arc<dyn Node>,
    pub(crate) id: NodeId,
    pub(crate) node_type: TypeName,
    pub(crate) in_flight: u32,
    /// What the node last said of itself.
    pub(crate) observed: NodeState,
    pub(crate) draining: bool,
    /// Exponential average over requests, in microseconds; 0 before the first.
    pub(crate) ttft_us: f32,
    /// Requests since strategy number `served_under` was set; an older number means none under the present one.
    pub(crate) served: u64,
    pub(crate) served_under: u64,
    capacity: u32,
    places: [(ScopeId, Slot); 2],
}

// === impl Entry ===

impl Entry {
    pub(crate) fn state(&self) -> NodeState {
        shown_state(self.observed, self.draining, self.in_flight, self.capacity)
    }

    fn takes_requests(&self) -> bool {
        matches!(self.state(), NodeState::Ready | NodeState::Hibernated)
    }

    pub(crate) fn is_live(&self) -> bool {
        is_live(self.state())
    }

    /// Whether it is to be removed as soon as it is idle.
    pub(crate) fn leaves(&self) -> bool {
        self.draining || self.observed == NodeState::Stopped
    }

    fn slot_in(&self, scope: ScopeId) -> Option<Slot> {
        self.places.iter().find(|place| place.0 == scope).map(|place| place.1)
    }
}

/// Whether a node in this state serves requests now or will.
fn is_live(state: NodeState) -> bool {
    matches!(state, NodeState::Starting | NodeState::Ready | NodeState::Busy | NodeState::Hibernated)
}

/// A node's state as people see it: what it says of itself, corrected by what the registry knows better.
pub(crate) fn shown_state(observed: NodeState, draining: bool, in_flight: u32, capacity: u32) -> NodeState {
    match observed {
        NodeState::Failed | NodeState::Stopped => observed,
        _ if draining => NodeState::Draining,
        NodeState::Starting | NodeState::Draining => observed,
        _ if in_flight >= capacity => NodeState::Busy,
        NodeState::Hibernated if in_flight == 0 => NodeState::Hibernated,
        _ => NodeState::Ready,
    }
}

// === impl Scope ===

impl Scope {
    pub(crate) fn has_candidates(&self) -> bool {
        !self.index.is_empty()
    }
}

// === impl TypeRow ===

impl TypeRow {
    fn may_be_named(&self) -> bool {
        self.is_known || self.states.iter().any(|n| *n > 0)
    }
}

// === impl Registry ===

impl Registry {
    /// Lets requests name a type that has no nodes yet.
    pub(crate) fn know(&mut self, info: &TypeInfo) {
        self.model_scope(&info.model);
        self.type_scope(&info.name, &info.model);
        self.types.entry(info.name.clone()).or_default().is_known = true;
    }

    /// Takes it back: the type, and its model if no other known type serves that, are there only as long as they have nodes.
    pub(crate) fn forget(&mut self, node_type: &TypeName) {
        if let Some(row) = self.types.get_mut(node_type) {
            row.is_known = false;
        }
    }

    /// Whether requests may name a model: some node serves it, or a known type does once it has nodes.
    fn may_be_asked(&self, model: &ModelName, scope: ScopeId) -> bool {
        let serves = |row: &TypeRow| row.is_known && row.models.iter().any(|(served, _)| served == model);
        self.scope(scope).live > 0 || self.types.values().any(serves)
    }

    /// Takes a node in; `None` if its id is taken.
    pub(crate) fn add(&mut self, node: Arc<dyn Node>, view: NodeView) -> Option<NodeKey> {
        if self.by_id.contains_key(&view.id) {
            return None;
        }
        let key = self.vacant.pop().unwrap_or_else(|| {
            self.entries.push(None);
            NodeKey(u32::try_from(self.entries.len() - 1).expect("16,777,216 nodes at most"))
        });
        let scopes = [self.model_scope(&view.model), self.type_scope(&view.node_type, &view.model)];
        let places = scopes.map(|scope| (scope, self.scopes[scope.0].index.insert(key, view.capacity, view.weight)));
        self.by_id.insert(view.id.clone(), key);
        self.count(&view.node_type, NodeState::Stopped, 1);
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
            capacity: view.capacity,
            places,
        });
        self.change(key, |entry| entry.observed = view.state);
        Some(key)
    }

    /// Changes a node and all that is kept about it elsewhere. Answers with its scopes; none if there is no such node.
    pub(crate) fn change(&mut self, key: NodeKey, change: impl FnOnce(&mut Entry)) -> Option<[ScopeId; 2]> {
        let entry = self.entries.get_mut(key.0 as usize)?.as_mut()?;
        let (state, was_live) = (entry.state(), entry.is_live());
        change(entry);
        let (new_state, is_live, takes) = (entry.state(), entry.is_live(), entry.takes_requests());
        for (scope, slot) in entry.places {
            let scope = &mut self.scopes[scope.0];
            scope.live = scope.live + usize::from(is_live) - usize::from(was_live);
            scope.index.set(slot, entry.in_flight, takes);
            scope.index.set_ttft(slot, entry.ttft_us);
        }
        let scopes = entry.places.map(|place| place.0);
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

    /// The nodes that a request may go to.
    pub(crate) fn resolve(&self, model: &ModelName, node_type: Option<&TypeName>) -> Result<ScopeId, DispatchError> {
        let Some(name) = node_type else {
            let found = self.by_model.get(model).copied().filter(|scope| self.may_be_asked(model, *scope));
            return found.ok_or_else(|| {
                let named = self.by_model.iter().filter(|(model, scope)| self.may_be_asked(model, **scope));
                let mut loaded: Vec<_> = named.map(|(name, _)| name.clone()).collect();
                loaded.sort();
                InferenceError::UnknownModel { model: model.clone(), loaded }.into()
            });
        };
        let row = self.types.get(name).filter(|row| row.may_be_named()).ok_or_else(|| DispatchError::UnknownType {
            node_type: name.clone(),
            known: self.types().map(|(name, _)| name.clone()).collect(),
        })?;
        row.models.iter().find(|(served, _)| served == model).map(|(_, scope)| *scope).ok_or_else(|| {
            let serves = row.models.iter().map(|(served, _)| served.clone()).collect();
            DispatchError::WrongModel { node_type: name.clone(), model: model.clone(), serves }
        })
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

    fn model_scope(&mut self, model: &ModelName) -> ScopeId {
        *self.by_model.entry(model.clone()).or_insert_with(|| new_scope(&mut self.scopes))
    }

    fn type_scope(&mut self, node_type: &TypeName, model: &ModelName) -> ScopeId {
        let row = self.types.entry(node_type.clone()).or_default();
        if let Some((_, scope)) = row.models.iter().find(|(served, _)| served == model) {
            return *scope;
        }
        let scope = new_scope(&mut self.scopes);
        row.models.push((model.clone(), scope));
        scope
    }

    fn count(&mut self, node_type: &TypeName, state: NodeState, change: i32) {
        if let Some(row) = self.types.get_mut(node_type) {
            let count = &mut row.states[state as usize];
            *count = count.saturating_add_signed(change);
        }
    }
}

fn new_scope(scopes: &mut Vec<Scope>) -> ScopeId {
    scopes.push(Scope::default());
    ScopeId(scopes.len() - 1)
}

//! All nodes as places of a field, for whoever watches them: what each is, and from then on only what changed.
//!
//! A watcher is a position in the [feed](crate::feed) and nothing else. A place is told as it is now, not as it was at its change, so that one who is slow
//! misses changes and never the present state.

use std::sync::Arc;

use llambo_inference::{ModelName, NodeState, TypeName};

use crate::{cluster::Cluster, entry::Entry, registry::NodeKey, shared::Shared};

/// Places looked at under one hold of the lock: about 20 us.
const PLACES_PER_LOOK: usize = 1024;

/// What is at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The node's state as people see it.
    pub state: NodeState,
    /// Which of the kinds told so far it is.
    pub kind: u32,
}

/// A place, and what is there; `None`: no node. A node keeps its place for life, and another may have it afterwards.
pub type Placed = (u32, Option<Cell>);

/// What nodes of one kind have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellKind {
    /// Node type.
    pub node_type: TypeName,
    /// Model it serves.
    pub model: ModelName,
}

/// What a watcher sees when it looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Whether these are all nodes, because none was told before or more changed since than is remembered. Otherwise those that changed.
    pub is_whole: bool,
    /// In order of place, each once.
    pub cells: Vec<Placed>,
    /// Kinds that were not told before.
    pub new_kinds: Vec<CellKind>,
    /// How many were.
    pub n_known_kinds: usize,
}

/// Somebody who watches all nodes. Costs nothing between two looks, beyond that changes are remembered.
#[derive(Debug)]
pub struct FieldWatch {
    shared: Arc<Shared>,
    /// The last change that was told; `None` before the first look.
    heard: Option<u64>,
    n_known_kinds: usize,
}

// === impl Cell ===

impl Cell {
    fn of(entry: &Entry) -> Self {
        Self { state: entry.state(), kind: entry.kind }
    }
}

// === impl Cluster ===

impl Cluster {
    /// Watches all nodes from here on.
    pub fn watch_field(&self) -> FieldWatch {
        FieldWatch { shared: Arc::clone(&self.shared), heard: None, n_known_kinds: 0 }
    }
}

// === impl FieldWatch ===

impl FieldWatch {
    /// What changed since the last look; everything in the first one.
    pub fn look(&mut self) -> Look {
        let (is_whole, cells) = match self.changed() {
            Some(places) => (false, self.cells_at(&places)),
            None => (true, self.all_cells()),
        };
        // after the cells: a kind is there before the first node of it is
        let (new_kinds, n_known_kinds) = (self.new_kinds(), self.n_known_kinds);
        self.n_known_kinds += new_kinds.len();
        Look { is_whole, cells, new_kinds, n_known_kinds }
    }

    /// Places that changed since the last look, each once, in order; `None` where all must be looked at.
    fn changed(&mut self) -> Option<Vec<u32>> {
        let changed = {
            let mut admission = self.shared.lock();
            let feed = &mut admission.registry.feed;
            let changed = self.heard.and_then(|heard| feed.since(heard));
            self.heard = Some(feed.last());
            changed
        };
        // the lower half of a node's number is its place
        let mut places: Vec<u32> =
            changed?.into_iter().filter_map(|number| u32::try_from(number & u64::from(u32::MAX)).ok()).collect();
        places.sort_unstable();
        places.dedup();
        Some(places)
    }

    fn cells_at(&self, places: &[u32]) -> Vec<Placed> {
        let mut cells = Vec::with_capacity(places.len());
        for part in places.chunks(PLACES_PER_LOOK) {
            let admission = self.shared.lock();
            cells.extend(part.iter().map(|&place| (place, admission.registry.entry(NodeKey(place)).map(Cell::of))));
        }
        cells
    }

    fn all_cells(&self) -> Vec<Placed> {
        let mut cells = Vec::new();
        self.shared.each_entry(|NodeKey(place), entry| cells.push((place, Some(Cell::of(entry)))));
        cells
    }

    fn new_kinds(&self) -> Vec<CellKind> {
        let kinds = Arc::clone(self.shared.lock().registry.kinds());
        let new = kinds.iter().skip(self.n_known_kinds);
        new.map(|kind| CellKind { node_type: kind.node_type.clone(), model: kind.model.clone() }).collect()
    }
}

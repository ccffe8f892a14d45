use std::sync::Arc;

use llambo_inference::{Node, NodeId, NodeState, NodeView, TypeName};

use crate::{
    cluster::Cluster,
    entry::{Entry, shown_state},
    error::ClusterError,
    registry::NodeKey,
};

/// Nodes read under one hold of the lock.
const NODES_PER_PAGE: usize = 1024;

/// Which nodes [`Cluster::list`] shows; what is `None` filters nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFilter {
    /// Only nodes of this type.
    pub node_type: Option<TypeName>,
    /// Only nodes in this state.
    pub state: Option<NodeState>,
}

/// Part of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct NodePage {
    /// The nodes asked for, in order of id.
    pub nodes: Vec<NodeEntry>,
    /// How many there are in all that pass the filter.
    pub total: usize,
}

/// A node as operators see it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeEntry {
    /// What the node says of itself, its state corrected: `busy` when it can take no more, `draining` when it is to go.
    pub view: NodeView,
    /// Requests it serves now.
    pub in_flight: u32,
    /// Time to the first token in microseconds, exponentially averaged over its last requests; 0 before the first.
    pub ttft_us: f32,
    /// The same of whole requests.
    pub latency_us: f32,
    /// Share of its last requests that it failed.
    pub failures: f32,
}

/// A node's row in the registry, copied.
struct Row {
    node: Arc<dyn Node>,
    id: NodeId,
    node_type: TypeName,
    in_flight: u32,
    draining: bool,
    observed: NodeState,
    ttft_us: f32,
    latency_us: f32,
    failures: f32,
}

impl Row {
    fn of(entry: &Entry) -> Self {
        Self {
            node: Arc::clone(&entry.node),
            id: entry.id.clone(),
            node_type: entry.node_type.clone(),
            in_flight: entry.in_flight,
            draining: entry.draining,
            observed: entry.observed,
            ttft_us: entry.ttft_us,
            latency_us: entry.latency_us,
            failures: entry.failures,
        }
    }

    fn entry(&self) -> NodeEntry {
        let mut view = self.node.view();
        view.state = shown_state(view.state, self.draining, self.in_flight, view.capacity);
        let Self { in_flight, ttft_us, latency_us, failures, .. } = *self;
        NodeEntry { view, in_flight, ttft_us, latency_us, failures }
    }
}

impl Cluster {
    /// Nodes in order of id: `limit` of those that pass the filter, after the first `offset` of them.
    ///
    /// Reads the registry in parts, so nodes that come or go meanwhile may or may not be listed; none is listed twice.
    ///
    /// # Errors
    /// [`ClusterError::UnknownType`].
    pub fn list(&self, filter: &NodeFilter, offset: usize, limit: usize) -> Result<NodePage, ClusterError> {
        if let Some(node_type) = &filter.node_type
            && !self.shared.lock().registry.knows(node_type)
        {
            return Err(self.unknown_type(node_type));
        }
        let mut page = NodePage { nodes: Vec::new(), total: 0 };
        self.each_row(|row| {
            if filter.node_type.as_ref().is_some_and(|node_type| *node_type != row.node_type) {
                return;
            }
            let wanted = page.total >= offset && page.nodes.len() < limit;
            // a view costs more than counting: ask only nodes that may be shown or whose state decides
            let entry = (wanted || filter.state.is_some()).then(|| row.entry());
            if let (Some(state), Some(entry)) = (filter.state, &entry)
                && entry.view.state != state
            {
                return;
            }
            page.total += 1;
            page.nodes.extend(entry.filter(|_| wanted));
        });
        Ok(page)
    }

    /// The node at a place of the [field](crate::FieldWatch), if there is one.
    pub fn node_at(&self, place: u32) -> Option<NodeEntry> {
        let row = self.shared.lock().registry.entry(NodeKey(place)).map(Row::of);
        row.map(|row| row.entry())
    }

    /// Asks every node how it is, so that one that failed while idle is no longer chosen and one that is ready again is.
    pub fn refresh(&self) {
        self.each_row(|row| {
            // whether it is busy is what the registry knows best itself
            let unbusied = |state| if state == NodeState::Busy { NodeState::Ready } else { state };
            let observed = unbusied(row.node.view().state);
            if observed != unbusied(row.observed) {
                if observed == NodeState::Failed {
                    tracing::warn!(node_id = %row.id, "node failed and is no longer chosen");
                    self.shared.tell_failed(&row.id, &row.node_type);
                }
                let effects = self.shared.lock().observe(&row.id, observed);
                self.shared.apply(effects);
            }
        });
    }

    fn each_row(&self, mut each: impl FnMut(&Row)) {
        let mut rows: Vec<Row> = Vec::new();
        loop {
            let after = rows.pop().map(|row| row.id);
            rows.clear();
            {
                let admission = self.shared.lock();
                rows.extend(admission.registry.entries_after(after.as_ref()).take(NODES_PER_PAGE).map(Row::of));
            }
            if rows.is_empty() {
                return;
            }
            rows.iter().for_each(&mut each);
        }
    }
}

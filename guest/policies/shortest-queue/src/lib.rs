//! Example tracking balancer: join the shortest queue.
//!
//! A balancer of the world `balancer` is handed up to 32 candidates each time. One that tracks is told what changes and keeps the rest in mind, so
//! it can weigh every node there is. This one keeps the open nodes of each kind sorted by how full they are: a request takes the
//! emptiest node of the kinds that suit it, and whether there are ten nodes or ten thousand hardly matters.
//!
//! - What it chose counts at once, before the host tells of it: the next request would find the same node the emptiest otherwise.
//! - A kind suits if it serves the model and is of the type that was asked for. Kinds of the tier that was asked for come first, then
//!   stronger ones, then weaker ones.
//! - There is one instance. A new one, after a trap, is told of every open node first: nothing has to be kept elsewhere.
//! - 1 MiB holds about 7,000 nodes; for more it is loaded with more memory.

#[allow(unsafe_code, missing_docs, clippy::pedantic, reason = "generated; `wit/policy.wit` holds the documentation")]
mod bindings {
    use super::ShortestQueue;

    wit_bindgen::generate!({ path: "../../../wit", world: "llambo:policy/tracking-balancer@0.1.0" });
    export!(ShortestQueue);
}

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use bindings::exports::llambo::policy::tracking::{Change, Guest, NodeId, OpenNode, Request};
use bindings::llambo::policy::host::{self, Kind};

thread_local! {
    static QUEUES: RefCell<Queues> = RefCell::default();
}

/// All open nodes.
#[derive(Default)]
struct Queues {
    nodes: HashMap<NodeId, Node>,
    by_kind: BTreeMap<u32, Queue>,
}

struct Node {
    kind: u32,
    in_flight: u32,
    capacity: u32,
}

/// Nodes of one kind.
struct Queue {
    kind: Kind,
    /// By how full they are, in thousandths; equally full ones by age.
    nodes: BTreeSet<(u32, NodeId)>,
}

struct ShortestQueue;

impl Guest for ShortestQueue {
    fn update(changes: Vec<Change>) {
        QUEUES.with_borrow_mut(|queues| {
            for change in changes {
                match change {
                    Change::Open(node) => queues.open(&node),
                    Change::Closed(node) => drop(queues.close(node)),
                }
            }
        });
    }

    fn choose(request: Request, _entropy: u64) -> Option<NodeId> {
        QUEUES.with_borrow_mut(|queues| {
            let suitable = queues.by_kind.values().filter(|queue| suits(&request, &queue.kind));
            // least wait within the best tier that has a node at all
            let emptiest = suitable.filter_map(|queue| Some((rank(&request, &queue.kind), queue.nodes.first()?)));
            let node = emptiest.min().map(|(_, (_, node))| *node)?;
            queues.join(node);
            Some(node)
        })
    }
}

fn suits(request: &Request, kind: &Kind) -> bool {
    kind.model == request.model && request.node_type.as_ref().is_none_or(|asked| *asked == kind.node_type)
}

/// The tier asked for is 0, stronger ones follow, then weaker ones.
fn rank(request: &Request, kind: &Kind) -> u8 {
    let asked = request.tier.unwrap_or(kind.tier);
    if kind.tier >= asked { kind.tier - asked } else { u8::MAX - kind.tier }
}

// === impl Queues ===

impl Queues {
    fn open(&mut self, open: &OpenNode) {
        let OpenNode { node, kind, in_flight, capacity, .. } = *open;
        self.close(node);
        self.insert(node, Node { kind, in_flight, capacity });
    }

    fn insert(&mut self, id: NodeId, node: Node) {
        if let (false, Some(kind)) = (self.by_kind.contains_key(&node.kind), host::describe(node.kind)) {
            self.by_kind.insert(node.kind, Queue { kind, nodes: BTreeSet::new() });
        }
        if let Some(queue) = self.by_kind.get_mut(&node.kind) {
            queue.nodes.insert((node.fullness(), id));
            self.nodes.insert(id, node);
        }
    }

    fn close(&mut self, id: NodeId) -> Option<Node> {
        let node = self.nodes.remove(&id)?;
        self.by_kind.get_mut(&node.kind)?.nodes.remove(&(node.fullness(), id));
        Some(node)
    }

    /// Counts a request for the node, which is full with its last one.
    fn join(&mut self, id: NodeId) {
        if let Some(mut node) = self.close(id) {
            node.in_flight += 1;
            if node.in_flight < node.capacity {
                self.insert(id, node);
            }
        }
    }
}

// === impl Node ===

impl Node {
    fn fullness(&self) -> u32 {
        self.in_flight.saturating_mul(1000) / self.capacity.max(1)
    }
}

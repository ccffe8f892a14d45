//! Chooses the node that serves a request, of all nodes there are: here the one with the fewest requests. It is told what changes, and keeps count itself.

wit_bindgen::generate!({ path: "wit", generate_all });

use std::{cell::RefCell, collections::HashMap};

use exports::llambo::policy::tracking::{Change, Guest, NodeId, OpenNode, Request};
use llambo::policy::host;

thread_local! {
    /// All open nodes. There is one instance, and a new one is told of every open node first.
    static NODES: RefCell<HashMap<NodeId, OpenNode>> = RefCell::default();
}

struct Policy;

export!(Policy);

impl Guest for Policy {
    fn update(changes: Vec<Change>) {
        NODES.with_borrow_mut(|nodes| {
            for change in changes {
                match change {
                    Change::Open(node) => drop(nodes.insert(node.node, node)),
                    Change::Closed(node) => drop(nodes.remove(&node)),
                }
            }
        });
    }

    /// An open node that can serve the request. None leaves the choice to the built-in strategy.
    fn choose(request: Request, _entropy: u64) -> Option<NodeId> {
        NODES.with_borrow_mut(|nodes| {
            let open = nodes.values_mut().filter(|node| node.in_flight < node.capacity && suits(&request, node.kind));
            let chosen = open.min_by_key(|node| node.in_flight)?;
            // counted at once: the host tells of it only before the next call
            chosen.in_flight += 1;
            Some(chosen.node)
        })
    }
}

/// Whether nodes of that kind serve the model, and are of the type, that was asked for.
fn suits(request: &Request, kind: u32) -> bool {
    host::describe(kind).is_some_and(|kind| {
        kind.model == request.model && request.node_type.as_ref().is_none_or(|asked| *asked == kind.node_type)
    })
}

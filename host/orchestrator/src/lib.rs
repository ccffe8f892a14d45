//! The orchestrator: who serves a request, who waits, and who is there at all.
//!
//! [`Dispatcher::dispatch`] is the one door for requests, [`Cluster`] the operations on nodes. Both work on one state machine
//! behind one lock that is held for about a microsecond at a time, whatever the number of nodes:
//!
//! ```text
//!   dispatch -> admission -> free node -> generate -> first event -> stream -> end
//!                  |  ^                      |                          |
//!                  v  | lease dropped        +- node's fault: another   +- lease and record drop:
//!                queue                          node, until a token        load, totals, next waiter
//! ```
//!
//! Guarantees, each of which is a test: a node's place is taken for exactly as long as its stream lives; a stream has exactly
//! one end; nothing is retried once a token was seen; requests for the same nodes are served in order of arrival; a node
//! that is taken out of service finishes what it has; dropping anything cancels it.
//!
//! It knows no Wasm, no protobuf and no HTTP.

mod admission;
mod balance;
mod bitset;
mod cluster;
mod dispatcher;
mod error;
mod fenwick;
mod index;
mod lease;
mod listing;
mod moving;
mod queue;
mod record;
mod registry;
mod served;
mod shared;
mod status;

use std::time::Duration;

pub use cluster::{BalancerSwitch, Cluster, DrainTarget, Found, NodeFactory, ScaleReport, SpawnOutcome, SpawnReport, TypeInfo};
pub use dispatcher::Dispatcher;
pub use error::{ClusterError, DispatchError, SpawnError, StillBusy};
pub use lease::Lease;
pub use listing::{NodeEntry, NodeFilter, NodePage};
pub use moving::{Adopted, Moved};
pub use record::Totals;
pub use status::{BalancerReport, ClusterStatus, describe_metrics};

#[cfg(test)]
mod tests;

/// Limits and the strategy to begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Requests that may wait for a node; further ones are refused at once. 0 lets none wait.
    pub max_waiting: usize,
    /// Requests that nodes may serve together, whatever they could hold; further ones wait. At least 1.
    pub max_in_flight: usize,
    /// How long a request may wait for a node, its deadline apart.
    pub max_wait: Duration,
    /// Nodes that a request is tried on before its first event. At least 1.
    pub attempts: u32,
    /// Name of the strategy, one of [`llambo_strategy::NAMES`] or an alias.
    pub strategy: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_waiting: 1024,
            max_in_flight: usize::MAX,
            max_wait: Duration::from_secs(30),
            attempts: 3,
            strategy: "least-loaded".into(),
        }
    }
}

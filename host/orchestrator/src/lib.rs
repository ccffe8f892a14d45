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
//! one end, and whichever nodes fail in the middle, no token of it is told twice or left out; a node that is taken out of
//! service finishes what it has; dropping anything cancels it.
//!
//! It knows no Wasm, no protobuf and no HTTP.

mod admission;
mod balance;
mod bitset;
mod breaker;
mod cluster;
mod course;
mod dispatcher;
mod entry;
mod error;
mod events;
mod factory;
mod facts;
mod fan;
mod faults;
mod feed;
mod fenwick;
mod field;
mod guide;
mod homes;
mod index;
mod latencies;
mod lease;
mod listing;
mod meters;
mod moving;
mod observe;
mod proposal;
mod queue;
mod quota;
mod record;
mod registry;
mod report;
mod retries;
mod route;
mod scaling;
mod scopes;
mod served;
mod shared;
mod status;
mod succession;
mod switch;
mod tiers;
mod told;
mod turns;
mod usage;
mod wanted;

use std::{collections::HashMap, time::Duration};

use llambo_inference::TenantName;

pub use cluster::{Cluster, DrainTarget, ScaleReport, SpawnReport};
pub use dispatcher::Dispatcher;
pub use error::{ClusterError, DispatchError, SpawnError, StillBusy};
pub use events::{Event, EventFilter, EventWatch, Told};
pub use factory::{Found, NodeFactory, SpawnOutcome, TypeInfo};
pub use fan::MAX_ANSWERS;
pub use faults::{ActiveFault, Fault, FaultError, FaultKind};
pub use field::{Cell, CellKind, FieldWatch, Look, Placed};
pub use guide::Policies;
pub use latencies::LatencyCounts;
pub use lease::Lease;
pub use listing::{NodeEntry, NodeFilter, NodePage};
pub use moving::{Adopted, Moved};
pub use quota::{Hold, Terms};
pub use record::{Pulse, Totals};
pub use route::{Route, RouteCandidate, RouteRecord, Routed};
pub use scaling::Autoscaler;
pub use status::{ClusterStatus, describe_metrics};
pub use switch::{BalancerReport, BalancerSwitch};
pub use tiers::{TierBy, TierCount, TierNote};

#[cfg(test)]
mod tests;

/// Limits and the strategy to begin with.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Requests that may wait for a node; further ones are refused at once. 0 lets none wait.
    pub max_waiting: usize,
    /// Requests that nodes may serve together, whatever they could hold; further ones wait. At least 1.
    pub max_in_flight: usize,
    /// How long a request may wait for a node, its deadline apart.
    pub max_wait: Duration,
    /// Nodes that a request is tried on before it gets on. At least 1.
    pub attempts: u32,
    /// How long a node may say nothing before another one goes on with its request; `None`: as long as it likes.
    pub stall_timeout: Option<Duration>,
    /// Whether what is built in says how demanding a request is, where nobody else does and types of different tiers serve its model.
    pub judges_tiers: bool,
    /// Whether faults may be injected.
    pub allow_faults: bool,
    /// What tenants are promised and may take; others have a weight of 1 and no limits of their own.
    pub tenants: HashMap<TenantName, Terms>,
    /// Whether a tenant's nodes are for its own requests alone; those of `default` are everybody's.
    pub separate_tenants: bool,
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
            stall_timeout: None,
            judges_tiers: true,
            allow_faults: false,
            tenants: HashMap::new(),
            separate_tenants: false,
            strategy: "least-loaded".into(),
        }
    }
}

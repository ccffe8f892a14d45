use std::{fmt::Display, time::Duration};

use llambo_inference::{InferenceError, ModelName, NodeId, TenantName, TypeName};
use llambo_strategy::UnknownStrategy;

/// What a client is told to wait when the orchestrator cannot say how long its trouble lasts.
const RETRY_WHEN_UNKNOWN: Duration = Duration::from_secs(1);

/// Why a request was not served.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DispatchError {
    /// No node is free and as many requests wait as may.
    #[error("every node is busy and {waiting} of at most {limit} requests wait; try again in {} ms", .retry_after.as_millis())]
    QueueFull {
        /// Requests that wait now.
        waiting: usize,
        /// How many may.
        limit: usize,
        /// When a place is likely, from how fast requests ended lately.
        retry_after: Duration,
    },
    /// It waited as long as requests may and no node became free.
    #[error("no node became free within {} ms; try again in {} ms", .waited.as_millis(), .retry_after.as_millis())]
    WaitExpired {
        /// How long it waited.
        waited: Duration,
        /// When a place is likely, from how fast requests ended lately.
        retry_after: Duration,
    },
    /// Its tenant has used what it may use, or has as many requests as it may have.
    #[error("tenant `{tenant}` is at its limit of {limit} (`{quota}`); try again in {} ms", .retry_after.as_millis())]
    QuotaExceeded {
        /// Whose request it is.
        tenant: TenantName,
        /// The key of the configuration that limits it.
        quota: &'static str,
        /// What it says.
        limit: u32,
        /// When there will be room, as far as that is known.
        retry_after: Duration,
    },
    /// A policy has refused it.
    #[error("not admitted: {}", if .reason.is_empty() { "a policy refuses it" } else { .reason })]
    NotAdmitted {
        /// What the policy says.
        reason: String,
        /// When to come back.
        retry_after: Duration,
    },
    /// Nothing that could serve it exists, so waiting is of no use.
    #[error("no node serves {}; spawn one, or ask again once the host has", scope(.model, .node_type.as_ref()))]
    NoNode {
        /// The model asked.
        model: ModelName,
        /// The node type asked for, if one was.
        node_type: Option<TypeName>,
    },
    /// The host finishes what it has and takes nothing new.
    #[error("the host is draining; send the request to another one")]
    Draining,
    /// No such node type on this host.
    #[error("node type `{node_type}` is unknown; there are: {}", list(.known))]
    UnknownType {
        /// The name asked for.
        node_type: TypeName,
        /// What could have been asked for.
        known: Vec<TypeName>,
    },
    /// The node type exists and serves another model.
    #[error("node type `{node_type}` does not serve model `{model}`, but: {}", list(.serves))]
    WrongModel {
        /// The node type asked for.
        node_type: TypeName,
        /// The model asked.
        model: ModelName,
        /// What nodes of that type serve.
        serves: Vec<ModelName>,
    },
    /// The node, its engine or the request's own deadline.
    #[error(transparent)]
    Inference(#[from] InferenceError),
}

impl DispatchError {
    /// A stable upper-case name for clients and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::QueueFull { .. } | Self::WaitExpired { .. } => "QUEUE_FULL",
            Self::QuotaExceeded { .. } => "QUOTA_EXCEEDED",
            Self::NotAdmitted { .. } => "NOT_ADMITTED",
            Self::NoNode { .. } => "NO_NODE",
            Self::Draining => "DRAINING",
            Self::UnknownType { .. } => "UNKNOWN_TYPE",
            Self::WrongModel { .. } => "INVALID_REQUEST",
            Self::Inference(error) => error.reason(),
        }
    }

    /// When to try again; `None` when that is of no use or nothing needs to be waited for.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull { retry_after, .. }
            | Self::WaitExpired { retry_after, .. }
            | Self::QuotaExceeded { retry_after, .. }
            | Self::NotAdmitted { retry_after, .. } => Some(*retry_after),
            Self::NoNode { .. } | Self::Draining | Self::Inference(InferenceError::Full { .. } | InferenceError::Stopped(_)) => {
                Some(RETRY_WHEN_UNKNOWN)
            }
            Self::UnknownType { .. } | Self::WrongModel { .. } | Self::Inference(_) => None,
        }
    }
}

/// Why an operation on the cluster was not carried out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No such node type on this host.
    #[error("node type `{node_type}` is unknown; there are: {}", list(.known))]
    UnknownType {
        /// The name asked for.
        node_type: TypeName,
        /// What could have been asked for.
        known: Vec<TypeName>,
    },
    /// No such node on this host; nothing was changed.
    #[error("node `{node}` is unknown; the host has {total} nodes, the first are: {}", list(.first))]
    UnknownNode {
        /// The id asked for.
        node: NodeId,
        /// Some that exist, the first by id.
        first: Vec<NodeId>,
        /// How many exist.
        total: usize,
    },
    /// No such strategy.
    #[error(transparent)]
    Strategy(#[from] UnknownStrategy),
    /// Nodes could not be made.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A node of that id exists already; the new one was stopped.
    #[error("a node with the id `{node}` exists already; the new one was stopped")]
    DuplicateNode {
        /// The id that came twice.
        node: NodeId,
    },
    /// The host finishes what it has and makes no new nodes.
    #[error("the host is draining and makes no new nodes")]
    Draining,
}

impl ClusterError {
    /// A stable upper-case name for clients and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownType { .. } => "UNKNOWN_TYPE",
            Self::UnknownNode { .. } => "UNKNOWN_NODE",
            Self::Strategy(_) => "UNKNOWN_STRATEGY",
            Self::Spawn(error) => error.reason(),
            Self::DuplicateNode { .. } => "DUPLICATE_NODE",
            Self::Draining => "DRAINING",
        }
    }
}

/// Why nodes could not be made. None of those asked for remains.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The pool that nodes are made from has no more places.
    #[error("no room for {wanted} more `{node_type}`: {detail}")]
    PoolExhausted {
        /// The type asked for.
        node_type: TypeName,
        /// How many were asked for.
        wanted: u32,
        /// What is exhausted, with the numbers, and what would make room.
        detail: String,
    },
    /// A node could not be made.
    #[error("`{node_type}` could not be spawned: {detail}")]
    Failed {
        /// The type asked for.
        node_type: TypeName,
        /// What went wrong.
        detail: String,
    },
}

impl SpawnError {
    /// A stable upper-case name for clients and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::PoolExhausted { .. } => "POOL_EXHAUSTED",
            Self::Failed { .. } => "BACKEND_FAILED",
        }
    }
}

/// Requests were still under way when the time to wait for them was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{in_flight} requests are still in flight and {waiting} wait")]
pub struct StillBusy {
    /// Requests that nodes serve.
    pub in_flight: usize,
    /// Requests that wait for a node.
    pub waiting: usize,
}

fn list<T: Display>(names: &[T]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn scope(model: &ModelName, node_type: Option<&TypeName>) -> String {
    node_type.map_or_else(|| format!("model `{model}`"), |name| format!("model `{model}` as node type `{name}`"))
}

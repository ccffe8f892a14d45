//! What happens in a cluster, as operators are told: nothing about single requests.

use std::fmt;

use crate::TypeName;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterEvent {
    /// What.
    pub kind: EventKind,
    /// To what: a node, or the type of several; a policy, a module, a model.
    pub subject: String,
    /// The node type that it is about, if it is about one.
    pub node_type: Option<TypeName>,
    /// How many nodes; 1 where it is not about nodes.
    pub count: u32,
    /// Why, for people.
    pub reason: String,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is what its name says, which `as_str` has for people")]
pub enum EventKind {
    NodesSpawned,
    NodesDraining,
    NodesStopped,
    NodesFailed,
    ScaleUp,
    ScaleDown,
    ScaleHeld,
    BreakerOpened,
    BreakerClosed,
    PolicyLoaded,
    PolicyPromoted,
    PolicyRolledBack,
    PolicyUnloaded,
    PolicySuspended,
    PolicyResumed,
    ModuleLoaded,
    ModuleRolledBack,
    ModuleUnloaded,
    ModelLoaded,
    ModelUnloaded,
    BalancerSwitched,
    HostStarted,
    HostDraining,
}

/// Whoever wants to know what happens. Cheap to tell, and never waits.
pub trait Witness: Send + Sync {
    /// It happened now.
    fn tell(&self, event: ClusterEvent);
}

// === impl ClusterEvent ===

impl ClusterEvent {
    /// About one thing that is no node.
    pub fn new(kind: EventKind, subject: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { kind, subject: subject.into(), node_type: None, count: 1, reason: reason.into() }
    }

    /// About so many nodes of a type, or its number of nodes.
    pub fn of_type(kind: EventKind, node_type: &TypeName, count: u32, reason: impl Into<String>) -> Self {
        Self { kind, subject: node_type.to_string(), node_type: Some(node_type.clone()), count, reason: reason.into() }
    }
}

// === impl EventKind ===

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 23] = [
        Self::NodesSpawned,
        Self::NodesDraining,
        Self::NodesStopped,
        Self::NodesFailed,
        Self::ScaleUp,
        Self::ScaleDown,
        Self::ScaleHeld,
        Self::BreakerOpened,
        Self::BreakerClosed,
        Self::PolicyLoaded,
        Self::PolicyPromoted,
        Self::PolicyRolledBack,
        Self::PolicyUnloaded,
        Self::PolicySuspended,
        Self::PolicyResumed,
        Self::ModuleLoaded,
        Self::ModuleRolledBack,
        Self::ModuleUnloaded,
        Self::ModelLoaded,
        Self::ModelUnloaded,
        Self::BalancerSwitched,
        Self::HostStarted,
        Self::HostDraining,
    ];

    /// A group and what happened in it, parted by a dot. Stable.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NodesSpawned => "nodes.spawned",
            Self::NodesDraining => "nodes.draining",
            Self::NodesStopped => "nodes.stopped",
            Self::NodesFailed => "nodes.failed",
            Self::ScaleUp => "scale.up",
            Self::ScaleDown => "scale.down",
            Self::ScaleHeld => "scale.held",
            Self::BreakerOpened => "breaker.opened",
            Self::BreakerClosed => "breaker.closed",
            Self::PolicyLoaded => "policy.loaded",
            Self::PolicyPromoted => "policy.promoted",
            Self::PolicyRolledBack => "policy.rolled-back",
            Self::PolicyUnloaded => "policy.unloaded",
            Self::PolicySuspended => "policy.suspended",
            Self::PolicyResumed => "policy.resumed",
            Self::ModuleLoaded => "module.loaded",
            Self::ModuleRolledBack => "module.rolled-back",
            Self::ModuleUnloaded => "module.unloaded",
            Self::ModelLoaded => "model.loaded",
            Self::ModelUnloaded => "model.unloaded",
            Self::BalancerSwitched => "balancer.switched",
            Self::HostStarted => "host.started",
            Self::HostDraining => "host.draining",
        }
    }

    /// The kinds of that name, or of that group: `scale.up`, or `scale` for all that begin so.
    pub fn named(name: &str) -> Vec<Self> {
        let is_meant = |kind: &Self| {
            let own = kind.as_str();
            own == name || own.split_once('.').is_some_and(|(group, _)| group == name)
        };
        Self::ALL.into_iter().filter(is_meant).collect()
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_alone_or_by_their_group() {
        assert_eq!(EventKind::named("scale.up"), [EventKind::ScaleUp]);
        assert_eq!(EventKind::named("scale"), [EventKind::ScaleUp, EventKind::ScaleDown, EventKind::ScaleHeld]);
        assert_eq!(EventKind::named("scale."), []);
        assert_eq!(EventKind::named(""), []);
        let mut names = EventKind::ALL.map(EventKind::as_str).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), EventKind::ALL.len());
    }
}

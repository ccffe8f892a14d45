//! A node in the registry, and its state as people see it.

use std::sync::Arc;

use llambo_inference::{Node, NodeId, NodeState, TypeName};
use llambo_strategy::{Candidate, Slot};

use crate::{breaker::Breaker, registry::ScopeId};

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
    /// Exponential averages like `ttft_us`: time of whole requests, and the share that failed.
    pub(crate) latency_us: f32,
    pub(crate) failures: f32,
    pub(crate) breaker: Breaker,
    pub(crate) number: u64,
    pub(crate) shares_cache: bool,
    pub(crate) kind: u32,
    pub(crate) tier: u8,
    pub(crate) weight: f32,
    pub(crate) capacity: u32,
    pub(crate) places: [(ScopeId, Slot); 2],
}

impl Entry {
    pub(crate) fn state(&self) -> NodeState {
        shown_state(self.observed, self.draining, self.in_flight, self.capacity)
    }

    pub(crate) fn takes_requests(&self) -> bool {
        matches!(self.state(), NodeState::Ready | NodeState::Hibernated) && !self.breaker.is_open()
    }

    pub(crate) fn is_live(&self) -> bool {
        is_live(self.state())
    }

    /// Whether it is to be removed as soon as it is idle.
    pub(crate) fn leaves(&self) -> bool {
        self.draining || self.observed == NodeState::Stopped
    }

    /// It serves one more request, which wakes it.
    pub(crate) fn occupy(&mut self) {
        self.in_flight += 1;
        if self.observed == NodeState::Hibernated {
            self.observed = NodeState::Ready;
        }
    }

    /// As policies see it; what it has computed is not known here.
    pub(crate) fn candidate(&self) -> Candidate {
        Candidate {
            node: self.number,
            kind: self.kind,
            in_flight: self.in_flight,
            capacity: self.capacity,
            weight: self.weight,
            ttft_us: self.ttft_us,
            latency_us: self.latency_us,
            failures: self.failures,
            cached_bytes: 0,
            tier: self.tier,
        }
    }

    pub(crate) fn slot_in(&self, scope: ScopeId) -> Option<Slot> {
        self.places.iter().find(|place| place.0 == scope).map(|place| place.1)
    }
}

/// Whether a node in this state serves requests now or will.
pub(crate) fn is_live(state: NodeState) -> bool {
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

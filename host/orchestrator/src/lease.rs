use std::{fmt, sync::Arc, time::Duration};

use llambo_inference::{Fault, InferenceError, Node, NodeId, NodeState};
use tokio::time::Instant;

use crate::{admission::Pick, registry::NodeKey, report::Report, shared::Shared, wanted::Wanted};

/// One request's place on one node.
///
/// Dropping it gives the place back: to the request that has waited longest for such a node, if one has.
pub struct Lease {
    shared: Arc<Shared>,
    node: Arc<dyn Node>,
    id: NodeId,
    key: NodeKey,
    home: u64,
    choice: Duration,
    tier: u8,
    asked: Option<Instant>,
    report: Report,
    failed: bool,
    given_back: bool,
}

impl Lease {
    pub(crate) fn new(shared: &Arc<Shared>, pick: Pick) -> Self {
        if pick.choice > Duration::ZERO {
            shared.meters.chosen(pick.choice);
        }
        Self {
            shared: Arc::clone(shared),
            node: pick.node,
            id: pick.id,
            key: pick.key,
            home: pick.home,
            choice: pick.choice,
            tier: pick.tier,
            asked: None,
            report: Report::default(),
            failed: false,
            given_back: false,
        }
    }

    /// The node it is a place on.
    pub fn node_id(&self) -> &NodeId {
        &self.id
    }

    pub(crate) fn node(&self) -> &dyn Node {
        &*self.node
    }

    pub(crate) fn key(&self) -> NodeKey {
        self.key
    }

    /// Whose cache will have what it computes.
    pub(crate) fn home(&self) -> u64 {
        self.home
    }

    /// The node's capability class.
    pub(crate) fn tier(&self) -> u8 {
        self.tier
    }

    /// How long the strategy took.
    pub(crate) fn choice(&self) -> Duration {
        self.choice
    }

    /// A place on another node for this one; or this one, when that cannot take the request.
    pub(crate) fn move_to(mut self, node: u64, wanted: &Wanted, failed: &[NodeKey]) -> Result<Self, Self> {
        let moved = self.shared.lock().relocate(self.key, node, wanted, failed);
        let Some((pick, effects)) = moved else { return Err(self) };
        self.given_back = true;
        self.shared.apply(effects);
        let mut moved = Self::new(&self.shared, pick);
        moved.choice = self.choice;
        Ok(moved)
    }

    /// The node is asked now.
    pub(crate) fn mark_used(&mut self) {
        self.report.used = true;
        self.asked = Some(Instant::now());
    }

    /// The node has answered to the end.
    pub(crate) fn mark_finished(&mut self) {
        self.report.latency_us = Some(self.since_asked().as_secs_f32() * 1e6);
    }

    /// How long the node has been at it.
    pub(crate) fn since_asked(&self) -> Duration {
        self.asked.map(|asked| asked.elapsed()).unwrap_or_default()
    }

    pub(crate) fn first_token_after(&mut self, ttft: Duration) {
        self.report.ttft_us = Some(ttft.as_secs_f32() * 1e6);
    }

    /// The node answered with an error: it will be asked how it is when the place is given back.
    pub(crate) fn mark_failed(&mut self, error: &InferenceError) {
        self.failed |= error.fault() == Fault::Node;
        self.report.failed = self.failed;
    }

    /// Ends the lease without giving the place back, which is the caller's duty now.
    pub(crate) fn into_report(mut self) -> (NodeKey, Report) {
        self.given_back = true;
        (self.key, self.final_report())
    }

    fn final_report(&self) -> Report {
        let observed = self.failed.then(|| self.node.view().state);
        if observed == Some(NodeState::Failed) {
            tracing::warn!(node_id = %self.id, "node failed and is no longer chosen");
            self.shared.tell_failed(&self.id, &self.node.view().node_type);
        }
        Report { observed, ..self.report }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.given_back {
            let report = self.final_report();
            let effects = self.shared.lock().release(self.key, report, Instant::now());
            self.shared.apply(effects);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("node", &self.id).finish_non_exhaustive()
    }
}

//! How a node was chosen, for whoever asks why; and the record of such choices.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use llambo_inference::{AnswerStream, NodeId, Usage};
use llambo_strategy::{ChooseNode, Fallback, NodeKind, PolicyRef};
use tokio::sync::broadcast;

use crate::tiers::{TierBy, TierNote};

/// Records that wait for a slow reader: some seconds' worth of decisions. What is beyond is told as missed.
pub(crate) const RECORDS: usize = 8192;

/// A stream of events, who serves it, and why.
pub struct Routed {
    /// The node that was chosen.
    pub node: NodeId,
    /// What it says.
    pub events: AnswerStream,
    /// How it was chosen, if that was asked for.
    pub route: Option<Box<Route>>,
    /// The tier that serves it, where there are several.
    pub tier: Option<Arc<TierNote>>,
}

/// How a node was chosen.
#[derive(Clone, Debug)]
pub struct Route {
    /// The built-in strategy.
    pub strategy: &'static str,
    /// Who was asked; `None`: nobody but the strategy.
    pub policy: Option<Arc<PolicyRef>>,
    /// Why the strategy decided all the same.
    pub fallback: Option<Fallback>,
    /// What was chosen from.
    pub candidates: Vec<RouteCandidate>,
    /// What their kinds are.
    pub kinds: Arc<Vec<NodeKind>>,
    /// How many nodes could have served it.
    pub n_eligible: usize,
    /// The node.
    pub chosen: NodeId,
    /// Time to decide, the strategy's own included.
    pub decision: Duration,
    /// Nodes that failed it before.
    pub failed: Vec<NodeId>,
    /// Time in the queue.
    pub waited: Duration,
    /// What the shadow would have chosen.
    pub shadow: Option<NodeId>,
    /// The tier that should serve it.
    pub tier: Option<u8>,
    /// Who said so.
    pub tier_by: Option<TierBy>,
    /// Why, for people.
    pub tier_why: Option<String>,
    /// Whether it was let in at once, as an admission policy said; `None`: there is none.
    pub deferred: Option<bool>,
}

/// A node that was chosen from.
#[derive(Clone, Debug)]
pub struct RouteCandidate {
    /// Which.
    pub node: NodeId,
    /// Its kind's place in the question's kinds.
    pub candidate: llambo_strategy::Candidate,
    /// What its policy or strategy thinks of it.
    pub score: Option<f64>,
}

/// One line of the record.
#[derive(Clone, Debug)]
pub enum RouteRecord {
    /// A node was chosen.
    Decision {
        /// Counted from the start.
        number: u64,
        /// Since the start.
        at: Duration,
        /// What was asked.
        ask: Arc<ChooseNode>,
        /// What was decided.
        route: Box<Route>,
    },
    /// A request has left its node.
    End {
        /// That of its decision.
        number: u64,
        /// Since the start.
        at: Duration,
        /// `finished`, `failed` or `cancelled`.
        outcome: &'static str,
        /// From the node's asking to its first token.
        ttft: Option<Duration>,
        /// From the node's asking to its end.
        latency: Duration,
        /// What it cost.
        usage: Usage,
    },
}

/// Where records are told to whoever listens.
pub(crate) type Recorder = broadcast::Sender<Arc<RouteRecord>>;

/// Scores by place.
pub(crate) fn by_place(scores: &[(u32, f32)]) -> BTreeMap<u32, f64> {
    scores.iter().map(|(place, score)| (*place, f64::from(*score))).collect()
}

//! Which tier serves a request, who said which it should be, and how often that came true.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use llambo_inference::NodeId;
use llambo_strategy::{Complexity, MAX_TIER, PolicyRef};

const TIERS: usize = MAX_TIER as usize + 1;

/// Who said which tier a request should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TierBy {
    /// Its client.
    Request,
    /// The classifier policy.
    Classifier,
    /// What is built in, by its text.
    Heuristic,
}

/// Why a request should have its tier.
#[derive(Clone, Debug)]
pub(crate) enum TierWhy {
    Request,
    Classifier(Option<Arc<PolicyRef>>),
    Heuristic(Complexity),
}

/// The tier of an answer: the one it should have had, and the one that serves it, which changes when another node goes on with it.
#[derive(Debug)]
pub struct TierNote {
    /// The one it should have; `None`: any.
    pub wanted: Option<u8>,
    why: Option<TierWhy>,
    serves: Mutex<(NodeId, u8)>,
}

/// Requests by the tier that they should have had and the one that served them.
#[derive(Debug, Default)]
pub(crate) struct TierCounters([[AtomicU64; TIERS]; TIERS]);

/// Requests that should have had a tier, and the tier that served them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierCount {
    /// The one they should have had.
    pub wanted: u8,
    /// The one they had in the end.
    pub served: u8,
    /// How many.
    pub requests: u64,
}

// === impl TierBy ===

impl TierBy {
    /// As clients read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Classifier => "classifier",
            Self::Heuristic => "heuristic",
        }
    }
}

// === impl TierWhy ===

impl TierWhy {
    pub(crate) fn by(&self) -> TierBy {
        match self {
            Self::Request => TierBy::Request,
            Self::Classifier(_) => TierBy::Classifier,
            Self::Heuristic(_) => TierBy::Heuristic,
        }
    }
}

impl fmt::Display for TierWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => f.write_str("its client asked for it"),
            Self::Classifier(Some(policy)) => write!(f, "the policy `{}` said so", policy.name),
            Self::Classifier(None) => f.write_str("a policy said so"),
            Self::Heuristic(complexity) => complexity.fmt(f),
        }
    }
}

// === impl TierNote ===

impl TierNote {
    pub(crate) fn new(wanted: Option<u8>, why: Option<TierWhy>, node: NodeId, tier: u8) -> Self {
        Self { wanted, why, serves: Mutex::new((node, tier)) }
    }

    /// From now on this node goes on with it.
    pub(crate) fn goes_on(&self, node: &NodeId, tier: u8) {
        *self.serves.lock().unwrap_or_else(PoisonError::into_inner) = (node.clone(), tier);
    }

    /// The node that serves it, and that one's tier.
    pub fn serves(&self) -> (NodeId, u8) {
        self.serves.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who said which tier it should have.
    pub fn by(&self) -> Option<TierBy> {
        self.why.as_ref().map(TierWhy::by)
    }

    /// Whether another tier serves it than the one that it should have.
    pub fn fell_back(&self) -> bool {
        self.wanted.is_some_and(|wanted| wanted != self.serves().1)
    }

    /// Why it has this tier, for people; never what it says.
    pub fn reason(&self) -> String {
        let (Some(wanted), Some(why)) = (self.wanted, &self.why) else { return "any tier would do".into() };
        let served = self.serves().1;
        if served == wanted { why.to_string() } else { format!("{why}; no node of tier {wanted} was free") }
    }
}

// === impl TierCounters ===

impl TierCounters {
    pub(crate) fn ended(&self, wanted: u8, served: u8) {
        if let Some(count) = self.0.get(usize::from(wanted)).and_then(|row| row.get(usize::from(served))) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Without those that never were.
    pub(crate) fn counts(&self) -> Vec<TierCount> {
        let rows = (0..=MAX_TIER).zip(&self.0).flat_map(|(wanted, row)| {
            (0..=MAX_TIER).zip(row).map(move |(served, n)| TierCount { wanted, served, requests: n.load(Relaxed) })
        });
        rows.filter(|count| count.requests > 0).collect()
    }
}

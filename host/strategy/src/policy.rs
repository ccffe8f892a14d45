//! Decisions that users' own policies may take: what is asked and what can be answered, for each kind.
//!
//! Plain data both ways, so that a question can be kept, sent to another thread, recorded and asked again. Who answers is unknown here.

use std::{fmt, sync::Arc};

use crate::{PolicyKind, RequestFacts};

/// Candidates that a policy is shown at most.
pub const MAX_CANDIDATES: usize = 32;
/// The longest that a rejected request is sent away for.
pub(crate) const MAX_RETRY_AFTER_MS: u32 = 60_000;
/// The strongest tier.
pub const MAX_TIER: u8 = 2;

/// A kind of decision.
pub trait Kind: 'static {
    /// As operators call it.
    const KIND: PolicyKind;
    /// What is asked.
    type Ask: Send + Sync;
    /// What is answered.
    type Answer: Clone + PartialEq + fmt::Debug + Send + Sync;

    /// For whom, if it is for a request.
    fn request(ask: &Self::Ask) -> Option<&RequestFacts>;

    /// Whether an answer makes sense; otherwise, what is wrong with it.
    fn check(ask: &Self::Ask, answer: &Self::Answer) -> Result<(), String>;

    /// Whether it is what is built in would answer.
    fn is_built_in(_ask: &Self::Ask, _answer: &Self::Answer) -> bool {
        false
    }
}

/// Whoever decides in the place of what is built in. Called outside all locks; takes as long as its time limit at most.
pub trait Policy<K: Kind>: Send + Sync {
    /// Whether asking may lead to an answer, or tells a shadow: otherwise nobody needs to be asked. Cheap.
    fn is_loaded(&self) -> bool;

    /// What is decided.
    fn decide(&self, ask: &Arc<K::Ask>) -> Decision<K::Answer>;

    /// What was decided could not be done any more, and is counted as [`Fallback::Gone`].
    fn gone(&self, _decision: &Decision<K::Answer>) {}
}

/// What was decided, by whom, and if not, why.
#[derive(Clone, Debug)]
pub struct Decision<A> {
    /// `None`: what is built in decides.
    pub answer: Option<A>,
    /// Who was asked; `None`: there is nobody.
    pub by: Option<Arc<PolicyRef>>,
    /// Why there is no answer although somebody was asked.
    pub fallback: Option<Fallback>,
    /// Notes on candidates, by their places.
    pub scores: Vec<(u32, f32)>,
    /// What the shadow answered, if it was asked before this decision was told.
    pub shadow: Option<A>,
}

/// Which policy decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRef {
    /// What it decides.
    pub kind: PolicyKind,
    /// As its loader called it.
    pub name: Arc<str>,
    /// Of its module, in hex.
    pub sha256: Arc<str>,
    /// Counted for each kind.
    pub generation: u32,
    /// In which role it decided.
    pub role: Role,
}

/// What a policy is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It decides.
    Live,
    /// It decides for a share.
    Canary,
    /// It is asked and decides nothing.
    Shadow,
    /// It was live and can be put back.
    Kept,
}

/// Why what is built in decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fallback {
    /// The policy trapped.
    Trap,
    /// It computed for too long.
    Timeout,
    /// It asked for more memory than it may have.
    Memory,
    /// It answered what is no answer.
    Nonsense,
    /// It left the decision to what is built in.
    Declined,
    /// It had failed too often before.
    Suspended,
    /// It was right, but the node was taken meanwhile.
    Gone,
    /// It could not be started.
    Error,
}

impl<A> Decision<A> {
    /// There is nobody to ask.
    pub fn built_in() -> Self {
        Self { answer: None, by: None, fallback: None, scores: Vec::new(), shadow: None }
    }
}

impl Role {
    /// As operators call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Canary => "canary",
            Self::Shadow => "shadow",
            Self::Kept => "kept",
        }
    }
}

impl Fallback {
    /// Every cause.
    pub const ALL: [Self; 8] =
        [Self::Trap, Self::Timeout, Self::Memory, Self::Nonsense, Self::Declined, Self::Suspended, Self::Gone, Self::Error];

    /// As metrics and operators call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Nonsense => "nonsense",
            Self::Declined => "declined",
            Self::Suspended => "suspended",
            Self::Gone => "gone",
            Self::Error => "error",
        }
    }

    /// Whether the policy is to blame.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Trap | Self::Timeout | Self::Memory | Self::Nonsense | Self::Error)
    }
}

/// Nobody: what is built in decides.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPolicy;

impl<K: Kind> Policy<K> for NoPolicy {
    fn is_loaded(&self) -> bool {
        false
    }

    fn decide(&self, _: &Arc<K::Ask>) -> Decision<K::Answer> {
        Decision::built_in()
    }
}

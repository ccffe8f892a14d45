//! What is asked and answered, for each kind of policy.

use std::sync::Arc;

use llambo_inference::{ModelName, TypeName};

use crate::{Candidate, Kind, MAX_TIER, NodeKind, Nodes, PolicyKind, RequestFacts, policy::MAX_RETRY_AFTER_MS};

/// Which node serves a request.
#[derive(Clone, Copy, Debug)]
pub enum Balancing {}

/// The question of [`Balancing`]; its answer is a node's number.
#[derive(Clone, Debug)]
pub struct ChooseNode {
    /// For whom.
    pub request: RequestFacts,
    /// At most [`MAX_CANDIDATES`]; the first is the built-in strategy's choice.
    pub candidates: Vec<Candidate>,
    /// What their kinds are.
    pub kinds: Arc<Vec<NodeKind>>,
    /// The nodes themselves.
    pub nodes: Arc<dyn Nodes>,
    /// Uniformly random.
    pub entropy: u64,
}

impl Kind for Balancing {
    const KIND: PolicyKind = PolicyKind::Balancer;
    type Ask = ChooseNode;
    type Answer = u64;

    fn request(ask: &Self::Ask) -> Option<&RequestFacts> {
        Some(&ask.request)
    }

    // a policy that keeps count itself may name any node; whether that can take the request is seen when it does
    fn check(_: &Self::Ask, _: &Self::Answer) -> Result<(), String> {
        Ok(())
    }

    fn is_built_in(ask: &Self::Ask, answer: &Self::Answer) -> bool {
        ask.candidates.first().is_some_and(|first| first.node == *answer)
    }
}

/// Whether a request is let in.
#[derive(Clone, Copy, Debug)]
pub enum Admitting {}

/// The question of [`Admitting`].
#[derive(Clone, Debug, PartialEq)]
pub struct LetIn {
    /// Whom.
    pub request: RequestFacts,
    /// How busy the host is.
    pub load: HostLoad,
    /// What the tenant has been using.
    pub usage: TenantUsage,
}

/// How busy a host is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostLoad {
    /// Requests that nodes serve.
    pub in_flight: u32,
    /// How many may.
    pub max_in_flight: u32,
    /// Requests that wait.
    pub waiting: u32,
    /// How many may.
    pub max_waiting: u32,
    /// Nodes that could serve the request now.
    pub free_nodes: u32,
    /// When the next who is refused should come back.
    pub retry_after_ms: u32,
}

/// What a tenant has been using.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantUsage {
    /// Its requests that nodes serve.
    pub in_flight: u32,
    /// Its requests that wait.
    pub waiting: u32,
    /// Its requests of the last 60 s.
    pub requests_last_minute: u32,
    /// Prompt and answer tokens of its requests that ended in the last 60 s.
    pub tokens_last_minute: u64,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A node or a place in the queue.
    Admit,
    /// The same, behind everybody who was admitted.
    Queue,
    /// Nothing.
    Reject {
        /// When to come back.
        retry_after_ms: u32,
        /// For the client.
        reason: String,
    },
}

impl Kind for Admitting {
    const KIND: PolicyKind = PolicyKind::Admission;
    type Ask = LetIn;
    type Answer = Verdict;

    fn request(ask: &Self::Ask) -> Option<&RequestFacts> {
        Some(&ask.request)
    }

    fn check(_: &Self::Ask, answer: &Self::Answer) -> Result<(), String> {
        match answer {
            Verdict::Reject { retry_after_ms, .. } if *retry_after_ms > MAX_RETRY_AFTER_MS => {
                Err(format!("it rejects for {retry_after_ms} ms, and {MAX_RETRY_AFTER_MS} are the most"))
            }
            _ => Ok(()),
        }
    }

    fn is_built_in(_: &Self::Ask, answer: &Self::Answer) -> bool {
        *answer == Verdict::Admit
    }
}

/// How demanding a request is.
#[derive(Clone, Copy, Debug)]
pub enum Classifying {}

/// The question of [`Classifying`]; its answer is a tier.
#[derive(Clone, Debug, PartialEq)]
pub struct Classify {
    /// Which.
    pub request: RequestFacts,
    /// What was counted in its text.
    pub features: TextFeatures,
}

/// What was counted in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextFeatures {
    /// Separated by white space.
    pub words: u32,
    /// Lines of text.
    pub lines: u32,
    /// Lines within fences.
    pub code_lines: u32,
    /// Question marks.
    pub question_marks: u32,
    /// Digits.
    pub digits: u32,
    /// Characters of the longest word.
    pub longest_word: u32,
}

impl Kind for Classifying {
    const KIND: PolicyKind = PolicyKind::Classifier;
    type Ask = Classify;
    type Answer = u8;

    fn request(ask: &Self::Ask) -> Option<&RequestFacts> {
        Some(&ask.request)
    }

    fn check(_: &Self::Ask, answer: &Self::Answer) -> Result<(), String> {
        if *answer <= MAX_TIER { Ok(()) } else { Err(format!("it answered tier {answer}, and {MAX_TIER} is the highest")) }
    }
}

/// How many nodes a type has.
#[derive(Clone, Copy, Debug)]
pub enum Scaling {}

/// The question of [`Scaling`].
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleType {
    /// Which type.
    pub node_type: TypeName,
    /// What it serves.
    pub model: ModelName,
    /// Nodes now.
    pub nodes: u32,
    /// What the configuration allows.
    pub min_nodes: u32,
    /// What the configuration allows.
    pub max_nodes: u32,
    /// Requests that its nodes serve.
    pub in_flight: u32,
    /// Requests that its nodes can serve at once.
    pub capacity: u32,
    /// Requests that wait for its nodes.
    pub waiting: u32,
    /// Requests ended per second.
    pub requests_per_second: f32,
    /// Since a policy last changed the number.
    pub since_change_ms: Option<u64>,
    /// Milliseconds since the host started.
    pub now_ms: u64,
}

/// A change of a type's number of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleChange {
    /// To add, or to take away.
    pub by: i32,
    /// For operators.
    pub reason: String,
}

impl ScaleChange {
    /// Leaves a type as it is.
    pub fn none() -> Self {
        Self { by: 0, reason: String::new() }
    }
}

impl Kind for Scaling {
    const KIND: PolicyKind = PolicyKind::Scaler;
    type Ask = ScaleType;
    type Answer = ScaleChange;

    fn request(_: &Self::Ask) -> Option<&RequestFacts> {
        None
    }

    fn check(_: &Self::Ask, _: &Self::Answer) -> Result<(), String> {
        Ok(())
    }

    fn is_built_in(_: &Self::Ask, answer: &Self::Answer) -> bool {
        answer.by == 0
    }
}

/// What several answers become.
#[derive(Clone, Copy, Debug)]
pub enum Fusing {}

/// The question of [`Fusing`].
#[derive(Clone, Debug, PartialEq)]
pub struct Fuse {
    /// What was asked.
    pub request: RequestFacts,
    /// Those that are there.
    pub answers: Vec<NodeAnswer>,
    /// How many are to come.
    pub outstanding: u32,
}

/// An answer of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeAnswer {
    /// Whose; 0 where it has no number.
    pub node: u64,
    /// What it says.
    pub text: String,
    /// Whether the model ended it by itself.
    pub complete: bool,
    /// Tokens of it.
    pub output_tokens: u32,
    /// From the request to its end.
    pub latency_us: f32,
}

/// One answer out of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fused {
    /// One of them.
    Pick(u32),
    /// Another text.
    Text(String),
}

impl Kind for Fusing {
    const KIND: PolicyKind = PolicyKind::Fusion;
    type Ask = Fuse;
    /// `None`: it waits for more.
    type Answer = Option<Fused>;

    fn request(ask: &Self::Ask) -> Option<&RequestFacts> {
        Some(&ask.request)
    }

    fn check(ask: &Self::Ask, answer: &Self::Answer) -> Result<(), String> {
        let n = ask.answers.len();
        match answer {
            Some(Fused::Pick(i)) if *i as usize >= n => Err(format!("it picked answer {i}, and there are {n}")),
            None if ask.outstanding == 0 => Err("it waits for more answers, and there are no more".into()),
            _ => Ok(()),
        }
    }
}

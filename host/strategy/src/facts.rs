//! What policies may know of requests and nodes.

use std::{fmt, sync::Arc};

use llambo_inference::{Labels, ModelName, NodeId, RequestId, TenantName, TypeName};

/// What is known of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestFacts {
    /// Identity.
    pub id: RequestId,
    /// The model asked.
    pub model: ModelName,
    /// The node type asked for, if one was.
    pub node_type: Option<TypeName>,
    /// Whose it is.
    pub tenant: TenantName,
    /// The tier that should serve it.
    pub tier: Option<u8>,
    /// What its client noted for policies.
    pub labels: Labels,
    /// UTF-8 bytes of everything it says.
    pub n_prompt_bytes: u32,
    /// Messages of its conversation; 0 for text.
    pub n_messages: u32,
    /// Tokens to generate at most.
    pub max_tokens: Option<u32>,
    /// Whether the answer must follow a schema or a grammar.
    pub constrained: bool,
    /// Milliseconds until its deadline.
    pub deadline_ms: Option<u32>,
    /// Nodes that failed it.
    pub n_failed: u32,
    /// Milliseconds since the host started.
    pub now_ms: u64,
    /// Everything it says, where that was granted.
    pub prompt: Option<Arc<str>>,
    /// Whether somebody will read why.
    pub explain: bool,
}

impl RequestFacts {
    /// A text of which nothing else is known.
    pub fn new(id: RequestId, model: ModelName, tenant: TenantName) -> Self {
        Self {
            id,
            model,
            node_type: None,
            tenant,
            tier: None,
            labels: Labels::default(),
            n_prompt_bytes: 0,
            n_messages: 0,
            max_tokens: None,
            constrained: false,
            deadline_ms: None,
            n_failed: 0,
            now_ms: 0,
            prompt: None,
            explain: false,
        }
    }
}

/// What nodes of a type have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeKind {
    /// Node type.
    pub node_type: TypeName,
    /// Model it serves.
    pub model: ModelName,
    /// Whose isolates these are.
    pub tenant: TenantName,
    /// 0 to [`MAX_TIER`].
    pub tier: u8,
    /// Their share under weighted strategies.
    pub weight: f32,
    /// As configured.
    pub labels: Labels,
}

/// A node that can take a request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Candidate {
    /// Its number, which is never another's.
    pub node: u64,
    /// Place in [`ChooseNode::kinds`].
    pub kind: u32,
    /// Requests it serves.
    pub in_flight: u32,
    /// Requests it can serve at once.
    pub capacity: u32,
    /// Share under weighted strategies.
    pub weight: f32,
    /// Time to its first token, averaged; 0 before the first.
    pub ttft_us: f32,
    /// Time of whole requests, averaged.
    pub latency_us: f32,
    /// Share of requests that it failed.
    pub failures: f32,
    /// Bytes from the beginning of the prompt that it has probably computed.
    pub cached_bytes: u32,
    /// 0 to [`MAX_TIER`].
    pub tier: u8,
}

/// The nodes behind the candidates. May take a lock that decisions are not taken under.
pub trait Nodes: Send + Sync + fmt::Debug {
    /// The name of the node of that number, while it is there.
    fn name(&self, node: u64) -> Option<NodeId>;

    /// What changed since the change of that number, each node once, and the number of the last change. With `None`, or a number that
    /// is too long ago, every node that is open, and `true`.
    fn changes_since(&self, change: Option<u64>) -> (Vec<NodeChange>, u64, bool);
}

/// What happened to a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NodeChange {
    /// It takes requests.
    Open(Candidate),
    /// It takes none.
    Closed(u64),
}

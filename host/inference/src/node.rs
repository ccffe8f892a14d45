use std::{future::Future, pin::Pin};

use crate::{AnswerStream, GenerateRequest, InferenceError, ModelName, NodeId, TenantName, TypeName};

/// A place that serves generations: an isolate of this host or a remote host.
pub trait Node: Send + Sync + 'static {
    /// What it is and how it does now. Cheap: called for listings and when its state changes.
    fn view(&self) -> NodeView;

    /// Starts a generation. Cancel by dropping the future or the stream.
    ///
    /// # Errors
    /// Anything with [`crate::Fault::Node`] means that nothing was generated and another node may be tried.
    fn generate(&self, request: GenerateRequest) -> GenerateFuture<'_>;

    /// Puts it aside on disk while no request is at it; its next one wakes it. Answers how many bytes that took, 0 if it was aside already.
    ///
    /// # Errors
    /// It is busy, or cannot be put aside: it is as it was.
    fn hibernate(&self) -> MoveFuture<'_> {
        Box::pin(async { Err(InferenceError::InvalidRequest("only isolates of this host are hibernated".into())) })
    }

    /// Wakes it without a request. Answers how many bytes were read, 0 if it was awake already.
    ///
    /// # Errors
    /// It is busy; or what was put aside cannot be used, and the node has failed.
    fn wake(&self) -> MoveFuture<'_> {
        Box::pin(async { Ok(0) })
    }

    /// Ends it: no new request is taken, and what it holds is released once the running one is done.
    fn stop(&self);
}

/// The start of a generation.
pub type GenerateFuture<'a> = Pin<Box<dyn Future<Output = Result<AnswerStream, InferenceError>> + Send + 'a>>;

/// A node on its way to disk or back.
pub type MoveFuture<'a> = Pin<Box<dyn Future<Output = Result<u64, InferenceError>> + Send + 'a>>;

/// A node as listings and strategies see it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// Identity.
    pub id: NodeId,
    /// Node type of the configuration.
    pub node_type: TypeName,
    /// Model it serves.
    pub model: ModelName,
    /// Where it is in its life.
    pub state: NodeState,
    /// Requests it can serve at once.
    pub capacity: u32,
    /// Share of requests under `weighted-random`, relative to others; above 0.
    pub weight: f64,
    /// Requests finished, well or badly.
    pub served: u64,
    /// Times its guest was replaced: after a trap, an exhausted budget or a deadline, or because its client went away.
    pub replaced: u64,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// What it is to those who choose.
    pub traits: NodeTraits,
}

/// What distinguishes a node's kind from others, for strategies and policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTraits {
    /// Whose it is.
    pub tenant: TenantName,
    /// Capability class, higher is stronger; 0 to 2.
    pub tier: u8,
    /// Notes for policies.
    pub labels: Labels,
    /// Whether what it computes of a prompt is there for all nodes of its model that say so too: isolates of one host share an engine.
    pub shares_cache: bool,
}

/// Keys and values.
pub type Labels = std::sync::Arc<[(String, String)]>;

impl Default for NodeTraits {
    fn default() -> Self {
        Self { tenant: "default".into(), tier: 0, labels: Labels::default(), shares_cache: false }
    }
}

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Being made.
    Starting,
    /// Waiting for a request.
    Ready,
    /// Serving as many requests as it can.
    Busy,
    /// Put aside; woken by its next request.
    Hibernated,
    /// Finishing what it has, taking nothing new.
    Draining,
    /// Gone by request.
    Stopped,
    /// Could not be made or replaced.
    Failed,
}

impl NodeState {
    /// Every state, in order of a node's life.
    pub const ALL: [Self; 7] =
        [Self::Starting, Self::Ready, Self::Busy, Self::Hibernated, Self::Draining, Self::Stopped, Self::Failed];

    /// Lower-case name, as shown to people and used as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Busy => "busy",
            Self::Hibernated => "hibernated",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

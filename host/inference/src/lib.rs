//! The vocabulary of llambo: what is asked, what comes back, how it fails.
//!
//! Every other room speaks in these types. A leaf: no runtime, no I/O, no serialization, no clock of its own (deadlines
//! are [`Instant`]s that callers made).

mod answer;
mod branch;
mod engine;
mod error;
mod event;
pub mod fake;
mod hook;
mod ids;
mod journal;
mod node;
mod request;
mod sampling;
pub mod trace;

pub use answer::{AnswerEvent, AnswerStream, FinishReason, Finished, Usage};
pub use branch::{Distribution, ExtendRequest, Logged, Mask, MeasureFuture, MeasureRequest, Measured, TokenId, TokenLog};
pub use engine::{EmbedFuture, Embedding, EngineLoad, ExportFuture, ImportFuture, InferenceEngine, KeptState, ModelInfo, Models};
pub use error::{Fault, InferenceError, shortened};
pub use event::{ClusterEvent, EventKind, Witness};
pub use hook::{Generation, LikelyToken, TokenHook, TokenHooks, TokenVerdict};
pub use ids::{ModelName, NodeId, RequestId, TenantName, TypeName};
pub use journal::{Journal, JournalEntry};
pub use node::{GenerateFuture, Labels, MoveFuture, Node, NodeState, NodeTraits, NodeView};
pub use request::{GenerateRequest, Message, Priority, Prompt, Role, Routing, Share};
pub use sampling::{Constraint, LogitBias, Sampling, SamplingError, SamplingOptions};
pub use std::time::Instant;
pub use trace::{Part, TraceContext};

//! The vocabulary of llambo: what is asked, what comes back, how it fails.
//!
//! Every other room speaks in these types. A leaf: no runtime, no I/O, no serialization, no clock of its own (deadlines
//! are [`Instant`]s that callers made).

mod answer;
mod branch;
mod engine;
mod error;
pub mod fake;
mod ids;
mod node;
mod request;
mod sampling;

pub use answer::{Answer, AnswerEvent, AnswerStream, FinishReason, Finished, Usage};
pub use branch::{Distribution, ExtendRequest, Logged, Mask, MeasureFuture, MeasureRequest, Measured, TokenId, TokenLog};
pub use engine::{EmbedFuture, Embedding, EngineLoad, ExportFuture, ImportFuture, InferenceEngine, KeptState, ModelInfo, Models};
pub use error::{Fault, InferenceError, shortened};
pub use ids::{ModelName, NodeId, RequestId, TenantName, TypeName};
pub use node::{GenerateFuture, MoveFuture, Node, NodeState, NodeView};
pub use request::{GenerateRequest, Message, Prompt, Role, Share};
pub use sampling::{Constraint, LogitBias, Sampling, SamplingError, SamplingOptions};
pub use std::time::Instant;

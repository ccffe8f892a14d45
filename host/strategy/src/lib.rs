//! Which node a request goes to: the decision alone.
//!
//! A [`Balancer`] sees the eligible nodes through [`Candidates`], a read-only index that the orchestrator keeps, and answers
//! with one [`Slot`]. It has no clock, draws no random numbers (its entropy is an argument, so every choice can be replayed)
//! and never touches a node. Built-in strategies choose exactly, over all eligible nodes, at a cost that does not depend on
//! how many there are.

mod affinity;
mod autoscale;
mod balancer;
mod candidates;
mod complexity;
mod desk;
pub mod entropy;
mod facts;
mod features;
mod figures;
mod fusion;
mod kinds;
pub mod labelled;
mod names;
mod policy;
pub mod replay;

pub use affinity::CognitiveAffinity;
pub use autoscale::{Held, ScaleDecision, ScaleLoad, ScaleMemory, ScaleRules, ScaleWhy};
pub use balancer::{Balancer, LeastLoaded, PowerOfTwo, Random, RoundRobin, WeightedRandom};
pub use candidates::{Cached, Candidates, LoadView, RequestView, Slot};
pub use complexity::{Complexity, Signals, ToJudge};
pub use desk::{LoadedPolicy, NewPolicy, NoDesk, Place, PolicyDesk, PolicyError, PolicyKind, PolicyStatus, Source};
pub use facts::{Candidate, NodeChange, NodeKind, Nodes, RequestFacts};
pub use figures::{percentile, weight_steps};
pub use fusion::Majority;
pub use kinds::{
    Admitting, Balancing, ChooseNode, Classify, Classifying, Fuse, Fused, Fusing, HostLoad, LetIn, NodeAnswer, ScaleChange,
    ScaleType, Scaling, TenantUsage, TextFeatures, Verdict,
};
pub use llambo_inference::Labels;
pub use names::{NAMES, UnknownStrategy, by_name};
pub use policy::{Decision, Fallback, Kind, MAX_CANDIDATES, MAX_TIER, NoPolicy, Policy, PolicyRef, Role};

#[cfg(test)]
mod tests;

//! Which node a request goes to: the decision alone.
//!
//! A [`Balancer`] sees the eligible nodes through [`Candidates`], a read-only index that the orchestrator keeps, and answers
//! with one [`Slot`]. It has no clock, draws no random numbers (its entropy is an argument, so every choice can be replayed)
//! and never touches a node. Built-in strategies choose exactly, over all eligible nodes, at a cost that does not depend on
//! how many there are.

mod balancer;
mod candidates;
pub mod entropy;
mod names;

pub use balancer::{Balancer, LeastLoaded, PowerOfTwo, Random, RoundRobin, WeightedRandom};
pub use candidates::{Candidates, LoadView, RequestView, Slot};
pub use names::{NAMES, UnknownStrategy, by_name};

#[cfg(test)]
mod tests;

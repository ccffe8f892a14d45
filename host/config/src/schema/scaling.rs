//! How many isolates a type has while the host runs.

use std::time::Duration;

/// What a type's number of isolates follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// The fewest.
    pub min: u32,
    /// The most, at least 1 and not below `min`.
    pub max: u32,
    /// Requests in flight and waiting for each that its isolates can serve at once: what it is brought to.
    pub target_load: f64,
    /// Load above which isolates are added; not below `target_load`.
    pub up_at: f64,
    /// Load below which isolates are taken away; not above `target_load`.
    pub down_at: f64,
    /// After a change, for how long none are added.
    pub up_cool_down: Duration,
    /// After a change, for how long none are taken away.
    pub down_cool_down: Duration,
    /// Isolates added at a time at most; `None`: as many as it takes.
    pub up_step: Option<u32>,
    /// Isolates taken away at a time at most; `None`: as many as it takes.
    pub down_step: Option<u32>,
    /// What load is averaged over.
    pub window: Duration,
    /// With a `min` of 0: time without a request after which the last isolates go.
    pub idle_to_zero: Duration,
}

//! Who serves a request, and who waits.

use std::time::Duration;

/// How a node is chosen for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balancing {
    /// The strategy at the start; it can be switched later.
    pub strategy: Strategy,
    /// Nodes tried for one request, at least 1, before it fails without having got on.
    pub attempts: u32,
    /// How long a node may say nothing before another one goes on with its request; `None`: as long as it likes.
    pub stall_timeout: Option<Duration>,
    /// Who says how demanding a request is, where there is no classifier policy.
    pub classifier: Classifier,
}

/// Who says which tier a request should have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Classifier {
    /// What its text looks like, where types of different tiers serve its model.
    #[default]
    Heuristic,
    /// Nobody.
    Off,
}

/// Built-in balancing strategies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Each in turn.
    RoundRobin,
    /// The fewest requests in flight.
    #[default]
    LeastLoaded,
    /// Another name for [`Self::LeastLoaded`].
    LeastConnections,
    /// Any, evenly.
    Random,
    /// Any, in proportion to the weights of the types.
    WeightedRandom,
    /// The less loaded of two taken at random.
    PowerOfTwo,
    /// The one with the longest beginning of the prompt, unless it is busy.
    CognitiveAffinity,
    /// Another name for [`Self::CognitiveAffinity`].
    CacheAware,
}

/// Requests that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Requests that wait for a node at most; beyond that they are refused. 0: nothing waits.
    pub max_waiting: u32,
    /// Requests served at once by the whole host at most.
    pub max_in_flight: u32,
    /// How long one waits before it is refused.
    pub max_wait: Duration,
}

use crate::{Candidate, Candidates, RequestView, Slot, entropy};

/// Chooses the node that serves a request.
///
/// Called under the lock of the index, so it must be quick and must not block. What it needs to remember between calls it
/// takes from the index ([`Candidates::last`]).
pub trait Balancer: Send + Sync {
    /// The name it is configured by.
    fn name(&self) -> &'static str;

    /// One of `candidates`; `None` exactly when there is none. `entropy` is 64 uniformly random bits.
    ///
    /// The caller checks the answer: a slot that is no candidate is replaced by the next that is, and counted.
    fn pick(&self, candidates: &dyn Candidates, request: &RequestView<'_>, entropy: u64) -> Option<Slot>;

    /// What it compares nodes by, for people who ask why; `None`: nothing of theirs.
    fn score(&self, _candidate: &Candidate) -> Option<f64> {
        None
    }

    /// Whether it looks at [`RequestView::cached`]: otherwise nobody needs to remember prompts.
    fn wants_cached(&self) -> bool {
        false
    }
}

/// Each in turn, in order of slots.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin;

/// The one with the fewest requests in flight; equals in turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastLoaded;

/// Any, with equal chances.
#[derive(Clone, Copy, Debug, Default)]
pub struct Random;

/// Any, with chances in proportion to weight.
#[derive(Clone, Copy, Debug, Default)]
pub struct WeightedRandom;

/// The less loaded of two that are drawn at random (Mitzenmacher 2001); the first drawn when they are equal.
#[derive(Clone, Copy, Debug, Default)]
pub struct PowerOfTwo;

impl Balancer for RoundRobin {
    fn name(&self) -> &'static str {
        "round-robin"
    }

    fn pick(&self, candidates: &dyn Candidates, _: &RequestView<'_>, _: u64) -> Option<Slot> {
        candidates.next_after(candidates.last())
    }
}

impl Balancer for LeastLoaded {
    fn name(&self) -> &'static str {
        "least-loaded"
    }

    fn pick(&self, candidates: &dyn Candidates, _: &RequestView<'_>, _: u64) -> Option<Slot> {
        candidates.least_loaded(candidates.last())
    }

    fn score(&self, candidate: &Candidate) -> Option<f64> {
        Some(candidate.in_flight.into())
    }
}

impl Balancer for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn pick(&self, candidates: &dyn Candidates, _: &RequestView<'_>, entropy: u64) -> Option<Slot> {
        candidates.nth(index(entropy::below(entropy, candidates.len() as u64)))
    }
}

impl Balancer for WeightedRandom {
    fn name(&self) -> &'static str {
        "weighted-random"
    }

    fn pick(&self, candidates: &dyn Candidates, _: &RequestView<'_>, entropy: u64) -> Option<Slot> {
        candidates.by_weight(entropy)
    }

    fn score(&self, candidate: &Candidate) -> Option<f64> {
        Some(candidate.weight.into())
    }
}

impl Balancer for PowerOfTwo {
    fn name(&self) -> &'static str {
        "power-of-two"
    }

    fn pick(&self, candidates: &dyn Candidates, _: &RequestView<'_>, entropy: u64) -> Option<Slot> {
        let n = candidates.len() as u64;
        let (first, rest) = entropy::draw(entropy, n);
        let one = candidates.nth(index(first))?;
        if n == 1 {
            return Some(one);
        }
        // the second comes from the n - 1 others: drawing the same one twice would be no choice at all
        let second = entropy::below(rest, n - 1);
        let other = candidates.nth(index(second + u64::from(second >= first)))?;
        let lighter = candidates.load(other).in_flight < candidates.load(one).in_flight;
        Some(if lighter { other } else { one })
    }

    fn score(&self, candidate: &Candidate) -> Option<f64> {
        Some(candidate.in_flight.into())
    }
}

fn index(choice: u64) -> usize {
    usize::try_from(choice).expect("below the number of candidates, which is a usize")
}

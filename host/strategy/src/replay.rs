//! What another strategy or policy would have done with requests that were recorded.
//!
//! The requests come again in order of time. Whoever decides now is shown the candidates of then, with the requests in flight corrected by those
//! that are elsewhere by now: minus what was there when it was recorded, plus what would be. A request takes as long as it did, plus or minus what the
//! requests beside it cost, by a straight line through the recorded times.
//!
//! What is not known stays as it was recorded: nodes that were full are no candidates, and what moved requests would have left in caches, and in averages of
//! latency, is not in what is shown.

mod latency;
mod outcome;
mod shown;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    sync::Arc,
    time::Duration,
};

use llambo_inference::RequestId;

use crate::{Candidate, ChooseNode, Fallback, percentile};

use latency::Latency;
use outcome::Tally;

pub use outcome::Outcome;
pub use shown::built_in_decider;

/// Differences that are told one by one.
const MAX_DIFFERENCES: usize = 20;

/// Recorded requests, to be decided again.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    decided: BTreeMap<u64, Decided>,
    ended: HashMap<u64, Ended>,
}

/// A node was chosen for a request.
#[derive(Clone, Debug)]
pub struct Decided {
    /// Its number, which its end has too and no other.
    pub number: u64,
    /// Microseconds since the host started.
    pub at_us: u64,
    /// What it was chosen from.
    pub ask: Arc<ChooseNode>,
    /// Its place in the candidates.
    pub chosen: u32,
}

/// A request has left its node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ended {
    /// Microseconds that it was there. What is no time, such as a negative one, counts as not known.
    pub latency_us: f64,
    /// How.
    pub how: End,
}

/// How a request left its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was answered.
    Finished,
    /// It failed, or was given up: how long that took says nothing about others.
    Broken,
}

/// The node that was decided on, why there is none, and how long that took.
pub type Again = (Option<u64>, Option<Fallback>, Duration);

/// What became of the requests, and what would have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replayed {
    /// Requests that were decided again.
    pub decisions: u64,
    /// Those of them that would have been elsewhere.
    pub different: u64,
    /// Those that had more than one candidate.
    pub with_choice: u64,
    /// As it was.
    pub recorded: Outcome,
    /// As it would have been.
    pub replayed: Outcome,
    /// Decisions that were left to what is built in, which is the first candidate.
    pub fallbacks: BTreeMap<Fallback, u64>,
    /// Time to decide, in nanoseconds.
    pub call_p50_ns: f64,
    /// The same, 99th percentile.
    pub call_p99_ns: f64,
    /// The first 20.
    pub differences: Vec<Difference>,
    /// What a request takes on an idle node, in microseconds, by the line through those that finished; 0 if none did.
    pub idle_latency_us: f64,
    /// What each other request there adds.
    pub added_latency_us: f64,
}

/// A request that would have been elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// As recorded.
    pub number: u64,
    /// Which.
    pub request: RequestId,
    /// The name of the node that had it; where that is not known, its number.
    pub recorded: String,
    /// The name of the one that would have had it.
    pub replayed: String,
}

/// A record is no record of a decision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The chosen candidate is not there.
    #[error("decision {number} chose candidate {chosen}, but it has only {n_candidates}, counted from 0")]
    NoSuchCandidate {
        /// Of the decision.
        number: u64,
        /// What was chosen.
        chosen: u32,
        /// How many there are.
        n_candidates: usize,
    },
    /// A candidate's kind is not there.
    #[error("decision {number} has a candidate of kind {kind}, but only {n_kinds} kinds, counted from 0")]
    NoSuchKind {
        /// Of the decision.
        number: u64,
        /// Of the candidate.
        kind: u32,
        /// How many there are.
        n_kinds: usize,
    },
    /// A number was recorded before.
    #[error("decision {number} is recorded twice; replay one host's record at a time")]
    Twice {
        /// Of the decision.
        number: u64,
    },
}

/// By how many requests nodes differ from what was recorded.
#[derive(Default)]
struct Shift {
    by_node: HashMap<u64, i64>,
    /// What is added to which node when.
    later: BinaryHeap<Reverse<(u64, u64, i64)>>,
}

// === impl Replay ===

impl Replay {
    /// Adds a decision, in any order.
    ///
    /// # Errors
    /// [`ReplayError`]; it was not added.
    pub fn decided(&mut self, decided: Decided) -> Result<(), ReplayError> {
        let (number, ask) = (decided.number, &decided.ask);
        let n_candidates = ask.candidates.len();
        if decided.chosen as usize >= n_candidates {
            return Err(ReplayError::NoSuchCandidate { number, chosen: decided.chosen, n_candidates });
        }
        if let Some(odd) = ask.candidates.iter().find(|candidate| candidate.kind as usize >= ask.kinds.len()) {
            return Err(ReplayError::NoSuchKind { number, kind: odd.kind, n_kinds: ask.kinds.len() });
        }
        if self.decided.contains_key(&number) {
            return Err(ReplayError::Twice { number });
        }
        self.decided.insert(number, decided);
        Ok(())
    }

    /// Adds the end of a request. One whose decision was not recorded changes nothing.
    pub fn ended(&mut self, number: u64, ended: Ended) {
        if ended.latency_us.is_finite() && ended.latency_us >= 0.0 {
            self.ended.insert(number, ended);
        }
    }

    /// Lets `again` decide all of it. A node that is no candidate counts as [`Fallback::Gone`]: whether it could have taken the request is not recorded.
    ///
    /// A request whose end was not recorded takes as long as the line says; without any recorded end, no time at all. Those that did not finish
    /// keep their nodes busy, and are left out of latencies.
    pub fn run(&self, again: &mut dyn FnMut(&Arc<ChooseNode>) -> Again) -> Replayed {
        let latency = Latency::through(self.decided.values().filter_map(|decided| {
            let ended = self.ended.get(&decided.number).filter(|ended| ended.how == End::Finished)?;
            Some((decided.candidate().in_flight.into(), ended.latency_us))
        }));
        let mut in_order: Vec<_> = self.decided.values().collect();
        // stable: those of one moment stay in order of their numbers
        in_order.sort_by_key(|decided| decided.at_us);
        let (mut recorded, mut replayed, mut shift) = (Tally::default(), Tally::default(), Shift::default());
        let (mut result, mut times_ns) = (Replayed::default(), Vec::with_capacity(in_order.len()));
        for decided in in_order {
            shift.advance(decided.at_us);
            let ask = shift.ask(&decided.ask);
            let (answer, fallback, took) = again(&ask);
            times_ns.push(took.as_secs_f64() * 1e9);
            let chosen = answer.and_then(|node| ask.candidates.iter().find(|candidate| candidate.node == node));
            if chosen.is_none() {
                let why = if answer.is_some() { Fallback::Gone } else { fallback.unwrap_or(Fallback::Declined) };
                *result.fallbacks.entry(why).or_default() += 1;
            }
            let (was, is) = (decided.candidate(), chosen.unwrap_or(&ask.candidates[0]));
            let ended = self.ended.get(&decided.number);
            let took_us = ended.map_or_else(|| latency.with(was.in_flight), |ended| ended.latency_us);
            let takes_us = latency.moved(took_us, was.in_flight, is.in_flight);
            if (was.node, was.in_flight) != (is.node, is.in_flight) {
                shift.add(was.node, -1, after(decided.at_us, took_us));
                shift.add(is.node, 1, after(decided.at_us, takes_us));
            }
            let counts = ended.is_none_or(|ended| ended.how == End::Finished);
            recorded.add(&decided.ask, was, counts.then_some(took_us));
            replayed.add(&decided.ask, is, counts.then_some(takes_us));
            result.with_choice += u64::from(decided.ask.candidates.len() > 1);
            if was.node != is.node {
                result.different += 1;
                if result.differences.len() < MAX_DIFFERENCES {
                    result.differences.push(decided.difference(is));
                }
            }
        }
        Replayed {
            decisions: self.decided.len() as u64,
            recorded: recorded.outcome(),
            replayed: replayed.outcome(),
            call_p50_ns: percentile(&mut times_ns, 0.50),
            call_p99_ns: percentile(&mut times_ns, 0.99),
            idle_latency_us: latency.idle_us,
            added_latency_us: latency.added_us,
            ..result
        }
    }
}

fn after(at_us: u64, took_us: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; a time is not negative")]
    let took_us = took_us as u64;
    at_us.saturating_add(took_us)
}

// === impl Decided ===

impl Decided {
    fn candidate(&self) -> &Candidate {
        &self.ask.candidates[self.chosen as usize]
    }

    fn difference(&self, replayed: &Candidate) -> Difference {
        let name = |node: u64| self.ask.nodes.name(node).map_or_else(|| node.to_string(), |id| id.to_string());
        let request = self.ask.request.id.clone();
        Difference { number: self.number, request, recorded: name(self.candidate().node), replayed: name(replayed.node) }
    }
}

// === impl Shift ===

impl Shift {
    fn advance(&mut self, now_us: u64) {
        while let Some(&Reverse((at_us, node, change))) = self.later.peek()
            && at_us <= now_us
        {
            self.later.pop();
            *self.by_node.entry(node).or_default() += change;
        }
    }

    /// Until then.
    fn add(&mut self, node: u64, change: i64, until_us: u64) {
        *self.by_node.entry(node).or_default() += change;
        self.later.push(Reverse((until_us, node, -change)));
    }

    fn of(&self, candidate: &Candidate) -> i64 {
        self.by_node.get(&candidate.node).copied().unwrap_or_default()
    }

    /// The question as it would have been. Nodes that moved requests have filled are left out, unless these are all.
    fn ask(&self, ask: &Arc<ChooseNode>) -> Arc<ChooseNode> {
        if ask.candidates.iter().all(|candidate| self.of(candidate) == 0) {
            return Arc::clone(ask);
        }
        let shifted = ask.candidates.iter().map(|candidate| {
            let in_flight = (i64::from(candidate.in_flight) + self.of(candidate)).max(0);
            Candidate { in_flight: u32::try_from(in_flight).unwrap_or(u32::MAX), ..*candidate }
        });
        let (free, full): (Vec<_>, Vec<_>) =
            shifted.partition(|candidate| candidate.in_flight < candidate.capacity || self.of(candidate) <= 0);
        let candidates = if free.is_empty() { full } else { free };
        Arc::new(ChooseNode { candidates, ..ChooseNode::clone(ask) })
    }
}

#[cfg(test)]
mod tests;

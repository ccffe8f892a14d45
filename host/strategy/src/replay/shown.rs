//! A built-in strategy over the candidates of a question, in the place of the index it knows.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use llambo_inference::{Instant, ModelName, TypeName};

use super::Again;
use crate::{Balancer, Cached, Candidate, Candidates, ChooseNode, LoadView, RequestView, Slot, entropy, weight_steps};

/// Homes that a strategy is shown.
const MAX_CACHED: usize = 8;

/// Candidates in order of node numbers, in the place of slots.
struct Shown<'a> {
    candidates: Vec<&'a Candidate>,
    last: Option<Slot>,
}

/// Lets a built-in strategy decide what [`super::Replay`] asks. It is shown the recorded candidates as if there were no other nodes.
///
/// Turns go in order of node numbers, for each model and node type that is asked, and begin with the first candidate of the first question: where a host
/// had got to before is not recorded. `random` and `power-of-two` draw again, and from candidates in another order.
pub fn built_in_decider(balancer: Arc<dyn Balancer>) -> impl FnMut(&Arc<ChooseNode>) -> Again {
    let mut last = HashMap::<(ModelName, Option<TypeName>), u64>::new();
    move |ask| {
        let scope = (ask.request.model.clone(), ask.request.node_type.clone());
        let shown = Shown::of(ask, last.get(&scope).copied());
        let cached = shown.cached(ask);
        let request = RequestView {
            model: &ask.request.model,
            node_type: ask.request.node_type.as_ref(),
            n_prompt_bytes: ask.request.n_prompt_bytes as usize,
            cached: &cached,
        };
        let started = Instant::now();
        let slot = balancer.pick(&shown, &request, ask.entropy);
        let took = started.elapsed();
        let chosen = slot.and_then(|slot| shown.at(slot));
        if let Some(chosen) = chosen {
            last.insert(scope, chosen.node);
        }
        (chosen.map(|chosen| chosen.node), None, took)
    }
}

impl<'a> Shown<'a> {
    fn of(ask: &'a ChooseNode, last: Option<u64>) -> Self {
        let mut candidates: Vec<_> = ask.candidates.iter().collect();
        candidates.sort_by_key(|candidate| candidate.node);
        let before = |node: u64| candidates.partition_point(|candidate| candidate.node < node);
        let last = match (last, ask.candidates.first()) {
            (Some(last), _) => before(last.saturating_add(1)).checked_sub(1),
            (None, Some(first)) => Some(before(first.node).checked_sub(1).unwrap_or(candidates.len() - 1)),
            (None, None) => None,
        };
        Self { last: last.map(slot_at), candidates }
    }

    /// The longest first; among equals those that the question names first.
    fn cached(&self, ask: &ChooseNode) -> Vec<Cached> {
        let having = ask.candidates.iter().filter(|candidate| candidate.cached_bytes > 0);
        let mut cached: Vec<_> = having
            .map(|candidate| Cached {
                slot: slot_at(self.candidates.partition_point(|other| other.node < candidate.node)),
                n_bytes: candidate.cached_bytes,
            })
            .collect();
        cached.sort_by_key(|cached| Reverse(cached.n_bytes));
        cached.truncate(MAX_CACHED);
        cached
    }

    fn at(&self, slot: Slot) -> Option<&'a Candidate> {
        self.candidates.get(slot.0 as usize).copied()
    }

    /// All of them, beginning behind `after`.
    fn in_turn(&self, after: Option<Slot>) -> impl Iterator<Item = Slot> {
        let n = self.candidates.len();
        let start = after.map_or(0, |after| after.0 as usize + 1).min(n);
        (start..n).chain(0..start).map(slot_at)
    }
}

impl Candidates for Shown<'_> {
    fn len(&self) -> usize {
        self.candidates.len()
    }

    fn nth(&self, i: usize) -> Option<Slot> {
        (i < self.candidates.len()).then(|| slot_at(i))
    }

    fn next_after(&self, slot: Option<Slot>) -> Option<Slot> {
        self.in_turn(slot).next()
    }

    fn least_loaded(&self, after: Option<Slot>) -> Option<Slot> {
        self.in_turn(after).min_by_key(|slot| self.load(*slot).in_flight)
    }

    fn by_weight(&self, fraction: u64) -> Option<Slot> {
        let total: u64 = self.candidates.iter().map(|candidate| weight_steps(candidate.weight.into())).sum();
        let mut point = entropy::below(fraction, total);
        let covers = |candidate: &&Candidate| {
            let weight = weight_steps(candidate.weight.into());
            let covers = point < weight;
            point = point.saturating_sub(weight);
            covers
        };
        self.candidates.iter().position(covers).map(slot_at)
    }

    fn contains(&self, slot: Slot) -> bool {
        self.at(slot).is_some()
    }

    fn load(&self, slot: Slot) -> LoadView {
        let load = self.at(slot).map(|candidate| LoadView {
            in_flight: candidate.in_flight,
            capacity: candidate.capacity,
            weight: candidate.weight.into(),
            ttft_us: candidate.ttft_us,
        });
        load.unwrap_or_default()
    }

    fn last(&self) -> Option<Slot> {
        self.last
    }
}

fn slot_at(place: usize) -> Slot {
    Slot(u32::try_from(place).expect("as many candidates as a message can hold"))
}

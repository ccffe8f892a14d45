//! Properties of admission and of batches, over sequences in every state, without a model.

use std::collections::{HashMap, VecDeque};

use llambo_inference::{AnswerEvent, Instant, Sampling, Share};
use proptest::prelude::*;
use tokio::sync::{mpsc, oneshot};

use super::{
    admit::{self, QUANTUM_TOKENS},
    assemble::{self, Filler},
    fair::Accounts,
    slots::Slots,
};
use crate::{
    ffi::Batch,
    measure::Measuring,
    sampler::Sampler,
    sequence::{Beginning, Sequence, Task},
    stream,
};

/// How far a sequence is.
#[derive(Clone, Debug)]
enum State {
    Free,
    Prefill { n_prompt: usize, n_fed: usize, is_measured: bool },
    Decode { n_prompt: usize, n_generated: u32 },
    Paused,
    Ended,
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![
        3 => Just(State::Free),
        3 => (1usize..600, 0usize..600, any::<bool>()).prop_map(|(n_prompt, n_fed, is_measured)| State::Prefill {
            n_prompt,
            n_fed: n_fed % n_prompt,
            is_measured,
        }),
        4 => (1usize..50, 1u32..600).prop_map(|(n_prompt, n_generated)| State::Decode { n_prompt, n_generated }),
        1 => Just(State::Paused),
        1 => Just(State::Ended),
    ]
}

/// Keeps the readers: a sequence without one counts as cancelled.
#[derive(Default)]
struct House {
    readers: Vec<mpsc::Receiver<AnswerEvent>>,
    accounts: Accounts,
}

impl House {
    fn sequence(&mut self, share: Share, n_prompt: usize, is_measured: bool) -> Box<Sequence> {
        let task = if is_measured {
            Task::Measure(Measuring::new(1, 1, oneshot::channel().0))
        } else {
            Task::Generate {
                sampler: Sampler::new(&Sampling::greedy(1), 0, &[]),
                max_tokens: u32::MAX,
                ignore_end: true,
                constraint: None,
                stop: Vec::new(),
                log: None,
            }
        };
        let (events, reader) = stream::detached();
        self.readers.push(reader);
        self.accounts.enter(&share);
        let tokens = (0..).take(n_prompt).collect();
        Box::new(Sequence::new(
            Beginning { id: "test".into(), share, deadline: None, tokens, task, hook: None, trace: None },
            events,
        ))
    }

    fn in_state(&mut self, state: &State, share: Share) -> Option<Box<Sequence>> {
        let (n_prompt, n_generated) = match *state {
            State::Free => return None,
            State::Prefill { n_prompt, .. } => (n_prompt, 0),
            State::Decode { n_prompt, n_generated } => (n_prompt, n_generated),
            State::Paused | State::Ended => (5, 3),
        };
        let is_measured = matches!(state, State::Prefill { is_measured: true, .. });
        let mut sequence = self.sequence(share, n_prompt, is_measured);
        if let State::Prefill { n_fed, .. } = *state {
            sequence.start(n_fed);
        } else {
            sequence.start(n_prompt);
            generate(&mut sequence, n_generated);
        }
        sequence.paused_since = matches!(state, State::Paused).then(Instant::now);
        sequence.ended = matches!(state, State::Ended);
        Some(sequence)
    }
}

/// As if it had chosen so many tokens, the last of which is not computed yet.
fn generate(sequence: &mut Sequence, n: u32) {
    for _ in 0..n {
        sequence.tokens.push(0);
        sequence.n_generated += 1;
    }
    sequence.n_fed = sequence.tokens.len() - 1;
}

fn share(tenant: usize, weight: f64) -> Share {
    Share { tenant: format!("t{tenant}").into(), tenant_weight: weight, ..Share::default() }
}

fn slots(house: &mut House, states: &[State]) -> Slots {
    states.iter().enumerate().map(|(i, state)| house.in_state(state, share(i % 3, 1.0))).collect()
}

/// `(position, wants logits)` of each sequence's tokens, in the order of the batch.
fn by_sequence(batch: &Batch) -> HashMap<usize, Vec<(usize, bool)>> {
    let mut found = HashMap::<usize, Vec<(usize, bool)>>::new();
    for (_, position, id, is_wanted) in batch.entries() {
        found.entry(id).or_default().push((position, is_wanted));
    }
    found
}

proptest! {
    #[test]
    fn prompts_are_computed_in_order_whole_and_within_the_budget(
        states in prop::collection::vec(state(), 1..40),
        budget in 1usize..600,
    ) {
        let mut house = House::default();
        let mut slots = slots(&mut house, &states);
        let (mut batch, mut outputs) = (Batch::default(), Vec::new());
        let unfed = |slots: &Slots| slots.iter().flatten().map(|s| s.n_to_prefill()).collect::<Vec<_>>();
        loop {
            let before: Vec<Option<usize>> = slots.iter().map(|s| s.as_ref().map(|s| s.n_fed)).collect();
            let left: usize = unfed(&slots).iter().sum();
            let turn = |slots: &Slots, id: usize| house.accounts.turn(&slots[id].as_ref().unwrap().share);
            let first = (0..slots.len())
                .filter(|&id| slots[id].as_ref().is_some_and(|s| s.n_to_prefill() > 0))
                .min_by(|&a, &b| turn(&slots, a).total_cmp(&turn(&slots, b)).then(a.cmp(&b)));
            let due = first.map(|id| slots[id].as_ref().unwrap().n_to_prefill().min(budget.div_ceil(2)));
            let is_any_measured = slots.iter().flatten().any(|s| s.is_measured());
            assemble::prefill(&mut slots, &house.accounts, budget, &mut batch, &mut outputs);
            prop_assert!(batch.len() <= budget);
            prop_assert_eq!(batch.is_empty(), left == 0);
            if batch.is_empty() {
                break;
            }
            // nothing that could be computed is left out; a measurement gives only so many logits at once
            prop_assert!(batch.len() == budget.min(left) || is_any_measured, "{} of {}, {} left", batch.len(), budget, left);
            let found = by_sequence(&batch);
            for (id, tokens) in &found {
                let sequence = slots[*id].as_ref().unwrap();
                let positions: Vec<usize> = tokens.iter().map(|t| t.0).collect();
                let expected: Vec<usize> = (before[*id].unwrap()..sequence.n_fed).collect();
                prop_assert_eq!(positions, expected, "in order, and none twice");
                for (position, is_wanted) in tokens {
                    prop_assert_eq!(*is_wanted, sequence.wants_logits(*position));
                }
                let n_outputs = outputs.iter().filter(|o| o.0 == *id).count();
                prop_assert_eq!(n_outputs, tokens.iter().filter(|t| t.1).count());
            }
            if let (Some(id), Some(due)) = (first, due) {
                let got = found.get(&id).map_or(0, Vec::len);
                prop_assert!(got >= due || slots[id].as_ref().unwrap().is_measured(), "{} of {} for whose turn it is", got, due);
            }
            for (id, place) in &outputs {
                prop_assert_eq!(batch.entries()[*place].2, *id);
            }
        }
        // what was not in prefill was not touched, and who was is at its last token
        for (slot, state) in slots.iter().zip(&states) {
            match state {
                State::Prefill { n_prompt, .. } => prop_assert_eq!(slot.as_ref().unwrap().n_fed, *n_prompt),
                State::Decode { .. } => prop_assert!(slot.as_ref().unwrap().can_decode()),
                _ => {}
            }
        }
    }

    #[test]
    fn answers_are_computed_lowest_id_first_with_holes_filled(
        states in prop::collection::vec(state(), 1..60),
        kept in prop::collection::vec(0usize..64, 60),
        room in 1usize..64,
    ) {
        let mut house = House::default();
        let mut slots = slots(&mut house, &states);
        let ready: Vec<usize> = (0..slots.len()).filter(|&id| slots[id].as_ref().is_some_and(|s| s.can_decode())).collect();
        let reading: Vec<Option<usize>> =
            slots.iter().map(|s| s.as_ref().filter(|s| s.n_to_prefill() > 0).map(|s| s.n_fed)).collect();
        let free = |id: usize| (kept[id] < room).then_some(kept[id]);
        let (mut batch, mut outputs, mut fillers) = (Batch::default(), Vec::new(), Vec::new());
        assemble::decode(&mut slots, free, &mut batch, &mut outputs, &mut fillers);
        let ids: Vec<usize> = batch.entries().iter().map(|e| e.2).collect();
        prop_assert!(ids.is_sorted() && ids.windows(2).all(|w| w[0] < w[1]), "one token each, ascending: {:?}", ids);
        prop_assert!(ready.iter().all(|id| ids.contains(id)), "all that are ready");
        let (Some(&lowest), Some(&highest)) = (ready.first(), ready.last()) else {
            prop_assert!(batch.is_empty());
            return Ok(());
        };
        for Filler { id, n_kept } in &fillers {
            prop_assert!(slots[*id].is_none() && (lowest..highest).contains(id) && free(*id) == Some(*n_kept));
        }
        prop_assert!(fillers.len() <= ready.len(), "holes never cost more than the work");
        // where holes are worth filling, the only ones left are those that cannot be
        let n_free = (0..=highest).filter(|&id| slots[id].is_none()).count();
        let is_filled = n_free <= ready.len();
        for id in (lowest..highest).filter(|id| !ids.contains(id)) {
            let can_be = reading[id].is_some() || (slots[id].is_none() && free(id).is_some());
            prop_assert!(!is_filled || !can_be, "{} is a hole", id);
        }
        for (place, (_, position, id, is_wanted)) in batch.entries().into_iter().enumerate() {
            let Some(sequence) = &slots[id] else {
                let filler = Filler { id, n_kept: position };
                prop_assert!(!is_wanted && fillers.contains(&filler));
                continue;
            };
            prop_assert_eq!(position + 1, sequence.n_fed);
            prop_assert!(ready.contains(&id) || (reading[id] == Some(position) && is_filled && id < highest));
            prop_assert_eq!(is_wanted, ready.contains(&id) || sequence.wants_logits(position));
            prop_assert_eq!(is_wanted, outputs.contains(&(id, place)));
        }
    }

    #[test]
    fn only_those_make_room_who_had_their_turn(states in prop::collection::vec(state(), 1..20), used in prop::collection::vec(0usize..2000, 3)) {
        let mut house = House::default();
        let slots = slots(&mut house, &states);
        let waiting = house.sequence(share(3, 1.0), 7, false);
        for (tenant, n) in used.iter().enumerate() {
            house.accounts.charge(&share(tenant, 1.0), 0, *n);
        }
        let displaced = admit::displaced(&slots, &house.accounts, &waiting);
        let is_full = slots.iter().all(Option::is_some);
        if let Some(id) = displaced {
            let sequence = slots[id].as_ref().unwrap();
            prop_assert!(!sequence.ended);
            let past = house.accounts.turn(&sequence.share).total_cmp(&house.accounts.turn(&waiting.share)).is_gt();
            prop_assert!(sequence.paused_since.is_some() || (sequence.n_generated_since() >= QUANTUM_TOKENS && past));
            prop_assert!(admit::has_room(&slots));
        } else if is_full {
            prop_assert!(slots.iter().flatten().all(|s| s.paused_since.is_none() || s.ended));
        }
    }

    #[test]
    fn more_sequences_than_streams_share_them_by_weight(
        n_streams in 1usize..5,
        n_waiting in 1usize..8,
        weights in prop::collection::vec(1u8..5, 2..4),
    ) {
        let mut house = House::default();
        let weight = |tenant: usize| f64::from(weights[tenant]);
        let mut waiting: VecDeque<Box<Sequence>> = (0..n_streams + n_waiting)
            .flat_map(|_| 0..weights.len())
            .enumerate()
            .map(|(i, tenant)| {
                let isolate = Some(format!("isolate {i}").into());
                house.sequence(Share { isolate, ..share(tenant, weight(tenant)) }, 3, false)
            })
            .collect();
        let mut slots: Slots = (0..n_streams).map(|_| None).collect();
        let mut served = vec![0u32; weights.len()];
        // what the engine's thread does, with a token for everybody in each step
        for _ in 0..60 * QUANTUM_TOKENS {
            while admit::has_room(&slots) {
                let Some(i) = admit::next(&waiting, &house.accounts, |_| true) else { break };
                if slots.iter().all(Option::is_some) {
                    let Some(id) = admit::displaced(&slots, &house.accounts, &waiting[i]) else { break };
                    waiting.extend(slots[id].take());
                }
                let Some(mut sequence) = waiting.remove(i) else { break };
                let id = slots.iter().position(Option::is_none).unwrap();
                let n = sequence.tokens.len();
                sequence.start(n);
                slots[id] = Some(sequence);
            }
            for sequence in slots.iter_mut().flatten() {
                generate(sequence, 1);
                house.accounts.charge(&sequence.share, 0, 1);
                let tenant: usize = sequence.share.tenant.as_str()[1..].parse().unwrap();
                served[tenant] += 1;
            }
        }
        let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        let all = f64::from(served.iter().sum::<u32>());
        for (tenant, n) in served.iter().enumerate() {
            let due = all * weight(tenant) / total;
            let slack = f64::from(QUANTUM_TOKENS) * (n_streams as f64 + 1.0);
            prop_assert!((f64::from(*n) - due).abs() <= slack, "{} of {} for tenant {} of {:?}", n, due, tenant, weights);
        }
        // nobody was left out for good
        let fewest = waiting.iter().chain(slots.iter().flatten()).map(|s| s.n_generated).min().unwrap();
        let n_sequences = (n_streams + n_waiting) * weights.len();
        prop_assert!(fewest > 0 || n_sequences > 60 * n_streams / 4, "one of {} never spoke", n_sequences);
    }
}

#[test]
fn who_waits_gets_a_place_by_turn_and_then_by_age() {
    let mut house = House::default();
    let mut waiting: VecDeque<_> = [0, 1, 1, 0].map(|tenant| house.sequence(share(tenant, 1.0), 3, false)).into();
    house.accounts.charge(&share(0, 1.0), 0, 10);
    assert_eq!(admit::next(&waiting, &house.accounts, |_| true), Some(1));
    // one whose reader is behind, and one that had better wait, are passed over
    waiting[1].paused_since = Some(Instant::now());
    assert_eq!(admit::next(&waiting, &house.accounts, |_| true), Some(2));
    assert_eq!(admit::next(&waiting, &house.accounts, |s| s.share.tenant.as_str() == "t0"), Some(0));
    // one whose reader is gone is no longer there
    drop(house.readers.remove(2));
    assert_eq!(admit::next(&waiting, &house.accounts, |_| true), Some(0));
}

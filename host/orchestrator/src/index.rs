//! The nodes of one scope (a model, or a node type) arranged for every strategy at once.
//!
//! Kept up to date by each acquire and release, in O(log n), so that a choice looks at a few words and never at all nodes.

use std::collections::BTreeMap;

use llambo_strategy::{Candidates, LoadView, Slot, entropy, weight_steps};

use crate::{bitset::Bitset, fenwick::Fenwick, registry::NodeKey};

/// Emptied buckets kept for the next load that turns up, to save clearing memory while nodes move up and down.
const SPARE_BUCKETS: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Index {
    members: Vec<Option<Member>>,
    vacant: Vec<Slot>,
    /// The eligible ones, in no order.
    dense: Vec<Slot>,
    eligible: Bitset,
    /// Of the eligible ones, by slot.
    weights: Fenwick,
    /// The eligible ones by requests in flight. No bucket is empty.
    buckets: BTreeMap<u32, Bitset>,
    spare: Vec<Bitset>,
    last: Option<Slot>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    node: NodeKey,
    load: LoadView,
    /// `load.weight` in whole steps.
    weight: u64,
    /// Where `dense` has it; `None` when it is not eligible.
    place: Option<usize>,
}

impl Index {
    /// Adds a node, not eligible yet.
    pub(crate) fn insert(&mut self, node: NodeKey, capacity: u32, weight: f64) -> Slot {
        let load = LoadView { in_flight: 0, capacity, weight, ttft_us: 0.0 };
        let member = Some(Member { node, load, weight: weight_steps(weight), place: None });
        if let Some(slot) = self.vacant.pop() {
            self.members[position(slot)] = member;
            return slot;
        }
        let slot = Slot(u32::try_from(self.members.len()).expect("16,777,216 nodes at most"));
        self.members.push(member);
        self.weights.push();
        slot
    }

    /// Takes a node out; its slot is free for another.
    pub(crate) fn remove(&mut self, slot: Slot) {
        self.set(slot, 0, false);
        if self.members[position(slot)].take().is_some() {
            self.vacant.push(slot);
        }
    }

    /// Says how many requests a node has now and whether it takes more as long as it has room.
    pub(crate) fn set(&mut self, slot: Slot, in_flight: u32, open: bool) {
        let Some(member) = self.members.get_mut(position(slot)).and_then(Option::as_mut) else { return };
        let before = member.load.in_flight;
        member.load.in_flight = in_flight;
        match (member.place, open && in_flight < member.load.capacity) {
            (Some(_), true) if before != in_flight => {
                self.leave_bucket(slot, before);
                self.enter_bucket(slot, in_flight);
            }
            (Some(place), false) => {
                member.place = None;
                self.weights.subtract(position(slot), member.weight);
                self.eligible.remove(position(slot));
                self.leave_bucket(slot, before);
                self.dense.swap_remove(place);
                if let Some(&moved) = self.dense.get(place)
                    && let Some(moved) = &mut self.members[position(moved)]
                {
                    moved.place = Some(place);
                }
            }
            (None, true) => {
                member.place = Some(self.dense.len());
                self.weights.add(position(slot), member.weight);
                self.dense.push(slot);
                self.eligible.insert(position(slot));
                self.enter_bucket(slot, in_flight);
            }
            _ => {}
        }
    }

    pub(crate) fn set_ttft(&mut self, slot: Slot, ttft_us: f32) {
        if let Some(Some(member)) = self.members.get_mut(position(slot)) {
            member.load.ttft_us = ttft_us;
        }
    }

    /// What the next choice will see as [`Candidates::last`].
    pub(crate) fn set_last(&mut self, slot: Slot) {
        self.last = Some(slot);
    }

    pub(crate) fn node(&self, slot: Slot) -> Option<NodeKey> {
        self.member(slot).map(|member| member.node)
    }

    /// Nodes with the fewest requests in flight, among equals in turn after `after`: `n` at most.
    pub(crate) fn idlest(&self, after: Option<Slot>, n: usize) -> Vec<NodeKey> {
        let mut nodes = Vec::with_capacity(n.min(self.dense.len()));
        for bucket in self.buckets.values() {
            let first = bucket.next_cyclic(after.map(position));
            let mut next = first;
            while let Some(at) = next {
                if nodes.len() == n {
                    return nodes;
                }
                nodes.extend(self.node(slot_at(at)));
                next = bucket.next_cyclic(Some(at)).filter(|next| Some(*next) != first);
            }
        }
        nodes
    }

    pub(crate) fn is_eligible(&self, slot: Slot) -> bool {
        self.member(slot).is_some_and(|member| member.place.is_some())
    }

    fn member(&self, slot: Slot) -> Option<&Member> {
        self.members.get(position(slot))?.as_ref()
    }

    fn enter_bucket(&mut self, slot: Slot, in_flight: u32) {
        let spare = &mut self.spare;
        let bucket = self.buckets.entry(in_flight).or_insert_with(|| spare.pop().unwrap_or_default());
        bucket.insert(position(slot));
    }

    fn leave_bucket(&mut self, slot: Slot, in_flight: u32) {
        let Some(bucket) = self.buckets.get_mut(&in_flight) else { return };
        bucket.remove(position(slot));
        if bucket.is_empty()
            && let Some(empty) = self.buckets.remove(&in_flight)
            && self.spare.len() < SPARE_BUCKETS
        {
            self.spare.push(empty);
        }
    }
}

impl Candidates for Index {
    fn len(&self) -> usize {
        self.dense.len()
    }

    fn nth(&self, i: usize) -> Option<Slot> {
        self.dense.get(i).copied()
    }

    fn next_after(&self, slot: Option<Slot>) -> Option<Slot> {
        self.eligible.next_cyclic(slot.map(position)).map(slot_at)
    }

    fn least_loaded(&self, after: Option<Slot>) -> Option<Slot> {
        let (_, idlest) = self.buckets.first_key_value()?;
        idlest.next_cyclic(after.map(position)).map(slot_at)
    }

    fn by_weight(&self, fraction: u64) -> Option<Slot> {
        self.weights.covering(entropy::below(fraction, self.weights.total())).map(slot_at)
    }

    fn contains(&self, slot: Slot) -> bool {
        self.is_eligible(slot)
    }

    fn load(&self, slot: Slot) -> LoadView {
        self.member(slot).map(|member| member.load).unwrap_or_default()
    }

    fn last(&self) -> Option<Slot> {
        self.last
    }
}

fn position(slot: Slot) -> usize {
    slot.0 as usize
}

fn slot_at(position: usize) -> Slot {
    Slot(u32::try_from(position).expect("positions come from slots"))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert { capacity: u32, weight: u32 },
        Remove(usize),
        Set { nth: usize, in_flight: u32, open: bool },
        Choose { fraction: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u32..5, 1u32..9).prop_map(|(capacity, weight)| Step::Insert { capacity, weight }),
            any::<usize>().prop_map(Step::Remove),
            (any::<usize>(), 0u32..5, prop::bool::weighted(0.9)).prop_map(|(nth, in_flight, open)| Step::Set {
                nth,
                in_flight,
                open
            }),
            any::<u64>().prop_map(|fraction| Step::Choose { fraction }),
        ]
    }

    /// Slot, node, capacity, weight, in flight, open: asked by looking at each.
    type Model = Vec<(Slot, NodeKey, u32, u32, u32, bool)>;

    fn eligible(model: &Model) -> Vec<(Slot, u32, u32)> {
        let mut list: Vec<_> = model.iter().filter(|m| m.5 && m.4 < m.2).map(|m| (m.0, m.4, m.3)).collect();
        list.sort_unstable();
        list
    }

    fn cyclic(list: &[(Slot, u32, u32)], after: Option<Slot>) -> Vec<(Slot, u32, u32)> {
        let start = list.partition_point(|(slot, ..)| after.is_some_and(|after| *slot <= after));
        [&list[start..], &list[..start]].concat()
    }

    proptest! {
        #[test]
        fn the_index_answers_as_a_naive_model_does(steps in vec(step(), 1..300)) {
            let (mut index, mut model, mut key, mut last) = (Index::default(), Model::new(), 0, None);
            for step in steps {
                match step {
                    Step::Insert { capacity, weight } => {
                        let slot = index.insert(NodeKey(key), capacity, f64::from(weight));
                        prop_assert!(model.iter().all(|m| m.0 != slot));
                        model.push((slot, NodeKey(key), capacity, weight, 0, false));
                        key += 1;
                    }
                    Step::Remove(nth) if !model.is_empty() => {
                        let gone = model.swap_remove(nth % model.len());
                        index.remove(gone.0);
                        prop_assert_eq!(index.node(gone.0), None);
                    }
                    Step::Set { nth, in_flight, open } if !model.is_empty() => {
                        let nth = nth % model.len();
                        (model[nth].4, model[nth].5) = (in_flight, open);
                        index.set(model[nth].0, in_flight, open);
                    }
                    Step::Choose { fraction } => {
                        let list = eligible(&model);
                        let total: u64 = list.iter().map(|m| u64::from(m.2)).sum();
                        let mut point = entropy::below(fraction, total * 1_048_576);
                        let by_weight = list.iter().find(|m| {
                            let weight = u64::from(m.2) * 1_048_576;
                            let covers = point < weight;
                            point = point.wrapping_sub(if covers { 0 } else { weight });
                            covers
                        });
                        prop_assert_eq!(index.by_weight(fraction), by_weight.map(|m| m.0));
                        last = index.next_after(last);
                        if let Some(last) = last {
                            index.set_last(last);
                        }
                    }
                    _ => {}
                }
                let list = eligible(&model);
                prop_assert_eq!(index.len(), list.len());
                let mut dense: Vec<_> = (0..index.len()).map(|i| index.nth(i).unwrap()).collect();
                dense.sort_unstable();
                prop_assert_eq!(dense, list.iter().map(|m| m.0).collect::<Vec<_>>());
                let after = index.last();
                let turn = cyclic(&list, after);
                prop_assert_eq!(index.next_after(after), turn.first().map(|m| m.0));
                prop_assert_eq!(index.least_loaded(after), turn.iter().min_by_key(|m| m.1).map(|m| m.0));
                for (slot, node, capacity, _, in_flight, _) in &model {
                    prop_assert_eq!(index.node(*slot), Some(*node));
                    prop_assert_eq!(index.is_eligible(*slot), list.iter().any(|m| m.0 == *slot));
                    prop_assert_eq!((index.load(*slot).capacity, index.load(*slot).in_flight), (*capacity, *in_flight));
                }
            }
        }
    }
}

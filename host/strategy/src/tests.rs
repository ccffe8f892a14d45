//! Strategies against a model that looks at every node.

use llambo_inference::ModelName;
use proptest::{collection::vec, prelude::*};

use crate::{Cached, Candidates, LoadView, NAMES, RequestView, Slot, by_name};

/// All nodes in a list, every question answered by looking at each.
pub(crate) struct Listed {
    pub(crate) nodes: Vec<LoadView>,
    pub(crate) last: Option<Slot>,
}

impl Listed {
    pub(crate) fn eligible(&self) -> Vec<u32> {
        let slots = 0..u32::try_from(self.nodes.len()).unwrap();
        slots.filter(|&slot| self.load(Slot(slot)).in_flight < self.load(Slot(slot)).capacity).collect()
    }

    fn cyclic(&self, after: Option<Slot>) -> Vec<u32> {
        let (later, earlier): (Vec<_>, Vec<_>) =
            self.eligible().into_iter().partition(|&slot| after.is_none_or(|after| slot > after.0));
        later.into_iter().chain(earlier).collect()
    }
}

impl Candidates for Listed {
    fn len(&self) -> usize {
        self.eligible().len()
    }
    fn nth(&self, i: usize) -> Option<Slot> {
        self.eligible().get(i).copied().map(Slot)
    }
    fn next_after(&self, slot: Option<Slot>) -> Option<Slot> {
        self.cyclic(slot).first().copied().map(Slot)
    }
    fn least_loaded(&self, after: Option<Slot>) -> Option<Slot> {
        self.cyclic(after).into_iter().map(Slot).min_by_key(|&slot| self.load(slot).in_flight)
    }
    fn by_weight(&self, fraction: u64) -> Option<Slot> {
        let total: f64 = self.eligible().iter().map(|&slot| self.load(Slot(slot)).weight).sum();
        let mut point = fraction as f64 / 2f64.powi(64) * total;
        self.eligible().into_iter().map(Slot).find(|&slot| {
            point -= self.load(slot).weight;
            point < 0.0
        })
    }
    fn contains(&self, slot: Slot) -> bool {
        self.eligible().contains(&slot.0)
    }
    fn load(&self, slot: Slot) -> LoadView {
        self.nodes.get(slot.0 as usize).copied().unwrap_or_default()
    }
    fn last(&self) -> Option<Slot> {
        self.last
    }
}

pub(crate) fn node(in_flight: u32, capacity: u32, weight: f64) -> LoadView {
    LoadView { in_flight, capacity, weight, ttft_us: 0.0 }
}

fn pick(name: &str, candidates: &Listed, entropy: u64) -> Option<Slot> {
    pick_with(name, candidates, &[], entropy)
}

fn pick_with(name: &str, candidates: &Listed, cached: &[Cached], entropy: u64) -> Option<Slot> {
    let model = ModelName::from("m");
    let request = RequestView { model: &model, node_type: None, n_prompt_bytes: 1000, cached };
    by_name(name).unwrap().pick(candidates, &request, entropy)
}

/// splitmix64 (Steele et al. 2014): the same numbers on every run.
pub(crate) fn numbers(n: u64) -> impl Iterator<Item = u64> {
    (1..=n).map(|i| {
        let mut z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

fn shares(name: &str, candidates: &mut Listed, n: u64) -> Vec<f64> {
    let mut counts = vec![0u32; candidates.nodes.len()];
    for entropy in numbers(n) {
        let slot = pick(name, candidates, entropy).unwrap();
        counts[slot.0 as usize] += 1;
        candidates.last = Some(slot);
    }
    counts.into_iter().map(|count| f64::from(count) / n as f64).collect()
}

proptest! {
    #[test]
    fn every_strategy_chooses_an_eligible_node_whenever_there_is_one(
        loads in vec((0u32..4, 0u32..4), 0..40),
        last in proptest::option::of(0u32..40),
        homes in vec((0u32..50, 0u32..1000), 0..8),
        entropy: u64,
    ) {
        let nodes = loads.iter().map(|&(in_flight, capacity)| node(in_flight, capacity, 1.0)).collect();
        let candidates = Listed { nodes, last: last.map(Slot) };
        let cached: Vec<_> = homes.iter().map(|&(slot, n_bytes)| Cached { slot: Slot(slot), n_bytes }).collect();
        for name in NAMES {
            match pick_with(name, &candidates, &cached, entropy) {
                Some(slot) => prop_assert!(candidates.eligible().contains(&slot.0), "{} chose {:?}", name, slot),
                None => prop_assert!(candidates.is_empty(), "{} chose nothing", name),
            }
        }
    }

    #[test]
    fn least_loaded_leaves_no_node_with_less(loads in vec(0u32..8, 1..40), last in proptest::option::of(0u32..40)) {
        let nodes: Vec<_> = loads.iter().map(|&in_flight| node(in_flight, 8, 1.0)).collect();
        let candidates = Listed { nodes, last: last.map(Slot) };
        let chosen = pick("least-loaded", &candidates, 0).unwrap();
        prop_assert_eq!(candidates.load(chosen).in_flight, *loads.iter().min().unwrap());
    }

    #[test]
    fn power_of_two_never_takes_the_most_loaded_of_distinct_nodes(n in 2u32..40, entropy: u64) {
        let candidates = Listed { nodes: (0..n).map(|i| node(i, 64, 1.0)).collect(), last: None };
        prop_assert_ne!(pick("power-of-two", &candidates, entropy), Some(Slot(n - 1)));
    }
}

#[test]
fn round_robin_visits_each_eligible_node_once_per_round() {
    let mut candidates = Listed { nodes: (0..10).map(|i| node(u32::from(i == 3), 1, 1.0)).collect(), last: None };
    let mut visited = Vec::new();
    for _ in 0..18 {
        candidates.last = pick("round-robin", &candidates, 0);
        visited.push(candidates.last.unwrap().0);
    }
    let round = [0, 1, 2, 4, 5, 6, 7, 8, 9];
    assert_eq!(visited, [round, round].concat());
}

#[test]
fn equally_loaded_nodes_take_turns_under_least_loaded() {
    let mut candidates = Listed { nodes: vec![node(0, 9, 1.0); 4], last: None };
    assert!(shares("least-loaded", &mut candidates, 400).iter().all(|&share| (share - 0.25).abs() < 1e-9));
}

#[test]
fn random_and_power_of_two_spread_evenly_over_equal_nodes() {
    for name in ["random", "power-of-two"] {
        let mut candidates = Listed { nodes: vec![node(0, 1, 1.0); 10], last: None };
        for share in shares(name, &mut candidates, 100_000) {
            // 10 standard deviations of a binomial share at n = 100,000, p = 0.1
            assert!((share - 0.1).abs() < 0.01, "{name}: {share}");
        }
    }
}

#[test]
fn weighted_random_follows_the_weights() {
    let mut candidates = Listed { nodes: [1.0, 2.0, 3.0, 4.0].map(|weight| node(0, 1, weight)).to_vec(), last: None };
    for (share, expected) in shares("weighted-random", &mut candidates, 100_000).into_iter().zip([0.1, 0.2, 0.3, 0.4]) {
        assert!((share - expected).abs() < 0.015, "{share} of {expected}");
    }
}

#[test]
fn power_of_two_favours_the_less_loaded() {
    let mut candidates = Listed { nodes: vec![node(0, 9, 1.0), node(5, 9, 1.0), node(5, 9, 1.0)], last: None };
    // drawn in two of three pairs, and the lighter in both
    assert!((shares("power-of-two", &mut candidates, 100_000)[0] - 2.0 / 3.0).abs() < 0.01);
}

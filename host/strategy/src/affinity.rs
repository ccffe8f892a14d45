//! Prompts go where their beginnings are, as long as that keeps nobody waiting for long.

use std::cmp::Reverse;

use crate::{Balancer, Candidate, Candidates, LoadView, RequestView, Slot, entropy};

/// A beginning below this saves less than 20 tokens, which a prompt's one prefill call computes along with the rest.
const MIN_BYTES: u32 = 64;
/// The part of a prompt that must be there to count: a quarter. What all prompts of a host have in common would otherwise lead all of them to
/// one node, whose cache they would fill, while the others' stay empty; what is given up for that is a quarter of a prompt at most.
const MIN_SHARE: u64 = 4;
/// About 4,000 tokens, eight full prefill calls: worth it whatever follows.
const MUCH_BYTES: u32 = 16 << 10;
/// Of its places, the part that a home may be ahead of the idlest node: a half. A conversation that is turned away is computed again, so
/// that less costs more: with 64 of them on eight nodes of 16 places, simulated, a quarter made homes compute a fifth more than a half did, and an eighth twice as much.
const SLACK_SHARE: u32 = 2;
/// However many places it has: otherwise nodes would stand idle beside a home with hundreds of requests.
const MAX_SLACK: u32 = 8;

/// The node that has the longest beginning of the prompt, among equals the least loaded; or [`crate::LeastLoaded`]'s choice.
///
/// A member with a beginning is a *home* of the prompt if the beginning is worth it: at least 64 bytes, and a quarter of the prompt or 16 KiB. It is
/// taken while its requests in flight are at most `idlest + idlest / 2 + slack`, where `idlest` is the least of all candidates and `slack` a half
/// of the home's capacity, at most 8. That is the bound of Mirrokni, Thorup and Zadimoghaddam ("Consistent Hashing with Bounded Loads",
/// 2017) with an epsilon of a half, and with the idlest in place of the mean, which it cannot exceed: no sum over all nodes is needed.
///
/// A prompt whose homes are all over their bounds goes to an idlest node. That becomes one more home, which takes what follows until it reaches its bound
/// too: beginnings spread by one node at a time, and only while those who have them are busy. Without that, each request that an overloaded home
/// turns away would make another node compute the same, and push other beginnings out of its cache.
///
/// Which of several idlest nodes is drawn, not taken in turn: the turn continues behind the last choice, which may have been a home. With a busy home, the node
/// behind it would get every prompt that is new.
///
/// Looks at no more nodes than there are homes.
#[derive(Clone, Copy, Debug, Default)]
pub struct CognitiveAffinity;

impl Balancer for CognitiveAffinity {
    fn name(&self) -> &'static str {
        "cognitive-affinity"
    }

    fn pick(&self, candidates: &dyn Candidates, request: &RequestView<'_>, entropy: u64) -> Option<Slot> {
        let any = usize::try_from(entropy::below(entropy, candidates.len() as u64)).ok();
        let idlest = candidates.least_loaded(any.and_then(|any| candidates.nth(any)))?;
        let least = candidates.load(idlest).in_flight;
        let homes = request.cached.iter().filter(|home| is_worth_it(home.n_bytes, request.n_prompt_bytes));
        let open = homes.filter_map(|home| {
            let load = candidates.load(home.slot);
            (candidates.contains(home.slot) && load.in_flight <= bound(least, load)).then_some((home, load.in_flight))
        });
        let best = open.min_by_key(|(home, in_flight)| (Reverse(home.n_bytes), *in_flight));
        Some(best.map_or(idlest, |(home, _)| home.slot))
    }

    fn score(&self, candidate: &Candidate) -> Option<f64> {
        Some(candidate.cached_bytes.into())
    }

    fn wants_cached(&self) -> bool {
        true
    }
}

fn is_worth_it(n_bytes: u32, n_prompt_bytes: usize) -> bool {
    let is_much = n_bytes >= MUCH_BYTES || u64::from(n_bytes) * MIN_SHARE >= n_prompt_bytes as u64;
    n_bytes >= MIN_BYTES && is_much
}

/// Requests in flight up to which a home takes one more.
fn bound(least: u32, home: LoadView) -> u32 {
    least.saturating_add(least / 2).saturating_add((home.capacity / SLACK_SHARE).min(MAX_SLACK))
}

#[cfg(test)]
mod tests {
    use llambo_inference::ModelName;
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        Cached,
        tests::{Listed, node, numbers},
    };

    fn pick(candidates: &Listed, cached: &[Cached], n_prompt_bytes: usize, entropy: u64) -> Option<Slot> {
        let model = ModelName::from("m");
        let request = RequestView { model: &model, node_type: None, n_prompt_bytes, cached };
        CognitiveAffinity.pick(candidates, &request, entropy)
    }

    fn at(slot: u32, n_bytes: u32) -> Cached {
        Cached { slot: Slot(slot), n_bytes }
    }

    fn loads(in_flight: &[u32], capacity: u32) -> Listed {
        Listed { nodes: in_flight.iter().map(|&n| node(n, capacity, 1.0)).collect(), last: None }
    }

    #[test]
    fn the_longest_beginning_wins_and_among_equals_the_less_loaded() {
        let idle = loads(&[0, 0, 0, 0], 16);
        assert_eq!(pick(&idle, &[at(2, 900), at(1, 800)], 1000, 0), Some(Slot(2)));
        let busy = loads(&[0, 1, 3, 2], 16);
        assert_eq!(pick(&busy, &[at(2, 900), at(3, 900), at(1, 800)], 1000, 0), Some(Slot(3)));
    }

    #[test]
    fn a_home_over_its_bound_makes_way_for_the_next_longest_and_then_for_the_idlest() {
        // of 16 places a half: 8 more than the idlest
        let homes = [at(2, 900), at(1, 800)];
        assert_eq!(pick(&loads(&[0, 8, 8, 1], 16), &homes, 1000, 0), Some(Slot(2)));
        assert_eq!(pick(&loads(&[0, 8, 9, 1], 16), &homes, 1000, 0), Some(Slot(1)));
        assert_eq!(pick(&loads(&[0, 9, 9, 1], 16), &homes, 1000, 0), Some(Slot(0)));
        // where everybody is busy, half of that may come on top
        assert_eq!(pick(&loads(&[4, 13, 14, 5], 16), &homes, 1000, 0), Some(Slot(2)));
        assert_eq!(pick(&loads(&[4, 13, 15, 5], 16), &homes, 1000, 0), Some(Slot(1)));
    }

    #[test]
    fn however_many_places_a_home_has_it_is_not_far_ahead_of_an_idle_node() {
        assert_eq!(pick(&loads(&[0, 8], 512), &[at(1, 900)], 1000, 0), Some(Slot(1)));
        assert_eq!(pick(&loads(&[0, 9], 512), &[at(1, 900)], 1000, 0), Some(Slot(0)));
    }

    #[test]
    fn a_beginning_that_saves_little_is_not_gone_after() {
        let nodes = loads(&[0, 1], 16);
        assert_eq!(pick(&nodes, &[at(1, 63)], 64, 0), Some(Slot(0)));
        assert_eq!(pick(&nodes, &[at(1, 64)], 64, 0), Some(Slot(1)));
        assert_eq!(pick(&nodes, &[at(1, 249)], 1000, 0), Some(Slot(0)));
        assert_eq!(pick(&nodes, &[at(1, 250)], 1000, 0), Some(Slot(1)));
        assert_eq!(pick(&nodes, &[at(1, 16 << 10)], 1 << 20, 0), Some(Slot(1)));
    }

    #[test]
    fn a_home_that_cannot_take_the_request_is_passed_over() {
        let mut nodes = loads(&[1, 0, 0], 16);
        nodes.nodes[1].capacity = 0;
        assert_eq!(pick(&nodes, &[at(1, 900), at(0, 800)], 1000, 0), Some(Slot(0)));
        assert_eq!(pick(&nodes, &[at(1, 900)], 1000, 0), Some(Slot(2)));
        assert_eq!(pick(&loads(&[16, 16], 16), &[at(1, 900)], 1000, 0), None);
    }

    #[test]
    fn a_beginning_that_everybody_asks_for_spreads_by_one_node_at_a_time() {
        let (mut nodes, mut homes) = (loads(&[0; 8], 16), Vec::<Cached>::new());
        let mut used = Vec::new();
        for entropy in numbers(72) {
            let slot = pick(&nodes, &homes, 1000, entropy).unwrap();
            if homes.iter().all(|home| home.slot != slot) {
                let least = nodes.nodes.iter().map(|node| node.in_flight).min().unwrap();
                let over = homes.iter().all(|home| nodes.load(home.slot).in_flight > least + least / 2 + 8);
                assert!(over, "another home although {homes:?} had room");
                homes.insert(0, at(slot.0, 900));
            }
            nodes.nodes[slot.0 as usize].in_flight += 1;
            used.push(homes.len());
        }
        // the idlest has none until all eight are homes: nine requests at each of them
        assert_eq!(used, (1..=8).flat_map(|n| [n; 9]).collect::<Vec<_>>());
    }

    #[test]
    fn prompts_that_are_new_find_no_single_victim_while_a_home_is_asked_again_and_again() {
        let mut nodes = loads(&[0; 8], 16);
        let mut news = [0; 8];
        for (n, entropy) in numbers(16_000).enumerate() {
            let homes = [at(3, 900)];
            let slot = pick(&nodes, if n % 2 == 0 { &homes } else { &[] }, 1000, entropy).unwrap();
            news[slot.0 as usize] += n % 2;
            nodes.last = Some(slot);
        }
        // 10 standard deviations of a binomial count at n = 8,000, p = 1/8
        assert!(news.iter().all(|&n| (700..1300).contains(&n)), "{news:?}");
    }

    proptest! {
        #[test]
        fn it_takes_the_longest_beginning_whose_home_is_within_its_bound_or_an_idlest_node(
            nodes in vec((0u32..12, 0u32..12), 1..20),
            homes in vec((0u32..20, 0u32..300), 0..8),
            last in proptest::option::of(0u32..20),
            entropy: u64,
        ) {
            let list = nodes.iter().map(|&(in_flight, capacity)| node(in_flight, capacity, 1.0)).collect();
            let candidates = Listed { nodes: list, last: last.map(Slot) };
            let mut homes: Vec<_> = homes.into_iter().filter(|home| (home.0 as usize) < nodes.len()).collect();
            homes.sort_by_key(|home| Reverse(home.1));
            let cached: Vec<_> = homes.iter().map(|&(slot, n_bytes)| at(slot, n_bytes)).collect();
            let free = candidates.eligible();
            let Some(least) = free.iter().map(|&slot| nodes[slot as usize].0).min() else {
                prop_assert_eq!(pick(&candidates, &cached, 400, entropy), None);
                return Ok(());
            };
            let slot = pick(&candidates, &cached, 400, entropy).unwrap();
            let open = homes.iter().filter(|&&(slot, n_bytes)| {
                let (in_flight, capacity) = nodes[slot as usize];
                n_bytes >= 100 && free.contains(&slot) && in_flight <= least + least / 2 + capacity / 2
            });
            let longest = open.map(|home| home.1).max();
            let is_right = longest.map_or(candidates.load(slot).in_flight == least, |n_bytes| homes.contains(&(slot.0, n_bytes)));
            prop_assert!(is_right, "{:?} of {:?}, the longest within its bound being {:?}", slot, candidates.nodes, longest);
        }
    }
}

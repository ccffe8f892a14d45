//! Records of hosts that are simulated, decided again.

use llambo_inference::NodeId;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    Cached, NodeChange, NodeKind, Nodes, RequestFacts, RequestView, Slot, by_name,
    tests::{Listed, node, numbers},
};

/// Nodes of even numbers have names.
#[derive(Debug)]
struct Named;

impl Nodes for Named {
    fn name(&self, node: u64) -> Option<NodeId> {
        node.is_multiple_of(2).then(|| format!("node-{node}").into())
    }

    fn changes_since(&self, _: Option<u64>) -> (Vec<NodeChange>, u64, bool) {
        (Vec::new(), 0, true)
    }
}

fn ask(candidates: Vec<Candidate>, entropy: u64) -> ChooseNode {
    let request = RequestFacts { n_prompt_bytes: 1000, ..RequestFacts::new("r".into(), "m".into(), "t".into()) };
    let kind =
        NodeKind { node_type: "a".into(), model: "m".into(), tenant: "t".into(), tier: 0, weight: 1.0, labels: Arc::new([]) };
    ChooseNode { request, candidates, kinds: Arc::new(vec![kind]), nodes: Arc::new(Named), entropy }
}

fn candidate(node: u64, in_flight: u32, capacity: u32) -> Candidate {
    Candidate { node, in_flight, capacity, weight: 1.0, ..Candidate::default() }
}

fn decided(number: u64, at_us: u64, candidates: &[Candidate], chosen: u32) -> Decided {
    Decided { number, at_us, ask: Arc::new(ask(candidates.to_vec(), 0)), chosen }
}

fn finished(latency_us: f64) -> Ended {
    Ended { latency_us, how: End::Finished }
}

fn with(name: &str) -> impl FnMut(&Arc<ChooseNode>) -> Again {
    built_in_decider(by_name(name).unwrap())
}

/// The candidate at this place; where there is none, a node that nobody knows.
fn at(ask: &ChooseNode, place: usize) -> Again {
    (Some(ask.candidates.get(place).map_or(u64::MAX, |candidate| candidate.node)), None, Duration::ZERO)
}

fn always(place: usize) -> impl FnMut(&Arc<ChooseNode>) -> Again {
    move |ask| at(ask, place)
}

/// A host with nodes of these capacities, numbered 100, 107 and so on, under a strategy, for 400 requests of four conversations. `busy` is how many
/// milliseconds a request takes on an idle node, one being added for each other; they come 1 ms apart.
fn record(strategy: &str, capacities: &[u32], busy: u64) -> Replay {
    let balancer = by_name(strategy).unwrap();
    let nodes = capacities.iter().zip(1u32..).map(|(&capacity, n)| node(0, capacity, f64::from(n))).collect();
    let mut host = Listed { nodes, last: None };
    let (mut running, mut replay) = (Vec::<(u64, u32)>::new(), Replay::default());
    let mut homes = [None; 4];
    for (number, entropy) in (0..).zip(numbers(400)) {
        let at_us = number * 1000;
        running.retain(|&(until, slot)| {
            host.nodes[slot as usize].in_flight -= u32::from(until <= at_us);
            until > at_us
        });
        let topic = usize::try_from(entropy % 4).unwrap();
        let cached: Vec<_> = homes[topic].into_iter().map(|slot| Cached { slot, n_bytes: 900 }).collect();
        let model = "m".into();
        let request = RequestView { model: &model, node_type: None, n_prompt_bytes: 1000, cached: &cached };
        let Some(slot) = balancer.pick(&host, &request, entropy) else { continue };
        let mut shown = host.eligible();
        // the choice comes first, and then the others in no order
        shown.sort_by_key(|&other| (other != slot.0, (u64::from(other) * 0x9e37_79b9 + entropy) % 101));
        let candidates = shown.iter().map(|&other| {
            let load = host.nodes[other as usize];
            let cached_bytes = if homes[topic] == Some(Slot(other)) { 900 } else { 0 };
            #[expect(clippy::cast_possible_truncation, reason = "small whole numbers")]
            let weight = load.weight as f32;
            Candidate { weight, cached_bytes, ..candidate(100 + 7 * u64::from(other), load.in_flight, load.capacity) }
        });
        let ask = Arc::new(ask(candidates.collect(), entropy));
        replay.decided(Decided { number, at_us, ask, chosen: 0 }).unwrap();
        let took_us = 1000 * (busy + u64::from(host.nodes[slot.0 as usize].in_flight));
        replay.ended(number, finished(took_us as f64));
        running.push((at_us + took_us, slot.0));
        host.nodes[slot.0 as usize].in_flight += 1;
        host.last = Some(slot);
        homes[topic] = Some(slot);
    }
    replay
}

#[test]
fn the_strategy_that_recorded_decides_as_it_did() {
    for name in ["round-robin", "least-loaded", "weighted-random", "cognitive-affinity"] {
        for capacities in [[16; 8], [1, 2, 3, 4, 5, 6, 7, 8]] {
            let replay = record(name, &capacities, 10);
            let result = replay.run(&mut with(name));
            assert_eq!((result.different, &result.differences), (0, &vec![]), "{name}");
            assert_eq!(result.recorded, result.replayed, "{name}");
            assert!(result.decisions > 300 && result.with_choice > 300, "{name}: {result:?}");
            assert_eq!(result.fallbacks, BTreeMap::new());
        }
    }
}

#[test]
fn a_better_strategy_spreads_better_and_is_quicker() {
    // the first that is free: the others are for overflow
    let mut recorded = Replay::default();
    let mut running = Vec::<(u64, usize)>::new();
    for number in 0..300 {
        let at_us = number * 1000;
        running.retain(|(until, _)| *until > at_us);
        let load = |slot| u32::try_from(running.iter().filter(|(_, busy)| *busy == slot).count()).unwrap();
        let candidates: Vec<_> =
            (0..4).map(|slot| candidate(slot as u64, load(slot), 8)).filter(|one| one.in_flight < one.capacity).collect();
        let took_us = 4000 + 1000 * u64::from(candidates[0].in_flight);
        running.push((at_us + took_us, usize::try_from(candidates[0].node).unwrap()));
        recorded.decided(decided(number, at_us, &candidates, 0)).unwrap();
        recorded.ended(number, finished(took_us as f64));
    }
    let result = recorded.run(&mut with("least-loaded"));
    assert!(result.different > 100, "{result:?}");
    assert!(result.recorded.spread > 1.0 && result.replayed.spread < 0.1, "{result:?}");
    assert!(result.replayed.latency_mean_us < result.recorded.latency_mean_us - 1000.0, "{result:?}");
    assert!(result.replayed.latency_p95_us < result.recorded.latency_p95_us, "{result:?}");
    assert!((result.idle_latency_us - 4000.0).abs() < 1e-3 && (result.added_latency_us - 1000.0).abs() < 1e-3);
}

#[test]
fn a_moved_request_is_missing_where_it_was_and_present_where_it_would_be() {
    let mut replay = Replay::default();
    let both = |a, b| [candidate(2, a, 4), candidate(4, b, 4)];
    replay.decided(decided(1, 0, &both(0, 0), 0)).unwrap();
    replay.decided(decided(2, 50, &both(1, 0), 1)).unwrap();
    replay.decided(decided(3, 100, &both(0, 1), 0)).unwrap();
    for (number, took_us) in [(1, 100.0), (2, 100.0), (3, 100.0)] {
        replay.ended(number, finished(took_us));
    }
    let mut seen = Vec::new();
    let result = replay.run(&mut |ask| {
        seen.push([ask.candidates[0].in_flight, ask.candidates[1].in_flight]);
        at(ask, 1)
    });
    // the first is at the other node until 100, where the second is too, as it was
    assert_eq!(seen, [[0, 0], [0, 1], [0, 1]]);
    assert_eq!((result.different, result.replayed.served_max, result.replayed.served_min), (2, 3, 0));
    assert_eq!((result.recorded.served_max, result.recorded.served_min), (2, 1));
}

#[test]
fn a_request_on_a_busier_node_takes_longer_by_what_the_record_says_and_is_there_longer() {
    let mut replay = Replay::default();
    // each other request adds 100
    for (number, in_flight, took_us) in [(1, 0, 100.0), (2, 3, 400.0)] {
        replay.decided(decided(number, number, &[candidate(9, in_flight, 8)], 0)).unwrap();
        replay.ended(number, finished(took_us));
    }
    replay.decided(decided(3, 1000, &[candidate(2, 0, 8), candidate(4, 2, 8)], 0)).unwrap();
    replay.ended(3, finished(100.0));
    for (number, at_us) in [(4, 1299), (5, 1300)] {
        replay.decided(decided(number, at_us, &[candidate(4, 0, 8)], 0)).unwrap();
    }
    let mut seen = Vec::new();
    let result = replay.run(&mut |ask| {
        seen.push(ask.candidates.last().unwrap().in_flight);
        at(ask, usize::from(ask.candidates.len() > 1))
    });
    assert_eq!(seen, [0, 3, 2, 1, 0]);
    let [was, is] = [&result.recorded, &result.replayed].map(|outcome| outcome.latency_mean_us * 5.0);
    // two ends are not known: 100 each, and 100 more where one more is there
    assert!((was - 800.0).abs() < 1e-6 && (is - 1100.0).abs() < 1e-6, "{was} {is}");
}

#[test]
fn a_node_that_moved_requests_have_filled_is_no_candidate() {
    let mut replay = Replay::default();
    let both = [candidate(2, 0, 1), candidate(4, 0, 1)];
    replay.decided(decided(1, 0, &both, 0)).unwrap();
    replay.decided(decided(2, 10, &both[1..], 0)).unwrap();
    replay.decided(decided(3, 20, &[candidate(4, 0, 1), candidate(6, 0, 1)], 1)).unwrap();
    replay.ended(1, finished(100.0));
    let mut seen = Vec::new();
    replay.run(&mut |ask| {
        seen.push(ask.candidates.iter().map(|candidate| candidate.node).collect::<Vec<_>>());
        at(ask, 1)
    });
    // where there is no other it stays: the request would have waited
    assert_eq!(seen, [vec![2, 4], vec![4], vec![6]]);
}

#[test]
fn a_single_candidate_is_never_different() {
    let mut replay = Replay::default();
    for number in 0..10 {
        replay.decided(decided(number, number, &[candidate(3, 0, 1)], 0)).unwrap();
    }
    for place in [0, 7] {
        let result = replay.run(&mut always(place));
        assert_eq!((result.decisions, result.different, result.with_choice), (10, 0, 0));
        assert_eq!(result.recorded, result.replayed);
    }
}

#[test]
fn without_ends_there_are_no_times_and_nothing_is_moved_by_them() {
    let mut replay = Replay::default();
    for number in 0..10 {
        replay.decided(decided(number, number, &[candidate(3, 1, 4), candidate(5, 2, 4)], 0)).unwrap();
    }
    replay.ended(2, finished(f64::INFINITY));
    replay.ended(3, finished(f64::NAN));
    replay.ended(4, finished(-1.0));
    replay.ended(99, finished(5.0));
    let mut seen = Vec::new();
    let result = replay.run(&mut |ask| {
        seen.push([ask.candidates[0].in_flight, ask.candidates[1].in_flight]);
        at(ask, 1)
    });
    assert!(seen.iter().all(|loads| *loads == [1, 2]), "{seen:?}");
    assert_eq!((result.different, result.idle_latency_us.to_bits(), result.replayed.latency_mean_us.to_bits()), (10, 0, 0));
}

#[test]
fn requests_that_broke_off_keep_their_node_busy_and_say_nothing_about_times() {
    let mut replay = Replay::default();
    let both = [candidate(2, 0, 4), candidate(4, 0, 4)];
    replay.decided(decided(1, 0, &both, 0)).unwrap();
    replay.ended(1, Ended { latency_us: 1e6, how: End::Broken });
    replay.decided(decided(2, 500, &[candidate(2, 1, 4), candidate(4, 0, 4)], 1)).unwrap();
    replay.ended(2, finished(10.0));
    let mut seen = Vec::new();
    let result = replay.run(&mut |ask| {
        seen.push([ask.candidates[0].in_flight, ask.candidates[1].in_flight]);
        at(ask, 1)
    });
    assert_eq!(seen, [[0, 0], [0, 1]]);
    let times = [result.idle_latency_us, result.recorded.latency_mean_us, result.replayed.latency_p95_us];
    assert_eq!(times.map(f64::to_bits), [10.0f64; 3].map(f64::to_bits));
}

#[test]
fn a_spread_is_a_share_of_the_mean() {
    let mut replay = Replay::default();
    for number in 0..8 {
        replay.decided(decided(number, number, &[candidate(2, 0, 9), candidate(4, 0, 9)], u32::from(number < 2))).unwrap();
    }
    let result = replay.run(&mut always(0));
    // 6 and 2: 2 around 4; 8 and 0: 4 around 4
    let spreads = [result.recorded.spread, result.replayed.spread];
    assert_eq!(spreads.map(f64::to_bits), [0.5f64, 1.0].map(f64::to_bits));
}

#[test]
fn turns_begin_where_the_first_question_does_and_go_on_for_each_scope() {
    let mut decide = with("round-robin");
    let mut chosen = |model: &str, nodes: &[u64]| {
        let mut ask = ask(nodes.iter().map(|&node| candidate(node, 0, 9)).collect(), 0);
        ask.request.model = model.into();
        decide(&Arc::new(ask)).0.unwrap()
    };
    let turns = [[5, 1, 3]; 4].map(|nodes| chosen("m", &nodes));
    assert_eq!(turns, [5, 1, 3, 5]);
    assert_eq!([chosen("n", &[1, 3, 5]), chosen("n", &[1, 3, 5])], [1, 3]);
    // nodes come and go
    assert_eq!([chosen("m", &[1, 9, 7]), chosen("m", &[3, 8]), chosen("m", &[3, 8])], [7, 8, 3]);
}

#[test]
fn an_empty_record_has_an_empty_result() {
    assert_eq!(Replay::default().run(&mut with("least-loaded")), Replayed::default());
}

#[test]
fn what_is_left_to_the_built_in_strategy_is_counted_by_why() {
    let mut replay = Replay::default();
    let both = [candidate(2, 0, 4), candidate(4, 0, 4)];
    for number in 0..6 {
        replay.decided(decided(number, number, &both, 1)).unwrap();
    }
    let mut n = 0;
    let result = replay.run(&mut |_| {
        n += 1;
        let took = Duration::from_nanos(n);
        match n {
            1 | 2 => (None, Some(Fallback::Trap), took),
            3 => (None, None, took),
            4 => (Some(6), None, took),
            _ => (Some(4), None, took),
        }
    });
    assert_eq!(result.fallbacks, [(Fallback::Trap, 2), (Fallback::Declined, 1), (Fallback::Gone, 1)].into());
    assert_eq!((result.different, result.replayed.served_max), (4, 4));
    assert!((result.call_p50_ns - 3.0).abs() < 1e-6 && (result.call_p99_ns - 6.0).abs() < 1e-6, "{result:?}");
}

#[test]
fn the_first_differences_are_told_by_name() {
    let mut replay = Replay::default();
    let both = [candidate(2, 0, 4), candidate(5, 0, 4)];
    // the later numbers came first
    for number in 0..30 {
        replay.decided(decided(number, 100 - number, &both, 0)).unwrap();
    }
    let result = replay.run(&mut always(1));
    assert_eq!((result.different, result.differences.len()), (30, 20));
    let first = Difference { number: 29, request: "r".into(), recorded: "node-2".into(), replayed: "5".into() };
    assert_eq!(result.differences[0], first);
}

#[test]
fn the_share_that_was_there_is_of_the_nodes_that_were_chosen() {
    let mut replay = Replay::default();
    let both = [Candidate { cached_bytes: 5000, ..candidate(2, 0, 4) }, Candidate { cached_bytes: 250, ..candidate(4, 0, 4) }];
    replay.decided(decided(1, 0, &both, 1)).unwrap();
    let result = replay.run(&mut always(0));
    let shares = [result.recorded.cached_share, result.replayed.cached_share];
    assert_eq!(shares.map(f64::to_bits), [0.25f64, 1.0].map(f64::to_bits));
}

#[test]
fn a_record_that_cannot_be_is_refused_with_what_is_wrong() {
    let mut replay = Replay::default();
    let both = [candidate(2, 0, 4), Candidate { kind: 3, ..candidate(4, 0, 4) }];
    let mut refused = |decided| replay.decided(decided).unwrap_err().to_string();
    assert_eq!(refused(decided(7, 0, &both[..1], 1)), "decision 7 chose candidate 1, but it has only 1, counted from 0");
    assert_eq!(refused(decided(7, 0, &[], 0)), "decision 7 chose candidate 0, but it has only 0, counted from 0");
    assert_eq!(refused(decided(7, 0, &both, 0)), "decision 7 has a candidate of kind 3, but only 1 kinds, counted from 0");
    replay.decided(decided(7, 0, &both[..1], 0)).unwrap();
    let error = replay.decided(decided(7, 5, &both[..1], 0)).unwrap_err();
    assert_eq!(error.to_string(), "decision 7 is recorded twice; replay one host's record at a time");
    assert_eq!(replay.run(&mut always(0)).decisions, 1);
}

proptest! {
    #[test]
    fn every_request_is_somewhere_in_both_worlds_and_who_decides_alike_changes_nothing(
        requests in vec((0u64..1000, vec((0u64..6, 0u32..5), 1..6), any::<u32>(), proptest::option::of(-1e3..1e6f64)), 0..40),
        entropy: u64,
    ) {
        let mut replay = Replay::default();
        let mut chosen = HashMap::new();
        for (number, (at_us, nodes, place, took_us)) in (0..).zip(requests) {
            let nodes: BTreeMap<_, _> = nodes.into_iter().collect();
            let candidates: Vec<_> = nodes.iter().map(|(&node, &in_flight)| candidate(node, in_flight, 5)).collect();
            let place = place % u32::try_from(candidates.len()).unwrap();
            chosen.insert(number, place);
            let ask = Arc::new(ChooseNode { entropy: number, ..ask(candidates, 0) });
            replay.decided(Decided { number, at_us, ask, chosen: place }).unwrap();
            if let Some(took_us) = took_us {
                replay.ended(number, finished(took_us));
            }
        }
        let same = replay.run(&mut |ask| at(ask, chosen[&ask.entropy] as usize));
        prop_assert_eq!(same.different, 0);
        prop_assert_eq!(&same.recorded, &same.replayed);
        let other = replay.run(&mut |ask| {
            assert!(!ask.candidates.is_empty());
            at(ask, usize::try_from(entropy % 4).unwrap())
        });
        prop_assert_eq!(&other.recorded, &same.recorded);
        prop_assert_eq!(other.replayed.nodes, same.replayed.nodes);
        prop_assert!(other.replayed.served_max <= other.decisions && other.replayed.latency_mean_us >= 0.0);
    }
}

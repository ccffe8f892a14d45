//! Questions for a dry run: ordinary ones, and those at the ends of what there may be.

use std::{sync::Arc, time::Instant};

use llambo_inference::{LikelyToken, NodeId};
use llambo_strategy::{
    Candidate, ChooseNode, Classify, Fuse, HostLoad, Labels, LetIn, MAX_CANDIDATES, NodeAnswer, NodeChange, NodeKind, Nodes,
    RequestFacts, ScaleType, TenantUsage, TextFeatures,
};

use crate::{examined::DryRun, instance::Failure, worlds::HookModule};

/// Rounds of questions.
const ROUNDS: u32 = 8;

/// Nodes that are there for a dry run only.
#[derive(Debug)]
struct Imagined(Vec<Candidate>);

impl Nodes for Imagined {
    fn name(&self, node: u64) -> Option<NodeId> {
        self.0.iter().any(|candidate| candidate.node == node).then(|| format!("imagined-{node}").into())
    }

    fn changes_since(&self, change: Option<u64>) -> (Vec<NodeChange>, u64, bool) {
        match change {
            None => (self.0.iter().map(|candidate| NodeChange::Open(*candidate)).collect(), 1, true),
            Some(_) => (Vec::new(), 1, false),
        }
    }
}

pub(crate) fn facts(round: u32) -> RequestFacts {
    let odd = round % 2 == 1;
    RequestFacts {
        node_type: odd.then(|| "tiny".into()),
        tier: odd.then_some(1),
        labels: if odd { Labels::from([("key".to_owned(), "value".to_owned())]) } else { Labels::default() },
        n_prompt_bytes: 1 << (2 * round),
        n_messages: round,
        max_tokens: odd.then_some(64),
        constrained: odd,
        deadline_ms: odd.then_some(1000),
        now_ms: u64::from(round) * 1000,
        explain: odd,
        ..RequestFacts::new(format!("dry-run-{round}").into(), "dry-run".into(), "default".into())
    }
}

fn candidate(place: u32, round: u32) -> Candidate {
    let served = !(place + round).is_multiple_of(3);
    let time = |us: u16| if served { f32::from(us) } else { 0.0 };
    Candidate {
        node: u64::from(place) + 1,
        kind: 0,
        in_flight: (place * 7 + round) % 4,
        capacity: 4,
        weight: 1.0,
        ttft_us: time(5000),
        latency_us: time(40_000),
        failures: if place % 8 == 7 { 0.5 } else { 0.0 },
        cached_bytes: if place == round { 256 } else { 0 },
        tier: u8::try_from(place % 3).unwrap_or(0),
    }
}

/// The same nodes throughout: a policy may remember them.
pub(crate) fn choices() -> Vec<ChooseNode> {
    let kind = NodeKind {
        node_type: "tiny".into(),
        model: "dry-run".into(),
        tenant: "default".into(),
        tier: 0,
        weight: 1.0,
        labels: Labels::default(),
    };
    let kinds = Arc::new(vec![kind]);
    let most = u32::try_from(MAX_CANDIDATES).unwrap_or(u32::MAX);
    let asked = |round: u32, n: u32| {
        let candidates: Vec<_> = (0..n).map(|place| candidate(place, round)).collect();
        ChooseNode {
            request: facts(round),
            nodes: Arc::new(Imagined(candidates.clone())),
            candidates,
            kinds: Arc::clone(&kinds),
            entropy: u64::from(round) << 61,
        }
    };
    (0..ROUNDS).flat_map(|round| [1, 3, most].map(|n| asked(round, n))).collect()
}

/// For a policy that keeps count itself, the nodes do not change between two questions.
pub(crate) fn tracked_choices() -> Vec<ChooseNode> {
    choices().into_iter().filter(|ask| ask.candidates.len() == MAX_CANDIDATES).collect()
}

pub(crate) fn admissions() -> Vec<LetIn> {
    let ask = |round: u32| LetIn {
        request: facts(round),
        load: HostLoad {
            in_flight: round,
            max_in_flight: 8,
            waiting: round.saturating_sub(4) * 10,
            max_waiting: 30,
            free_nodes: 8 - round,
            retry_after_ms: 100 * round,
        },
        usage: TenantUsage {
            in_flight: round,
            waiting: round,
            requests_last_minute: round.pow(4),
            tokens_last_minute: u64::from(round).pow(12),
        },
    };
    (0..ROUNDS).map(ask).collect()
}

pub(crate) fn classifications() -> Vec<Classify> {
    let ask = |round: u32| {
        let n = round.pow(3);
        let features = TextFeatures {
            words: n,
            lines: round,
            code_lines: round / 2,
            question_marks: round,
            digits: n,
            longest_word: 3 * round,
        };
        Classify { request: facts(round), features }
    };
    (0..ROUNDS).map(ask).collect()
}

pub(crate) fn scalings() -> Vec<ScaleType> {
    let ask = |round: u32| ScaleType {
        node_type: "tiny".into(),
        model: "dry-run".into(),
        nodes: round,
        min_nodes: 0,
        max_nodes: 100,
        in_flight: round / 2,
        capacity: round,
        waiting: round.pow(2),
        requests_per_second: 0.5,
        since_change_ms: (round > 0).then_some(u64::from(round) * 1000),
        now_ms: u64::from(round) * 5000,
    };
    (0..ROUNDS).map(ask).collect()
}

pub(crate) fn fusions() -> Vec<Fuse> {
    let answer = |place: u32| NodeAnswer {
        node: u64::from(place) + 1,
        text: if place.is_multiple_of(3) { "yes".into() } else { format!("No. {}", place % 2) },
        complete: place % 4 != 3,
        output_tokens: place,
        latency_us: 1000.0,
    };
    let ask = |n: u32, outstanding| Fuse { request: facts(n), answers: (0..n).map(answer).collect(), outstanding };
    (1..ROUNDS).flat_map(|n| [ask(n, 2), ask(n, 0)]).collect()
}

/// A few tokens in a row.
pub(crate) fn hook(module: &HookModule) -> Result<DryRun, Failure> {
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let mut since = Instant::now();
        let mut hook = module.begin(&facts(round))?;
        for position in 0..ROUNDS {
            times.push(std::mem::replace(&mut since, Instant::now()).elapsed());
            if hook.n_likeliest() > 0 {
                let likely = |id: u32| LikelyToken { id, text: b" word".to_vec(), logprob: -1.0 - id as f32 };
                let likeliest: Vec<_> = (0..u32::try_from(hook.n_likeliest()).unwrap_or(0)).map(likely).collect();
                hook.mask(&likeliest)?;
            }
            hook.on_token(position, if position == 3 { b"\xc3" } else { b" word" }, position)?;
        }
    }
    Ok(DryRun(times))
}

//! Records of routes as they come back from a client, decided again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use llambo_inference::{Labels, NodeId, TypeName};
use llambo_proto::{
    status::Failure,
    v1::{self, replay_routes_request::Part, replay_with::Balancer as With, route_record::Event},
};
use llambo_strategy::{
    Candidate, ChooseNode, MAX_CANDIDATES, NewPolicy, NodeChange, NodeKind, Nodes, Place, PolicyDesk, PolicyKind, RequestFacts,
    Source, by_name,
    replay::{Decided, Difference, End, Ended, Outcome, Replay, Replayed, built_in_decider},
};
use tonic::{Status, Streaming};

use super::{invalid, policies::refused};

/// Records of one replay: a few gigabytes of memory at most.
const MAX_RECORDS: usize = 1_000_000;

/// What is to be decided again, and by whom.
pub(super) struct Trace {
    with: v1::ReplayWith,
    replay: Replay,
    n_records: usize,
}

/// Nodes have names in a record, and numbers where they are decided about.
#[derive(Debug, Default)]
struct Named {
    by_name: HashMap<String, u64>,
    names: Vec<NodeId>,
}

/// Those of one decision.
#[derive(Debug)]
struct Numbered(BTreeMap<u64, (NodeId, Candidate)>);

impl Nodes for Numbered {
    fn name(&self, node: u64) -> Option<NodeId> {
        self.0.get(&node).map(|(name, _)| name.clone())
    }

    /// Who keeps count begins anew with each decision: nothing else is known of the others.
    fn changes_since(&self, _: Option<u64>) -> (Vec<NodeChange>, u64, bool) {
        (self.0.values().map(|(_, candidate)| NodeChange::Open(*candidate)).collect(), 0, true)
    }
}

impl Named {
    fn number(&mut self, name: &str) -> u64 {
        if let Some(number) = self.by_name.get(name) {
            return *number;
        }
        self.names.push(name.into());
        let number = self.names.len() as u64;
        self.by_name.insert(name.to_owned(), number);
        number
    }
}

/// Reads what a client sends.
pub(super) async fn read(mut parts: Streaming<v1::ReplayRoutesRequest>) -> Result<Trace, Status> {
    let first = parts.try_next().await?.and_then(|first| first.part);
    let Some(Part::With(with)) = first else {
        return Err(invalid("the first message has no `with`; say first what decides"));
    };
    let mut trace = Trace { with, replay: Replay::default(), n_records: 0 };
    let mut named = Named::default();
    while let Some(part) = parts.try_next().await? {
        match part.part {
            Some(Part::Record(record)) => trace.add(record, &mut named)?,
            Some(Part::With(_)) => return Err(invalid("`with` comes again; it is the first message only")),
            None => {}
        }
    }
    Ok(trace)
}

fn broken(what: impl Into<String>) -> Status {
    Failure::new("INVALID_TRACE", what).into_status()
}

impl Trace {
    fn add(&mut self, record: v1::RouteRecord, named: &mut Named) -> Result<(), Status> {
        self.n_records += 1;
        if self.n_records > MAX_RECORDS {
            return Err(broken(format!("the trace has more than {MAX_RECORDS} records; replay it in parts")));
        }
        match record.event {
            Some(Event::Decision(decision)) => {
                let number = decision.number;
                let decided = decided(decision, named)
                    .map_err(|what| broken(format!("record {}, decision {number}: {what}", self.n_records)))?;
                self.replay.decided(decided).map_err(|e| broken(format!("record {}: {e}", self.n_records)))
            }
            Some(Event::End(end)) => {
                let how = if end.outcome == "finished" { End::Finished } else { End::Broken };
                self.replay.ended(end.number, Ended { latency_us: end.latency_us, how });
                Ok(())
            }
            Some(Event::NMissed(_)) | None => Ok(()),
        }
    }

    /// Decides everything again. Takes as long as that takes.
    pub(super) fn replay(self, desk: &dyn PolicyDesk) -> Result<v1::ReplayRoutesResponse, Status> {
        let Self { with, replay, .. } = self;
        let v1::ReplayWith { balancer, parameters, time_us, memory_bytes } = with;
        let replayed = match balancer {
            Some(With::Strategy(name)) => {
                let strategy = by_name(&name).map_err(|e| super::not_done(&e.into()))?;
                replay.run(&mut built_in_decider(strategy))
            }
            Some(With::Wasm(wasm)) => {
                let policy = desk.on_trial(NewPolicy {
                    kind: PolicyKind::Balancer,
                    name: "replayed".into(),
                    wasm: wasm.into(),
                    place: Place::Live,
                    parameters,
                    time: (time_us > 0).then(|| Duration::from_micros(time_us.into())),
                    memory_bytes: (memory_bytes > 0).then_some(memory_bytes),
                    source: Source::Client,
                });
                let policy = policy.map_err(|e| refused(&e))?;
                replay.run(&mut |ask| {
                    let began = Instant::now();
                    let decision = policy.decide(ask);
                    let took = began.elapsed();
                    (decision.answer, decision.fallback, took)
                })
            }
            None => return Err(invalid("`with` names neither `wasm` nor `strategy`; say what decides")),
        };
        Ok(wire(replayed))
    }
}

fn decided(decision: v1::RouteDecision, named: &mut Named) -> Result<Decided, String> {
    let route = decision.route.ok_or("it has no route")?;
    let n = route.candidates.len();
    if n == 0 || n > MAX_CANDIDATES {
        return Err(format!("it has {n} candidates, and must have 1 to {MAX_CANDIDATES}"));
    }
    let chosen = route.candidates.iter().position(|candidate| candidate.node == route.chosen);
    // a node that was full by then may be no candidate, where a policy that keeps count chose it
    let chosen = chosen.ok_or_else(|| format!("`{}` was chosen and is no candidate", route.chosen))?;
    if !(decision.at_ms.is_finite() && decision.at_ms >= 0.0) {
        return Err(format!("`at_ms` is {}", decision.at_ms));
    }
    let request = RequestFacts {
        node_type: (!decision.r#type.is_empty()).then(|| TypeName::from(&decision.r#type)),
        tier: route.tier.and_then(|tier| u8::try_from(tier).ok()),
        labels: decision.labels.into_iter().collect(),
        n_prompt_bytes: decision.prompt_bytes,
        n_messages: decision.n_messages,
        max_tokens: decision.max_tokens,
        constrained: decision.constrained,
        deadline_ms: decision.deadline_ms,
        n_failed: u32::try_from(route.failed.len()).unwrap_or(u32::MAX),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "milliseconds of a host's life, checked above"
        )]
        now_ms: decision.at_ms as u64,
        ..RequestFacts::new(decision.request_id.into(), decision.model.as_str().into(), decision.tenant.into())
    };
    let (mut kinds, mut candidates, mut nodes) = (Vec::<NodeKind>::new(), Vec::with_capacity(n), BTreeMap::new());
    for row in route.candidates {
        let tier = u8::try_from(row.tier).unwrap_or(u8::MAX);
        let kind = NodeKind {
            node_type: TypeName::from(&row.r#type),
            model: decision.model.as_str().into(),
            tenant: request.tenant.clone(),
            tier,
            #[expect(clippy::cast_possible_truncation, reason = "policies need no more digits")]
            weight: row.weight as f32,
            labels: Labels::default(),
        };
        let at = kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
            kinds.push(kind);
            kinds.len() - 1
        });
        #[expect(clippy::cast_possible_truncation, reason = "averages, which have no more digits to begin with")]
        let candidate = Candidate {
            node: named.number(&row.node),
            kind: u32::try_from(at).unwrap_or(u32::MAX),
            in_flight: row.in_flight,
            capacity: row.capacity,
            weight: row.weight as f32,
            ttft_us: row.ttft_us as f32,
            latency_us: row.latency_us as f32,
            failures: row.failures as f32,
            cached_bytes: row.cached_bytes,
            tier,
        };
        nodes.insert(candidate.node, (NodeId::from(&row.node), candidate));
        candidates.push(candidate);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as above")]
    let at_us = (decision.at_ms * 1e3) as u64;
    let nodes = Arc::new(Numbered(nodes));
    let ask = Arc::new(ChooseNode { request, candidates, kinds: Arc::new(kinds), nodes, entropy: decision.entropy });
    Ok(Decided { number: decision.number, at_us, ask, chosen: u32::try_from(chosen).unwrap_or(u32::MAX) })
}

fn wire(replayed: Replayed) -> v1::ReplayRoutesResponse {
    let outcome = |outcome: Outcome| v1::ReplayOutcome {
        nodes: outcome.nodes,
        served_max: outcome.served_max,
        served_min: outcome.served_min,
        spread: outcome.spread,
        latency_mean_us: outcome.latency_mean_us,
        latency_p95_us: outcome.latency_p95_us,
        cached_share: outcome.cached_share,
    };
    let difference = |Difference { number, request, recorded, replayed }| v1::ReplayDifference {
        number,
        request_id: request.to_string(),
        recorded,
        replayed,
    };
    v1::ReplayRoutesResponse {
        decisions: replayed.decisions,
        different: replayed.different,
        with_choice: replayed.with_choice,
        recorded: Some(outcome(replayed.recorded)),
        replayed: Some(outcome(replayed.replayed)),
        fallbacks: replayed.fallbacks.iter().map(|(cause, n)| (cause.as_str().to_owned(), *n)).collect(),
        call_p50_ns: replayed.call_p50_ns,
        call_p99_ns: replayed.call_p99_ns,
        differences: replayed.differences.into_iter().map(difference).collect(),
        idle_latency_us: replayed.idle_latency_us,
        added_latency_us: replayed.added_latency_us,
    }
}

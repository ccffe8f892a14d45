//! How a node was chosen, on the wire.

use std::time::Duration;

use llambo_inference::TypeName;
use llambo_orchestrator::{Route, RouteRecord, TierBy, TierNote};
use llambo_proto::v1;
use llambo_strategy::{ChooseNode, PolicyRef};

pub(super) fn policy(by: &PolicyRef) -> v1::PolicyRef {
    v1::PolicyRef {
        kind: by.kind.as_str().to_owned(),
        name: by.name.to_string(),
        sha256: by.sha256.to_string(),
        generation: by.generation,
        role: by.role.as_str().to_owned(),
    }
}

/// Types are told where they are known: `route.kinds` has them.
pub(crate) fn wire(route: &Route) -> v1::Route {
    let candidates = route.candidates.iter().map(|row| {
        let candidate = &row.candidate;
        let kind = route.kinds.get(candidate.kind as usize);
        v1::RouteCandidate {
            node: row.node.to_string(),
            r#type: kind.map_or_else(String::new, |kind| kind.node_type.to_string()),
            in_flight: candidate.in_flight,
            capacity: candidate.capacity,
            weight: candidate.weight.into(),
            ttft_us: candidate.ttft_us.into(),
            latency_us: candidate.latency_us.into(),
            failures: candidate.failures.into(),
            cached_bytes: candidate.cached_bytes,
            tier: candidate.tier.into(),
            score: row.score,
        }
    });
    v1::Route {
        strategy: route.strategy.to_owned(),
        policy: route.policy.as_deref().map(policy),
        fallback: route.fallback.map_or_else(String::new, |cause| cause.as_str().to_owned()),
        candidates: candidates.collect(),
        n_eligible: u32::try_from(route.n_eligible).unwrap_or(u32::MAX),
        chosen: route.chosen.to_string(),
        decision_ns: route.decision.as_secs_f64() * 1e9,
        failed: route.failed.iter().map(ToString::to_string).collect(),
        waited_ms: ms(route.waited),
        shadow: route.shadow.as_ref().map_or_else(String::new, ToString::to_string),
        tier: route.tier.map(u32::from),
        tier_by: route.tier_by.map_or("", TierBy::as_str).to_owned(),
        tier_reason: route.tier_why.clone().unwrap_or_default(),
        admission: route.deferred.map_or("", |deferred| if deferred { "queue" } else { "admit" }).to_owned(),
    }
}

/// Which tier serves an answer, and why.
pub(crate) fn tier(note: &TierNote) -> v1::TierServed {
    let (server, tier) = note.serves();
    v1::TierServed {
        node: server.to_string(),
        tier: tier.into(),
        wanted: note.wanted.map(u32::from),
        by: note.by().map_or("", TierBy::as_str).to_owned(),
        reason: note.reason(),
        fell_back: note.fell_back(),
    }
}

pub(super) fn record(record: &RouteRecord) -> v1::RouteRecord {
    let event = match record {
        RouteRecord::Decision { number, at, ask, route } => v1::route_record::Event::Decision(decision(*number, *at, ask, route)),
        RouteRecord::End { number, at, outcome, ttft, latency, usage } => v1::route_record::Event::End(v1::RouteEnd {
            number: *number,
            at_ms: ms(*at),
            outcome: (*outcome).to_owned(),
            ttft_us: ttft.map_or(0.0, us),
            latency_us: us(*latency),
            input_tokens: usage.input_tokens,
            cached_tokens: usage.cached_tokens,
            output_tokens: usage.output_tokens,
        }),
    };
    v1::RouteRecord { event: Some(event) }
}

fn decision(number: u64, at: Duration, ask: &ChooseNode, route: &Route) -> v1::RouteDecision {
    let request = &ask.request;
    v1::RouteDecision {
        number,
        at_ms: ms(at),
        request_id: request.id.to_string(),
        model: request.model.to_string(),
        r#type: request.node_type.as_ref().map_or("", TypeName::as_str).to_owned(),
        tenant: request.tenant.to_string(),
        labels: request.labels.iter().cloned().collect(),
        prompt_bytes: request.n_prompt_bytes,
        n_messages: request.n_messages,
        max_tokens: request.max_tokens,
        constrained: request.constrained,
        deadline_ms: request.deadline_ms,
        route: Some(wire(route)),
        entropy: ask.entropy,
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
};

use futures::StreamExt;
use llambo_client::{StatusResponse, TierCount};
use serde_json::{Value, json};

use super::{Session, listings::model_json};
use crate::{
    args::Status,
    exit::{Failure, OK},
    output,
};

/// Every state a node can be in: JSON carries all of them, so that programs need no case for an absent one.
const STATES: [&str; 7] = ["starting", "ready", "busy", "hibernated", "draining", "stopped", "failed"];
/// Moves to the top left and clears what is below: the next status takes the place of the last.
const CLEAR: &str = "\x1b[H\x1b[J";

pub(crate) async fn status(session: &Session, args: &Status) -> Result<u8, Failure> {
    if !args.watch {
        let status = session.client.status().await?;
        write(&mut io::stdout().lock(), &status, session.json)?;
        return Ok(OK);
    }
    let mut statuses = session.client.watch(args.interval).await?;
    let redraws = !session.json && io::stdout().is_terminal();
    while let Some(status) = statuses.next().await {
        let mut text = Vec::new();
        if redraws {
            text.extend_from_slice(CLEAR.as_bytes());
        }
        write(&mut text, &status?, session.json)?;
        let mut out = io::stdout().lock();
        out.write_all(&text)?;
        out.flush()?;
    }
    // the host ends a watch only when it goes
    Ok(OK)
}

fn write(out: &mut impl Write, status: &StatusResponse, json: bool) -> io::Result<()> {
    if json { output::json(out, &to_json(status)) } else { to_text(out, status) }
}

fn to_json(s: &StatusResponse) -> Value {
    let (queue, totals) = (s.queue.unwrap_or_default(), s.totals.unwrap_or_default());
    let mut nodes: BTreeMap<&str, u32> = STATES.iter().map(|state| (*state, 0)).collect();
    nodes.extend(s.nodes_by_state.iter().map(|(state, n)| (state.as_str(), *n)));
    let total: u32 = nodes.values().sum();
    nodes.insert("total", total);
    json!({
        "version": s.version,
        "uptime_seconds": s.uptime_seconds,
        "draining": s.draining,
        "strategy": s.strategy,
        "nodes": nodes,
        "nodes_by_type": s.nodes_by_type.iter().collect::<BTreeMap<_, _>>(),
        "queue": {
            "waiting": queue.waiting,
            "max_waiting": queue.max_waiting,
            "in_flight": queue.in_flight,
            "max_in_flight": queue.max_in_flight,
        },
        "requests": {
            "total": totals.requests,
            "finished": totals.finished,
            "failed": totals.failed,
            "cancelled": totals.cancelled,
            "rejected": totals.rejected,
            "redispatched": totals.redispatched,
        },
        "tokens": { "input": totals.input_tokens, "output": totals.output_tokens },
        "models": s.models.iter().map(model_json).collect::<Value>(),
        "resident_bytes": s.resident_bytes,
        "tiers": tiers_json(&s.tiers),
    })
}

fn to_text(out: &mut impl Write, s: &StatusResponse) -> io::Result<()> {
    let (queue, totals) = (s.queue.unwrap_or_default(), s.totals.unwrap_or_default());
    let draining = if s.draining { ", draining" } else { "" };
    let by_state: Vec<String> =
        STATES.iter().filter_map(|state| s.nodes_by_state.get(*state).map(|n| format!("{n} {}", output::state(state)))).collect();
    let by_type: Vec<String> =
        s.nodes_by_type.iter().collect::<BTreeMap<_, _>>().iter().map(|(name, n)| format!("{n} {name}")).collect();
    let total: u32 = s.nodes_by_state.values().sum();
    writeln!(out, "host      llambo {}, up {}{draining}", s.version, output::age(s.uptime_seconds))?;
    writeln!(out, "nodes     {total}: {}", listed(&by_state))?;
    writeln!(out, "types     {}", listed(&by_type))?;
    writeln!(out, "balancer  {}", s.strategy)?;
    // a host without a limit of its own says the largest number there is
    let of_limit = |n: u32, limit: u32| if limit == u32::MAX { n.to_string() } else { format!("{n} of {limit}") };
    let in_flight = of_limit(queue.in_flight, queue.max_in_flight);
    writeln!(out, "queue     {in_flight} in flight, {} waiting", of_limit(queue.waiting, queue.max_waiting))?;
    writeln!(
        out,
        "requests  {}: {} finished, {} failed, {} cancelled, {} rejected, {} sent again",
        totals.requests, totals.finished, totals.failed, totals.cancelled, totals.rejected, totals.redispatched
    )?;
    if !s.tiers.is_empty() {
        writeln!(out, "tiers     {}", tiers(&s.tiers))?;
    }
    writeln!(out, "tokens    {} in, {} out", output::count(totals.input_tokens), output::count(totals.output_tokens))?;
    for (i, m) in s.models.iter().enumerate() {
        let label = if i == 0 { "models" } else { "" };
        writeln!(
            out,
            "{label:<8}  {}: {}{} of {} sequences decoding, {} waiting, {}",
            m.name,
            if matches!(m.state.as_str(), "" | "loaded") { String::new() } else { format!("{}, ", m.state) },
            m.n_running,
            m.n_sequences,
            m.n_waiting,
            output::bytes(m.size_bytes)
        )?;
    }
    writeln!(out, "memory    {} resident", output::bytes(s.resident_bytes))
}

/// Requests that were for tier 0, and those of them that it served.
fn simple(tiers: &[TierCount]) -> (u64, u64) {
    let n = |is_meant: fn(&TierCount) -> bool| tiers.iter().filter(|count| is_meant(count)).map(|count| count.requests).sum();
    (n(|count| count.wanted == 0), n(|count| (count.wanted, count.served) == (0, 0)))
}

/// `null` where there were none.
fn kept_share((simple, kept): (u64, u64)) -> Option<f64> {
    (simple > 0).then(|| kept as f64 / simple as f64)
}

fn tiers_json(tiers: &[TierCount]) -> Value {
    let (simple, kept) = simple(tiers);
    let row = |count: &TierCount| json!({ "wanted": count.wanted, "served": count.served, "requests": count.requests });
    let requests: Value = tiers.iter().map(row).collect();
    json!({ "simple": simple, "kept": kept, "kept_share": kept_share((simple, kept)), "requests": requests })
}

fn tiers(tiers: &[TierCount]) -> String {
    let counts = simple(tiers);
    let share =
        kept_share(counts).map(|share| format!("{} of {} simple requests kept on tier 0", output::percent(share), counts.0));
    let wanted: BTreeMap<u32, (u64, u64)> = tiers.iter().fold(BTreeMap::new(), |mut all, count| {
        let (requests, kept) = all.entry(count.wanted).or_default();
        *requests += count.requests;
        *kept += if count.served == count.wanted { count.requests } else { 0 };
        all
    });
    let others = wanted.iter().filter(|(tier, _)| **tier > 0);
    let others = others.map(|(tier, (requests, kept))| format!("{kept} of {requests} for tier {tier} served by it"));
    share.into_iter().chain(others).collect::<Vec<_>>().join("; ")
}

fn listed(parts: &[String]) -> String {
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_every_state_and_their_sum() {
        let status = StatusResponse { nodes_by_state: [("ready".into(), 3), ("busy".into(), 1)].into(), ..Default::default() };
        let json = to_json(&status);
        assert_eq!(
            (&json["nodes"]["ready"], &json["nodes"]["failed"], &json["nodes"]["total"]),
            (&3.into(), &0.into(), &4.into())
        );
        assert_eq!(json["tokens"]["output"], 0);
    }

    #[test]
    fn simple_requests_that_stayed_on_tier_0_are_a_share() {
        let count = |wanted, served, requests| TierCount { wanted, served, requests };
        let status = StatusResponse { tiers: vec![count(0, 0, 90), count(0, 2, 10), count(2, 2, 7)], ..Default::default() };
        let json = to_json(&status);
        assert_eq!((&json["tiers"]["simple"], &json["tiers"]["kept"]), (&100.into(), &90.into()));
        assert_eq!(json["tiers"]["kept_share"], 0.9);
        assert_eq!(tiers(&status.tiers), "90% of 100 simple requests kept on tier 0; 7 of 7 for tier 2 served by it");
        assert_eq!(to_json(&StatusResponse::default())["tiers"]["kept_share"], Value::Null);
    }

    #[test]
    fn an_empty_cluster_is_told_without_gaps() {
        let mut out = Vec::new();
        to_text(&mut out, &StatusResponse::default()).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("nodes     0: none\ntypes     none\n"), "{text}");
    }
}

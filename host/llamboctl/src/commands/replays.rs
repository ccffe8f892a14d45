//! How the outcome of a replay looks.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use llambo_client::{ReplayOutcome, ReplayRoutesResponse};
use serde_json::{Value, json};

use crate::output::{
    self,
    Align::{Left, Right},
    nanos, percent,
};

pub(super) fn show(out: &mut impl Write, done: &ReplayRoutesResponse) -> io::Result<()> {
    let ReplayRoutesResponse { decisions, different, with_choice, .. } = done;
    let share = |of: u64| percent(*different as f64 / of.max(1) as f64);
    writeln!(out, "{decisions} decisions, {with_choice} of them with a choice")?;
    writeln!(out, "{different} name another node: {} of all, {} of those with a choice", share(*decisions), share(*with_choice))?;
    writeln!(out)?;
    let (recorded, replayed) = (done.recorded.unwrap_or_default(), done.replayed.unwrap_or_default());
    let line = |name: &str, of: fn(&ReplayOutcome) -> String| [name.to_owned(), of(&recorded), of(&replayed)];
    let rows = [
        line("nodes", |o| o.nodes.to_string()),
        line("requests of the busiest", |o| o.served_max.to_string()),
        line("requests of the idlest", |o| o.served_min.to_string()),
        line("spread", |o| format!("{:.3}", o.spread)),
        line("latency, mean", |o| nanos(o.latency_mean_us * 1e3)),
        line("latency, 95th percentile", |o| nanos(o.latency_p95_us * 1e3)),
        line("prompt bytes cached", |o| percent(o.cached_share)),
    ];
    output::table(out, [("", Left), ("RECORDED", Right), ("REPLAYED", Right)], &rows)?;
    writeln!(out)?;
    let (idle, added) = (nanos(done.idle_latency_us * 1e3), nanos(done.added_latency_us * 1e3));
    writeln!(out, "latencies are estimated: {idle} on an idle node, and {added} for each other request there")?;
    writeln!(out, "a call took {} (median), {} (99th percentile)", nanos(done.call_p50_ns), nanos(done.call_p99_ns))?;
    let fallbacks: BTreeMap<_, _> = done.fallbacks.iter().filter(|(_, n)| **n > 0).collect();
    if !fallbacks.is_empty() {
        let causes: Vec<String> = fallbacks.iter().map(|(why, n)| format!("{n} {}", output::for_terminal(why))).collect();
        let total: u64 = fallbacks.values().copied().sum();
        writeln!(out, "the built-in strategy decided {total} in its place: {}", causes.join(", "))?;
    }
    if !done.differences.is_empty() {
        writeln!(out, "\nthe first that differ:")?;
        let columns = [("NUMBER", Right), ("REQUEST", Left), ("RECORDED", Left), ("REPLAYED", Left)];
        let shown = |text: &str| output::for_terminal(text).into_owned();
        let rows: Vec<_> = done
            .differences
            .iter()
            .map(|d| [d.number.to_string(), shown(&d.request_id), shown(&d.recorded), shown(&d.replayed)])
            .collect();
        output::table(out, columns, &rows)?;
    }
    Ok(())
}

pub(super) fn to_json(done: &ReplayRoutesResponse) -> Value {
    let fallbacks: BTreeMap<_, _> = done.fallbacks.iter().collect();
    let differences: Value = done
        .differences
        .iter()
        .map(|d| json!({ "number": d.number, "request_id": d.request_id, "recorded": d.recorded, "replayed": d.replayed }))
        .collect();
    json!({
        "decisions": done.decisions,
        "different": done.different,
        "with_choice": done.with_choice,
        "recorded": outcome_json(&done.recorded.unwrap_or_default()),
        "replayed": outcome_json(&done.replayed.unwrap_or_default()),
        "fallbacks": fallbacks,
        "call_p50_ns": done.call_p50_ns,
        "call_p99_ns": done.call_p99_ns,
        "differences": differences,
        "idle_latency_us": done.idle_latency_us,
        "added_latency_us": done.added_latency_us,
    })
}

fn outcome_json(o: &ReplayOutcome) -> Value {
    json!({
        "nodes": o.nodes,
        "served_max": o.served_max,
        "served_min": o.served_min,
        "spread": o.spread,
        "latency_mean_us": o.latency_mean_us,
        "latency_p95_us": o.latency_p95_us,
        "cached_share": o.cached_share,
    })
}

#[cfg(test)]
mod tests {
    use llambo_client::ReplayDifference;

    use super::*;

    #[test]
    fn a_comparison_lines_up() {
        let outcome = |served_max| ReplayOutcome {
            nodes: 12,
            served_max,
            served_min: 80,
            spread: 0.1,
            latency_mean_us: 12_300.0,
            latency_p95_us: 1.5e6,
            cached_share: 0.315,
        };
        let done = ReplayRoutesResponse {
            decisions: 1200,
            different: 300,
            with_choice: 600,
            recorded: Some(outcome(120)),
            replayed: Some(outcome(9)),
            fallbacks: [("trap".to_owned(), 1), ("timeout".to_owned(), 3), ("memory".to_owned(), 0)].into(),
            call_p50_ns: 1250.0,
            call_p99_ns: 4000.0,
            differences: vec![ReplayDifference {
                number: 7,
                request_id: "r\x1b-7".into(),
                recorded: "tiny-1".into(),
                replayed: "tiny-2".into(),
            }],
            idle_latency_us: 10_000.0,
            added_latency_us: 250.0,
        };
        let mut out = Vec::new();
        show(&mut out, &done).unwrap();
        let expected = "\
1200 decisions, 600 of them with a choice
300 name another node: 25% of all, 50% of those with a choice

                          RECORDED  REPLAYED
nodes                           12        12
requests of the busiest        120         9
requests of the idlest          80        80
spread                       0.100     0.100
latency, mean              12.3 ms   12.3 ms
latency, 95th percentile     1.5 s     1.5 s
prompt bytes cached          31.5%     31.5%

latencies are estimated: 10.0 ms on an idle node, and 250.0 µs for each other request there
a call took 1.2 µs (median), 4.0 µs (99th percentile)
the built-in strategy decided 4 in its place: 3 timeout, 1 trap

the first that differ:
NUMBER  REQUEST  RECORDED  REPLAYED
     7  r-7      tiny-1    tiny-2
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert_eq!(to_json(&done)["replayed"]["served_max"], 9);
    }
}

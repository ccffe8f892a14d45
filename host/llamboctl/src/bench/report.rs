use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{load::Pace, tally::Tally};
use crate::output::{
    self,
    Align::{Left, Right},
};

pub(crate) fn to_json(tally: &Tally, pace: Pace, is_cut_short: bool) -> Value {
    let (served_min, served_max) = spread(tally);
    let mut report = json!({
        "finished": tally.finished,
        "failed": tally.failed(),
        "errors": tally.errors,
        "interrupted": is_cut_short,
        "seconds": tally.elapsed.as_secs_f64(),
        "requests_per_second": tally.per_second(tally.finished),
        "output_tokens": tally.output_tokens,
        "tokens_per_second": tally.per_second(tally.output_tokens),
        "ttft_ms": quantiles(&tally.ttft),
        "inter_token_ms": quantiles(&tally.inter_token),
        "total_ms": quantiles(&tally.total),
        "nodes": { "distinct": tally.nodes.len(), "min_served": served_min, "max_served": served_max },
    });
    match pace {
        Pace::Closed { concurrency, requests } => {
            report["mode"] = "closed".into();
            report["concurrency"] = concurrency.into();
            report["requests"] = requests.into();
        }
        Pace::Timed { concurrency, .. } => {
            report["mode"] = "closed".into();
            report["concurrency"] = concurrency.into();
            report["requests"] = (tally.finished + tally.failed()).into();
        }
        Pace::Open { per_second, requests } => {
            report["mode"] = "open".into();
            report["rate"] = per_second.into();
            report["requests"] = requests.into();
        }
    }
    report
}

pub(crate) fn to_text(out: &mut impl Write, tally: &Tally, pace: Pace, is_cut_short: bool) -> io::Result<()> {
    let seconds = tally.elapsed.as_secs_f64();
    match pace {
        Pace::Closed { concurrency, .. } | Pace::Timed { concurrency, .. } => {
            write!(out, "closed loop, {concurrency} in flight")?;
        }
        Pace::Open { per_second, .. } => write!(out, "open loop, {per_second} requests/s, latencies from the intended start")?,
    }
    writeln!(out, "{}", if is_cut_short { ", interrupted" } else { "" })?;
    let (finished, failed) = (tally.finished, tally.failed());
    writeln!(out, "requests  {finished} finished, {failed} failed in {seconds:.2} s: {:.1}/s", tally.per_second(finished))?;
    for (reason, n) in &tally.errors {
        writeln!(out, "          {n} {reason}")?;
    }
    writeln!(out, "tokens    {}: {:.1}/s", tally.output_tokens, tally.per_second(tally.output_tokens))?;
    let (min, max) = spread(tally);
    writeln!(out, "nodes     {} distinct, {min} to {max} requests each\n", tally.nodes.len())?;
    let row = |name: &str, h: &Histogram<u64>| {
        let at = |q| if h.is_empty() { "-".to_owned() } else { format!("{:.2}", ms(h.value_at_quantile(q))) };
        [name.to_owned(), at(0.5), at(0.9), at(0.99), at(0.999), at(1.0)]
    };
    let rows = [row("first token", &tally.ttft), row("between tokens", &tally.inter_token), row("whole answer", &tally.total)];
    let columns = [("ms", Left), ("p50", Right), ("p90", Right), ("p99", Right), ("p99.9", Right), ("max", Right)];
    output::table(out, columns, &rows)
}

/// Requests served by the idlest and the busiest of the nodes that served any.
fn spread(tally: &Tally) -> (u64, u64) {
    let served = || tally.nodes.values().copied();
    (served().min().unwrap_or(0), served().max().unwrap_or(0))
}

/// `null` when nothing was measured.
fn quantiles(h: &Histogram<u64>) -> Value {
    if h.is_empty() {
        return Value::Null;
    }
    let at = |q| ms(h.value_at_quantile(q));
    json!({
        "mean": h.mean() / 1e3, "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": ms(h.max()),
    })
}

fn ms(us: u64) -> f64 {
    us as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::tally::Sample, *};

    #[test]
    fn the_report_counts_nodes_and_rates() {
        let mut tally = Tally { elapsed: Duration::from_secs(2), ..Tally::default() };
        for node in ["a", "a", "b"] {
            let total = Duration::from_millis(20);
            tally.add(Sample { node: node.into(), n_tokens: 10, total, ttft: Some(total / 2), ..Sample::default() });
        }
        let report = to_json(&tally, Pace::Closed { concurrency: 2, requests: 3 }, false);
        assert_eq!(report["nodes"], json!({ "distinct": 2, "min_served": 1, "max_served": 2 }));
        assert_eq!((&report["requests_per_second"], &report["tokens_per_second"]), (&json!(1.5), &json!(15.0)));
        assert!((report["ttft_ms"]["p50"].as_f64().unwrap() - 10.0).abs() < 0.1, "{report}");
        assert_eq!(report["inter_token_ms"], Value::Null);
        let mut text = Vec::new();
        to_text(&mut text, &tally, Pace::Closed { concurrency: 2, requests: 3 }, false).unwrap();
        assert!(String::from_utf8(text).unwrap().contains("2 distinct, 1 to 2 requests each"));
    }
}

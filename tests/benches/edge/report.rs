//! Pairs of runs as figures, and whether they are good enough.

use std::thread::available_parallelism;

use serde_json::{Value, json};

use crate::{Args, Loop, load::Run};

/// Of a bare server's requests a second, llambo must reach this.
const LEAST_RATIO: f64 = 0.7;
/// Milliseconds that llambo may add to the 99th percentile.
const MOST_ADDED_MS: f64 = 1.0;

pub(crate) struct Report {
    pairs: u32,
    rate: f64,
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    loops: Loop,
    /// llambo and the bare server.
    pairs: Vec<(Run, Run)>,
}

/// The median, the lowest and the highest.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    lowest: f64,
    highest: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Self { median: values[values.len() / 2], lowest: values[0], highest: values[values.len() - 1] }
    }

    fn shown(self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$} to {:.digits$})", self.median, self.lowest, self.highest)
    }

    fn json(self) -> Value {
        json!({"median": self.median, "lowest": self.lowest, "highest": self.highest})
    }
}

impl Row {
    fn each(&self, of: fn(&Run) -> f64) -> [Spread; 2] {
        [Spread::of(self.pairs.iter().map(|pair| of(&pair.0))), Spread::of(self.pairs.iter().map(|pair| of(&pair.1)))]
    }

    /// What is compared: requests a second as a ratio, or milliseconds added at the 99th percentile.
    fn compared(&self) -> Spread {
        Spread::of(self.pairs.iter().map(|(llambo, bare)| match self.loops {
            Loop::Closed => llambo.requests_per_second / bare.requests_per_second,
            Loop::Open => llambo.p99 - bare.p99,
        }))
    }

    fn is_met(&self) -> bool {
        match self.loops {
            Loop::Closed => self.compared().median >= LEAST_RATIO,
            Loop::Open => self.compared().median <= MOST_ADDED_MS,
        }
    }
}

impl Report {
    pub(crate) fn new(args: &Args) -> Self {
        Self { pairs: args.pairs, rate: args.rate, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, name: &'static str, loops: Loop, pairs: Vec<(Run, Run)>) {
        self.rows.push(Row { name, loops, pairs });
    }

    pub(crate) fn all_met(&self) -> bool {
        self.rows.iter().all(Row::is_met)
    }

    pub(crate) fn print(&self) {
        println!("{} pairs of runs; median (lowest to highest)\n", self.pairs);
        for row in &self.rows {
            println!("{}", row.name);
            let line = |what: &str, of: fn(&Run) -> f64, digits| {
                let [llambo, bare] = row.each(of);
                println!("  {what:<28} llambo {:<32} tonic {}", llambo.shown(digits), bare.shown(digits));
            };
            match row.loops {
                Loop::Closed => line("requests a second", |run| run.requests_per_second, 0),
                Loop::Open => {
                    println!("  {} requests a second offered", self.rate);
                    line("p50, ms", |run| run.p50, 3);
                    line("p99, ms", |run| run.p99, 3);
                    line("p99.9, ms", |run| run.p999, 3);
                }
            }
            line("server's CPU, us a request", |run| run.cpu_us_per_request, 1);
            let verdict = if row.is_met() { "met" } else { "MISSED" };
            match row.loops {
                Loop::Closed => {
                    println!("  llambo / tonic               {}: goal >= {LEAST_RATIO} {verdict}", row.compared().shown(2));
                }
                Loop::Open => {
                    println!("  added at p99, ms             {}: goal <= {MOST_ADDED_MS} {verdict}", row.compared().shown(3));
                }
            }
            println!();
        }
    }

    pub(crate) fn to_json(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            let both = |of: fn(&Run) -> f64| {
                let [llambo, bare] = row.each(of);
                json!({"llambo": llambo.json(), "tonic": bare.json()})
            };
            let mut told = json!({
                "name": row.name,
                "requests_per_second": both(|run| run.requests_per_second),
                "cpu_us_per_request": both(|run| run.cpu_us_per_request),
                "met": row.is_met(),
            });
            match row.loops {
                Loop::Closed => told["ratio"] = row.compared().json(),
                Loop::Open => {
                    told["p50_ms"] = both(|run| run.p50);
                    told["p99_ms"] = both(|run| run.p99);
                    told["p999_ms"] = both(|run| run.p999);
                    told["added_p99_ms"] = row.compared().json();
                }
            }
            told
        });
        let report = json!({
            "pairs": self.pairs,
            "rate": self.rate,
            "cores": available_parallelism().map_or(0, usize::from),
            "scenarios": rows.collect::<Vec<_>>(),
        });
        serde_json::to_string_pretty(&report).expect("values made here are sound") + "\n"
    }
}

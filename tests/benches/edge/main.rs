//! What llambo's edge and orchestrator cost: beside a bare tonic server that answers the same messages, in turns on this machine.
//!
//! `cargo bench --workspace --bench edge`. Nothing is computed behind either: both have their answers at once. Each is a process of its own, and so is the
//! load generator, which shares the processor with them. Requests a second are those of 64 clients that ask again as soon as they have their answer (closed loop);
//! latencies are those of requests that come when they come, counted from when each should have been sent (open loop), so that a server that is late is not spared
//! those that it held up. A figure is the median of the pairs, with the lowest and the highest.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has nothing to report")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of requests, which are small and positive")]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a bench speaks to whoever started it")]

mod load;
mod report;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use llambo_tests::rehearsal::Rehearsal;

use crate::{
    load::{Call, Load, Run},
    report::Report,
};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(about = "Measure llambo's edge beside a bare tonic server")]
pub(crate) struct Args {
    /// Pairs of runs for each figure
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pairs: u32,
    /// Seconds of each run in closed loop
    #[arg(long, default_value_t = 3.0, value_name = "S")]
    closed_seconds: f64,
    /// Seconds of each run in open loop
    #[arg(long, default_value_t = 10.0, value_name = "S")]
    open_seconds: f64,
    /// Requests a second in open loop
    #[arg(long, default_value_t = 2000.0, value_name = "N")]
    rate: f64,
    /// Only what has this in its name: `infer`, `generate` or `open`
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// End with an error when a goal is missed
    #[arg(long)]
    check: bool,
    /// Write the report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// One thing that is measured.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    call: Call,
    loops: Loop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loop {
    Closed,
    Open,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario { name: "infer, closed loop", call: Call::Infer, loops: Loop::Closed },
    Scenario { name: "generate, closed loop", call: Call::Generate, loops: Loop::Closed },
    Scenario { name: "infer, open loop", call: Call::Infer, loops: Loop::Open },
    Scenario { name: "generate, open loop", call: Call::Generate, loops: Loop::Open },
];

impl Scenario {
    fn run(&self, args: &Args, load: &Load) -> Run {
        match self.loops {
            Loop::Closed => load.closed(self.call, args.closed_seconds),
            Loop::Open => load.open(self.call, args.rate, args.open_seconds),
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let llambo = Load::on(Rehearsal::start(&["--quick", "256"]));
    let bare = Load::on(Rehearsal::start(&["--bare"]));
    let mut report = Report::new(&args);
    for scenario in &SCENARIOS {
        if args.only.as_ref().is_some_and(|only| !scenario.name.contains(only.as_str())) {
            continue;
        }
        eprintln!("{} ...", scenario.name);
        // whoever comes first finds caches cold and a processor that has rested: neither twice
        let pairs = (0..args.pairs).map(|i| {
            if i % 2 == 0 {
                let first = scenario.run(&args, &llambo);
                (first, scenario.run(&args, &bare))
            } else {
                let first = scenario.run(&args, &bare);
                (scenario.run(&args, &llambo), first)
            }
        });
        report.add(scenario.name, scenario.loops, pairs.collect());
    }
    report.print();
    if let Some(path) = &args.json {
        std::fs::write(path, report.to_json()).unwrap_or_else(|e| panic!("cannot write `{}`: {e}", path.display()));
    }
    if args.check && !report.all_met() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

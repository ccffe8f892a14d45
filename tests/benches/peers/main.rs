//! llambo beside llama.cpp's own programs: the same model file, prompts, token counts and threads, in turns on one machine.
//!
//! Started by `cargo xtask bench`, which says more. Every figure is a ratio of two runs made one right after the other; what is reported is
//! the median of the pairs, with the lowest and the highest.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has nothing to report")]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a bench speaks to whoever started it")]

mod alone;
mod load;
mod peer;
mod report;
mod scenarios;
mod target;

use std::path::PathBuf;

use clap::Parser;

use crate::{report::Report, scenarios::Setting};

/// What `cargo xtask bench` takes.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", about = "Measure llambo beside llama.cpp's own programs")]
pub(crate) struct Args {
    /// llama.cpp's llama-server, built with the flags that `cargo xtask env` prints; without it, what needs it is left out
    #[arg(long, value_name = "PATH")]
    peer_llama_server: Option<PathBuf>,
    /// llama.cpp's llama-batched-bench, built alike
    #[arg(long, value_name = "PATH")]
    peer_batched_bench: Option<PathBuf>,
    /// The model: a GGUF file, or builtin:demo or builtin:demo-small
    #[arg(long, default_value = "builtin:demo", value_name = "MODEL")]
    model: String,
    /// A smaller model of the same vocabulary, given like the model
    #[arg(long, value_name = "MODEL")]
    draft: Option<String>,
    /// Pairs of runs for each figure
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pairs: u32,
    /// Only scenarios whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Write the report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a picture of the ratios to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let setting = Setting::new(&args);
    let mut report = Report::new(&setting);
    for scenario in scenarios::ALL {
        if args.only.as_ref().is_some_and(|only| !scenario.name.contains(only.as_str())) {
            continue;
        }
        match (scenario.run)(&setting, &runtime) {
            Some(pairs) => report.add(scenario, pairs),
            None => eprintln!("{}: left out, since it needs {}", scenario.name, scenario.needs),
        }
    }
    report.print();
    for (path, text) in [(&args.json, report.to_json()), (&args.svg, report.to_svg())] {
        if let Some(path) = path {
            std::fs::write(path, text).unwrap_or_else(|e| panic!("cannot write `{}`: {e}", path.display()));
        }
    }
}

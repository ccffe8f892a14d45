//! `cargo xtask metrics`: host/METRICS.md, as the program describes its metrics. A test fails while the two differ.

use std::{fs, process::Command};

use crate::arguments::Failure;
use crate::{build, environment, setup, step};

pub(crate) const SYNOPSIS: &str = "metrics";
const FILE: &str = "host/METRICS.md";
const HEAD: &str = "# Metrics

Everything that a host measures, at `http://HOST:7480/metrics` in the text format of Prometheus. This file is written by `cargo xtask metrics`
from what the program says of itself (`llambo metrics`).

A histogram has `NAME_bucket`, `NAME_sum` and `NAME_count`. With `metrics.aliases` (the default) the same page ends with the names of llama-server
(`llamacpp:...`, with the label `model`) and of vLLM (`vllm:...`, with the label `model_name`), computed from these. No label ever holds what a client wrote,
except the names of models and types that exist.

";

/// `cargo xtask metrics`.
pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    if !words.is_empty() {
        return Err(Failure::Usage("there are no arguments".into()));
    }
    setup::run()?;
    let programs = build::build(&[])?;
    let mut command = Command::new(&programs.llambo);
    let table =
        step::output(command.arg("metrics")).ok_or_else(|| Failure::Failed(format!("`{}` failed", step::line(&command))))?;
    let path = environment::root().join(FILE);
    fs::write(&path, format!("{HEAD}{table}\n")).map_err(|error| Failure::because(format!("{FILE} cannot be written"), error))?;
    println!("wrote {FILE}");
    Ok(())
}

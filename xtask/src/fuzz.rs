//! `cargo xtask fuzz`: the targets of `tests/fuzz`, one after the other.
//!
//! No sanitizer is used: isolates reserve addresses where one would keep its own notes. What is found lies in `target/fuzz/artifacts`, and
//! what was learned in `target/fuzz/corpus`; the seeds in `tests/fuzz/corpus` stay as they are.

use std::{fs, path::Path, process::Command};

use crate::arguments::{self, Failure, Flags, Rest};
use crate::{setup, step};

pub(crate) const SYNOPSIS: &str = "fuzz [TARGET...] [--seconds N]";
const FLAGS: Flags = Flags { values: &["--seconds"], switches: &[], rest: Rest::Kept };
const TARGETS: [&str; 5] = ["component_calls", "command_calls", "options", "hibernation_file", "module"];
const DEFAULT_SECONDS: u32 = 60;
/// Above what any target takes.
const RSS_MB: usize = 4096;

/// `cargo xtask fuzz`.
pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let parsed = arguments::parse(FLAGS, words)?;
    let seconds = parsed.count("--seconds", DEFAULT_SECONDS)?;
    if let Some(unknown) = parsed.rest.iter().find(|name| !TARGETS.contains(&name.as_str())) {
        return Err(Failure::Usage(format!("there is no target `{unknown}`; there are: {}", TARGETS.join(", "))));
    }
    let wanted = |target: &&str| parsed.rest.is_empty() || parsed.rest.iter().any(|name| name == target);
    setup::needs_cargo_fuzz()?;
    for target in TARGETS.into_iter().filter(wanted) {
        let learned = format!("target/fuzz/corpus/{target}");
        let artifacts = "target/fuzz/artifacts";
        for folder in [learned.as_str(), artifacts] {
            fs::create_dir_all(folder).map_err(|e| Failure::because(format!("`{folder}` cannot be made"), e))?;
        }
        let seeds = Path::new("tests/fuzz/corpus").join(target);
        let mut fuzz = Command::new("rustup");
        fuzz.args(["run", "nightly", "cargo", "fuzz", "run", "--fuzz-dir", "tests/fuzz", "--target-dir", "target/fuzz/build"]);
        fuzz.args(["--sanitizer", "none", target]).arg(&learned).arg(seeds).arg("--");
        fuzz.args([
            format!("-max_total_time={seconds}"),
            format!("-rss_limit_mb={RSS_MB}"),
            format!("-artifact_prefix={artifacts}/{target}-"),
        ]);
        // a nightly compiler is chosen by rustup alone
        fuzz.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
        step::run(&format!("fuzz {target} for {seconds} s (the first time it is built, for many minutes)"), &mut fuzz)?;
    }
    Ok(())
}

//! `cargo xtask test`: everything a change must pass. Continuous integration runs exactly this.
//!
//! All parts run even when one fails, except that nothing is tested which does not build: one run says all there is to mend.

use std::env;
use std::process::Command;
use std::time::Instant;

use crate::arguments::{self, Failure, Flags, Rest};
use crate::step::{self, elapsed, say};
use crate::{build, environment, setup};

pub(crate) const SYNOPSIS: &str = "test [--lint] [FILTERS]";
const FLAGS: Flags = Flags { values: &[], switches: &["--lint"], rest: Rest::Kept };

/// How one part of the run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    NotRun(&'static str),
}

/// `cargo xtask test`.
pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let started = Instant::now();
    let parsed = arguments::parse(FLAGS, words)?;
    setup::run()?;
    // without them one suite fails, and says so; the others are worth running
    let _ = setup::clients().inspect_err(report);
    let _ = setup::browser().inspect_err(report);
    let filtered = !parsed.rest.is_empty();
    let mut parts = Vec::new();
    parts.push(("format", format()));
    // before clippy and the tests: what does not compile is said once. With what tests need besides, since their dependencies ask for more
    // features of those that the programs have too, and half of the workspace would be built again
    let builds = build::build(&["--tests", "--examples"].map(str::to_owned)).inspect_err(report).is_ok();
    parts.push(("build", if builds { Outcome::Passed } else { Outcome::Failed }));
    if builds {
        parts.push(("tests", tests(&parsed.rest)));
        parts.push(("doc tests", if filtered { Outcome::NotRun("a filter was given") } else { doc_tests() }));
        parts.push(("lint", lint(parsed.has("--lint") || env::var_os("CI").is_some())));
    }
    let line = summary(&parts);
    let line = format!("cargo xtask test: {line}; {}", elapsed(started.elapsed()));
    if parts.iter().any(|(_, outcome)| *outcome == Outcome::Failed) {
        return Err(Failure::Failed(line));
    }
    println!("{line}");
    Ok(())
}

fn summary(parts: &[(&str, Outcome)]) -> String {
    let parts = parts.iter().map(|(name, outcome)| match outcome {
        Outcome::Passed => format!("{name} ok"),
        Outcome::Failed => format!("{name} FAILED"),
        Outcome::NotRun(why) => format!("{name} not run ({why})"),
    });
    parts.collect::<Vec<_>>().join(", ")
}

fn report(failure: &Failure) {
    let (Failure::Failed(text) | Failure::Usage(text)) = failure;
    say(&format!("    {text}"));
}

fn part(what: &str, command: &mut Command) -> Outcome {
    match step::run(what, command).inspect_err(report) {
        Ok(()) => Outcome::Passed,
        Err(_) => Outcome::Failed,
    }
}

fn format() -> Outcome {
    if !setup::has_component("fmt", "rustfmt") {
        return Outcome::NotRun("rustfmt is not installed: rustup component add rustfmt");
    }
    part("check the format", environment::cargo().args(["fmt", "--all", "--check"]))
}

fn lint(wanted: bool) -> Outcome {
    if !wanted {
        return Outcome::NotRun("add --lint");
    }
    if !setup::has_component("clippy", "clippy") {
        return Outcome::NotRun("clippy is not installed: rustup component add clippy");
    }
    // the tests' profile: build scripts, llama.cpp among them, are not run again
    part("lint", environment::cargo().args(["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn tests(filters: &[String]) -> Outcome {
    if setup::has_nextest() {
        return part("run the tests", environment::cargo().args(["nextest", "run", "--release", "--workspace"]).args(filters));
    }
    say("    cargo-nextest cannot be installed; `cargo test` takes its place: no time limit for a test that hangs");
    let mut command = environment::cargo();
    command.args(["test", "--release", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast", "--"]).args(filters);
    // the heavy suites would fight for the processor and miss their deadlines
    command.arg("--test-threads=1");
    part("run the tests with cargo test", &mut command)
}

fn doc_tests() -> Outcome {
    part("run the doc tests", environment::cargo().args(["test", "--release", "--workspace", "--doc", "--quiet"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_names_every_part_and_shouts_only_failures() {
        let parts = [("format", Outcome::Passed), ("tests", Outcome::Failed), ("lint", Outcome::NotRun("add --lint"))];
        assert_eq!(summary(&parts), "format ok, tests FAILED, lint not run (add --lint)");
    }
}

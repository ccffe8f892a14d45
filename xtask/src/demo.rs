//! `cargo xtask demo`: from a fresh clone to an answer in the terminal.

use std::env;
use std::path::Path;

use crate::arguments::{self, Failure, Flags, Rest};
use crate::build::{self, Programs};
use crate::host::{Host, Ports, Until};
use crate::step::say;
use crate::{environment, setup};

pub(crate) const SYNOPSIS: &str = "demo [--isolates N] [--keep]";
const FLAGS: Flags = Flags { values: &["--isolates"], switches: &["--keep"], rest: Rest::Refused };
/// A sentence to go on with: the built-in models were trained on prose about Rust, and answer no questions.
const PROMPT: &str = "Ownership is a set of rules that";

/// `cargo xtask demo`.
pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let parsed = arguments::parse(FLAGS, words)?;
    let isolates: Option<u32> = parsed.get("--isolates")?;
    setup::run()?;
    let programs = build::build(&[])?;
    let ports = Ports::default_or_free().map_err(|error| Failure::because("no free port on loopback", error))?;
    let host = Host::start(&programs, &environment::root().join("cluster-config.yaml"), ports, "demo-host", Until::Ready)?;
    // the host is stopped also when something could not be shown
    let shown = show(&host, isolates);
    if shown.is_ok() && parsed.has("--keep") {
        say(&next_steps(&programs, ports));
        say("\nThe host runs until you press Ctrl-C.");
        return host.wait();
    }
    let stopped = host.stop();
    shown.and(stopped)?;
    say(&next_steps(&programs, Ports { grpc: 7400, http: 7480 }));
    say("\nThe host was stopped. Run `cargo xtask demo --keep` to leave it running.");
    Ok(())
}

fn show(host: &Host, isolates: Option<u32>) -> Result<(), Failure> {
    if let Some(count) = isolates {
        host.show(&["scale", "--type", "tiny", "--count", &count.to_string()])?;
    }
    host.show(&["infer", PROMPT, "--raw", "--max-tokens", "80"])?;
    host.show(&["status"])?;
    host.show(&["nodes", "list", "--limit", "5"])
}

fn next_steps(programs: &Programs, ports: Ports) -> String {
    let [llambo, llamboctl] = [&programs.llambo, &programs.llamboctl].map(|program| short(program).display());
    let host = if ports.grpc == 7400 { String::new() } else { format!(" --host 127.0.0.1:{}", ports.grpc) };
    format!(
        "
What to try next:
  {llambo} serve --config cluster-config.yaml
  {llamboctl}{host} infer \"What a trait is\" --raw --max-tokens 64 --temperature 0
  {llamboctl}{host} spawn --type tiny --count 1000
  {llamboctl}{host} balancer --strategy power-of-two
  {llamboctl}{host} bench load --concurrency 64 --requests 1000 --max-tokens 16
  cargo xtask scale --isolates 10000

The built-in model only shows that the path works. For a real one, put the path of any GGUF file
into `models` of cluster-config.yaml."
    )
}

/// The path as one would type it here.
fn short(program: &Path) -> &Path {
    env::current_dir().ok().and_then(|here| program.strip_prefix(here).ok()).unwrap_or(program)
}

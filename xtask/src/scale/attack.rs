//! Guests that misbehave beside those that serve: what it costs the good ones, and whether anything stays behind.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::{Value, json};

use crate::arguments::Failure;
use crate::environment;
use crate::host::Host;
use crate::step::{Step, line};

/// What the prompt asks of the guest `hostile`.
const KINDS: [&str; 5] = ["loop", "grow", "recurse", "flood", "output"];
/// Longer than any run; they are ended before.
const ATTACK: &str = "1h";
/// So that what is measured is the attack under way, not its first moment.
const UNDER_WAY: Duration = Duration::from_secs(3);
/// Isolates made and stopped at a time.
const CHURNED_TOGETHER: u32 = 1000;
/// What is freed is noticed by then.
const SETTLED: Duration = Duration::from_secs(3);

/// The types that misbehave; a fifth of them follow wrong pointers.
pub(super) fn types(n_hostile: u32) -> Vec<(&'static str, u32, Value)> {
    let guest = |name: &str| environment::root().join("guest/prebuilt").join(format!("{name}.wasm")).display().to_string();
    let n_pointers = n_hostile / 5;
    let hostile = json!({ "count": 0, "cpu": 0.1, "cpu-seconds": 2, "memory": "16MB", "module": guest("hostile") });
    let pointers = json!({ "count": 0, "cpu": 0.1, "memory": "16MB", "module": guest("pointers") });
    vec![("hostile", n_hostile - n_pointers, hostile), ("pointers", n_pointers, pointers)]
}

/// Attackers at work, one for each kind. Ended when dropped.
pub(super) struct Attack(Vec<Child>);

impl Attack {
    /// Spawns the guests and asks each of them something once a second, on average.
    pub(super) fn begin(host: &Host, n_hostile: u32) -> Result<Self, Failure> {
        let step = Step::begin(&format!("spawn {n_hostile} hostile isolates and attack"));
        for (name, count, _) in types(n_hostile) {
            if count > 0 {
                host.ask(&["spawn", "--type", name, "--count", &count.to_string()])?;
            }
        }
        let mut attackers = Self(Vec::new());
        let rate = (f64::from(n_hostile) / (KINDS.len() + 1) as f64).max(1.0).to_string();
        let asked = KINDS.into_iter().map(|kind| ("hostile", kind)).chain([("pointers", "go")]);
        for (node_type, prompt) in asked {
            let mut load = host.llamboctl(&["--json", "bench", "load", "--rate", &rate, "--duration", ATTACK]);
            load.args(["--type", node_type, "--prompt", prompt, "--timeout", "1m"]);
            attackers.0.push(started(load)?);
        }
        thread::park_timeout(UNDER_WAY);
        step.done("");
        Ok(attackers)
    }
}

fn started(mut command: Command) -> Result<Child, Failure> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| Failure::because(format!("cannot run `{}`", line(&command)), error))
}

impl Drop for Attack {
    fn drop(&mut self) {
        for attacker in &mut self.0 {
            let _ = attacker.kill();
            let _ = attacker.wait();
        }
    }
}

/// Makes and stops `n` isolates, while others serve. Answers with what the host had before and has afterwards.
pub(super) fn churn(host: &Host, n: u32) -> Result<Value, Failure> {
    let step = Step::begin(&format!("spawn and stop {n} isolates, {CHURNED_TOGETHER} at a time"));
    let count = CHURNED_TOGETHER.min(n).to_string();
    let cycle = || -> Result<(), Failure> {
        host.ask(&["spawn", "--type", "churn", "--count", &count])?;
        host.ask(&["scale", "--type", "churn", "--count", "0"]).map(drop)
    };
    // the first ones take what is kept for those to come
    cycle()?;
    thread::park_timeout(SETTLED);
    let (before, began) = (held(host), Instant::now());
    for _ in 0..n.div_ceil(CHURNED_TOGETHER) {
        cycle()?;
    }
    let seconds = began.elapsed().as_secs_f64();
    thread::park_timeout(SETTLED);
    step.done("");
    Ok(
        json!({ "cycles": n.div_ceil(CHURNED_TOGETHER) * CHURNED_TOGETHER.min(n), "seconds": seconds, "before": before, "after": held(host) }),
    )
}

/// What a process holds, as the kernel counts it.
fn held(host: &Host) -> Value {
    let folder = format!("/proc/{}", host.pid());
    let count = |path: String| fs::read_dir(path).map(Iterator::count).ok();
    let maps = fs::read_to_string(format!("{folder}/maps")).map(|maps| maps.lines().count()).ok();
    let status = fs::read_to_string(format!("{folder}/status")).unwrap_or_default();
    json!({
        "resident_bytes": super::kernel_bytes(&status, "VmRSS"), "descriptors": count(format!("{folder}/fd")),
        "threads": count(format!("{folder}/task")), "mappings": maps,
    })
}

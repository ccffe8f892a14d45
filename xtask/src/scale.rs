//! `cargo xtask scale`: many isolates in one host under load, and a report that can be kept and compared.
//!
//! The host is started with no isolates, so that its memory before and after spawning them tells what each one costs. Then
//! `llamboctl bench load` keeps `--concurrency` requests in flight until `--requests` are done. Everything runs on this
//! machine: the load takes its share of the processor from the host, and the report says how many cores there were.

mod attack;
mod curves;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::arguments::{self, Failure, Flags, Parsed, Rest};
use crate::host::{Host, Ports, Until, work_folder};
use crate::step::{Step, line, say};
use crate::{build, setup};
use report::Report;

pub(crate) const SYNOPSIS: &str = "scale [--isolates N[,N...]] [--requests N] [--concurrency N] [--max-tokens N] [--model PATH] [--strategy NAME] [--hostile PERCENT] \
    [--churn N] [--json FILE] [--svg FILE]";
const FLAGS: Flags = Flags {
    values: &[
        "--isolates", "--requests", "--concurrency", "--max-tokens", "--model", "--strategy", "--hostile", "--churn", "--json",
        "--svg",
    ],
    switches: &[],
    rest: Rest::Refused,
};
/// llama.cpp decodes at most 256 sequences together; half of that keeps first tokens quick and costs little throughput.
const SEQUENCES: std::ops::RangeInclusive<u32> = 64..=128;

/// What is measured.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    isolates: u32,
    requests: u32,
    concurrency: u32,
    max_tokens: u32,
    model: String,
    strategy: String,
    /// Isolates that misbehave, beside the others.
    hostile: u32,
    /// Isolates made and stopped while others serve.
    churn: u32,
}

impl Settings {
    fn read(parsed: &Parsed, isolates: u32) -> Result<Self, Failure> {
        let text = |name: &str, default: &str| parsed.text(name).unwrap_or(default).to_owned();
        Ok(Self {
            isolates,
            hostile: share(parsed.text("--hostile").unwrap_or("0"), isolates)?,
            churn: parsed.get("--churn")?.unwrap_or(0),
            requests: parsed.count("--requests", 20_000)?,
            concurrency: parsed.count("--concurrency", 256)?,
            max_tokens: parsed.count("--max-tokens", 16)?,
            model: text("--model", "builtin:demo-small"),
            strategy: text("--strategy", "least-loaded"),
        })
    }

    /// The host's configuration. JSON is YAML, and quotes what needs quoting.
    fn config(&self) -> Value {
        let tiny = json!({ "count": 0, "cpu": 0.1, "memory": "128MB", "model": "model" });
        let mut types = Map::from_iter([("tiny".to_owned(), tiny.clone())]);
        if self.hostile > 0 {
            types.extend(attack::types(self.hostile).into_iter().map(|(name, _, what)| (name.to_owned(), what)));
        }
        if self.churn > 0 {
            types.insert("churn".to_owned(), tiny);
        }
        json!({
            "models": [{
                "name": "model",
                "path": arguments::from_here(&self.model),
                "sequences": self.concurrency.clamp(*SEQUENCES.start(), *SEQUENCES.end()),
                "embeddings": false,
            }],
            "types": types,
            "balancing": { "strategy": self.strategy },
            "queue": {
                "max-waiting": self.concurrency.max(4096),
                "max-in-flight": (self.concurrency + self.hostile).max(512),
                "max-wait": "5m",
            },
        })
    }

    fn as_json(&self) -> Value {
        json!({
            "isolates": self.isolates, "requests": self.requests, "concurrency": self.concurrency,
            "max_tokens": self.max_tokens, "model": self.model, "strategy": self.strategy, "hostile": self.hostile,
            "churn": self.churn,
        })
    }
}

/// `10000` or `1000,10000,100000`.
fn counts(text: &str) -> Result<Vec<u32>, Failure> {
    let counts: Option<Vec<u32>> = text.split(',').map(|n| n.trim().parse().ok().filter(|n| *n > 0)).collect();
    let wrong = || Failure::Usage(format!("`--isolates {text}` is no number, and no list of numbers such as 1000,10000,100000"));
    let mut counts = counts.ok_or_else(wrong)?;
    counts.sort_unstable();
    counts.dedup();
    Ok(counts)
}

/// Of `isolates` so many percent, written as `10` or `10%`.
fn share(text: &str, isolates: u32) -> Result<u32, Failure> {
    let percent: Option<u32> = text.trim_end_matches('%').parse().ok().filter(|percent| *percent <= 100);
    let percent =
        percent.ok_or_else(|| Failure::Usage(format!("`--hostile {text}` is no share; write a percentage, such as 10%")))?;
    Ok(u32::try_from(u64::from(isolates) * u64::from(percent) / 100).unwrap_or(u32::MAX))
}

/// `cargo xtask scale`.
pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let parsed = arguments::parse(FLAGS, words)?;
    let counts = counts(parsed.text("--isolates").unwrap_or("10000"))?;
    let all = counts.into_iter().map(|isolates| Settings::read(&parsed, isolates)).collect::<Result<Vec<_>, _>>()?;
    setup::run()?;
    let programs = build::build(&[])?;
    let folder = work_folder()?;
    let saved = parsed.text("--json").map_or_else(|| folder.join("scale.json"), PathBuf::from);
    let mut runs = Vec::new();
    for settings in &all {
        let report = run_one(&programs, &folder, settings)?;
        println!("{}", report.for_people());
        runs.push(report.as_json());
        // after each, so that a run that fails does not take the others with it
        match &runs[..] {
            [run] if all.len() == 1 => write_json(&saved, run)?,
            runs => write_json(&saved, &json!({ "format": 1, "runs": runs }))?,
        }
        report.verdict().map_err(Failure::Failed)?;
    }
    say(&format!("saved as {}", saved.display()));
    if let Some(svg) = parsed.text("--svg") {
        fs::write(svg, curves::to_svg(&runs)).map_err(|error| Failure::because(format!("cannot write `{svg}`"), error))?;
        say(&format!("drawn as {svg}"));
    }
    Ok(())
}

/// One host, from its start to its end.
fn run_one(programs: &build::Programs, folder: &Path, settings: &Settings) -> Result<Report, Failure> {
    let config = folder.join("scale-config.yaml");
    write_json(&config, &settings.config())?;
    let ports = Ports::free().map_err(|error| Failure::because("no free port on loopback", error))?;
    let host = Host::start(programs, &config, ports, "scale-host", Until::Alive)?;
    let measured = measure(&host, settings, &folder.join("scale-load.json"));
    let stopped = host.stop();
    let report = measured?;
    stopped.map(|()| report)
}

fn measure(host: &Host, settings: &Settings, load_file: &Path) -> Result<Report, Failure> {
    let count = settings.isolates.to_string();
    let before = memory(host)?;
    let step = Step::begin(&format!("spawn {count} isolates"));
    let began = Instant::now();
    let spawn = host.ask(&["spawn", "--type", "tiny", "--count", &count])?;
    let spawn_seconds = began.elapsed().as_secs_f64();
    let after = memory(host)?;
    step.done("");

    let load = send(host, settings, "", load_file)?;
    let attacked = match settings.hostile {
        0 => None,
        n_hostile => {
            let _attack = attack::Attack::begin(host, n_hostile)?;
            Some(send(host, settings, " under attack", load_file)?)
        }
    };
    let churned = match settings.churn {
        0 => None,
        n => Some(attack::churn(host, n)?),
    };

    let under_load = memory(host)?;
    let nodes = host.ask(&["nodes", "list", "--type", "tiny", "--limit", &count])?;
    let status = host.ask(&["status"])?;
    let machine = machine();
    let settings = settings.as_json();
    let memory = [before, after, under_load];
    Ok(Report { machine, settings, spawn, spawn_seconds, memory, load, attacked, churned, nodes, status })
}

/// One load; what `llamboctl` says of it.
fn send(host: &Host, settings: &Settings, how: &str, load_file: &Path) -> Result<Value, Failure> {
    // from the last run, perhaps
    let _ = fs::remove_file(load_file);
    let (requests, concurrency, tokens) =
        (settings.requests.to_string(), settings.concurrency.to_string(), settings.max_tokens.to_string());
    let step = Step::begin(&format!("send {requests} requests of {tokens} tokens, {concurrency} at a time{how}"));
    let mut load = host.llamboctl(&["--json", "bench", "load", "--concurrency", &concurrency, "--requests", &requests]);
    load.args(["--max-tokens", &tokens, "--type", "tiny", "--json-file"]).arg(load_file);
    // it prints the same report that the file gets
    load.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let status = load.status().map_err(|error| Failure::because(format!("cannot run `{}`", line(&load)), error))?;
    // requests that failed give another status, and a report all the same
    let Some(load) = read_json(load_file) else {
        return Err(Failure::Failed(format!("the load left no report: llamboctl ended with {status}")));
    };
    step.done("");
    Ok(load)
}

/// Resident memory of the host: its own figure and the kernel's, in bytes.
fn memory(host: &Host) -> Result<Value, Failure> {
    let status = host.ask(&["status"])?;
    let kernel = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap_or_default();
    let kernel = |name: &str| kernel_bytes(&kernel, name);
    let resident = status.get("resident_bytes").and_then(Value::as_u64).or_else(|| kernel("VmRSS"));
    Ok(json!({
        "resident_bytes": resident, "kernel_resident_bytes": kernel("VmRSS"),
        "peak_resident_bytes": kernel("VmHWM"), "virtual_bytes": kernel("VmSize"),
    }))
}

/// A line such as `VmRSS:    1234 kB` of `/proc/PID/status`.
fn kernel_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

fn machine() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).map(|rest| rest.trim_start_matches(['\t', ' ', ':']));
    let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kernel_bytes(&text, "MemTotal"));
    json!({ "processor": model, "cores": thread::available_parallelism().ok().map(usize::from), "memory_bytes": memory })
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

fn write_json(path: &Path, value: &Value) -> Result<(), Failure> {
    fs::write(path, format!("{value:#}\n")).map_err(|error| Failure::because(format!("cannot write `{}`", path.display()), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(line: &str) -> Result<Settings, Failure> {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        let parsed = arguments::parse(FLAGS, &words)?;
        let isolates = counts(parsed.text("--isolates").unwrap_or("10000"))?;
        Settings::read(&parsed, isolates[0])
    }

    #[test]
    fn the_defaults_are_the_promised_run() {
        let settings = settings("").unwrap();
        assert_eq!((settings.isolates, settings.requests, settings.concurrency), (10_000, 20_000, 256));
        assert_eq!(settings.model, "builtin:demo-small");
    }

    #[test]
    fn the_host_can_take_as_many_requests_as_are_sent_at_once() {
        let config = settings("--concurrency 2000").unwrap().config();
        assert_eq!(config["queue"]["max-in-flight"], 2000);
        assert_eq!(config["models"][0]["sequences"], 128);
        assert_eq!(settings("--concurrency 8").unwrap().config()["models"][0]["sequences"], 64);
        assert_eq!(config["types"]["tiny"]["count"], 0);
    }

    #[test]
    fn several_runs_are_a_list_of_numbers() {
        assert_eq!(counts("100000,1000,1000").unwrap(), [1000, 100_000]);
        for wrong in ["", "0", "1000,", "many", "-1"] {
            assert!(counts(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hostile_ones_are_a_share_of_all() {
        let hostile = settings("--isolates 2000 --hostile 10%").unwrap();
        assert_eq!(hostile.hostile, 200);
        let types = hostile.config()["types"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(types, ["tiny", "hostile", "pointers"]);
        assert_eq!(attack::types(200).iter().map(|(_, count, _)| count).sum::<u32>(), 200);
        assert!(settings("--hostile many").is_err() && settings("--hostile 101").is_err());
        assert!(settings("--churn 5").unwrap().config()["types"]["churn"].is_object());
    }

    #[test]
    fn a_model_file_is_found_from_where_the_command_was_typed() {
        let config = settings("--model some.gguf").unwrap().config();
        assert!(Path::new(config["models"][0]["path"].as_str().unwrap()).is_absolute());
    }

    #[test]
    fn the_kernels_figures_are_read() {
        let text = "Name:\tllambo\nVmRSS:\t    2048 kB\nRssAnon:\t 1 kB\n";
        assert_eq!(kernel_bytes(text, "VmRSS"), Some(2_097_152));
        assert_eq!(kernel_bytes(text, "VmHWM"), None);
    }
}

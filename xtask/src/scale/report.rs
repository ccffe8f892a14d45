//! What a scale run found: as JSON to keep, as text to read.
//!
//! The parts that `llamboctl` measured are kept as it wrote them. Figures are looked up by name, and one that is not there
//! is a `-` in the text: an older or newer `llamboctl` must not spoil a run of minutes.

use serde_json::{Value, json};

/// One run.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) machine: Value,
    pub(super) settings: Value,
    /// `llamboctl --json spawn`.
    pub(super) spawn: Value,
    /// From the command to its answer.
    pub(super) spawn_seconds: f64,
    /// Of the host: before the isolates, after they were spawned, after the load.
    pub(super) memory: [Value; 3],
    /// `llamboctl --json bench load`.
    pub(super) load: Value,
    /// The same under attack, where there was one.
    pub(super) attacked: Option<Value>,
    /// What isolates that came and went left behind.
    pub(super) churned: Option<Value>,
    /// `llamboctl --json nodes list`.
    pub(super) nodes: Value,
    /// `llamboctl --json status` after the load.
    pub(super) status: Value,
}

/// How requests were spread over isolates.
#[derive(Debug, PartialEq, Eq)]
struct Spread {
    isolates: usize,
    /// Isolates that served at least one request.
    used: usize,
    min: u64,
    max: u64,
}

impl Report {
    pub(super) fn as_json(&self) -> Value {
        let [before, after, under_load] = &self.memory;
        let spread = self.spread().map(|spread| {
            json!({ "isolates": spread.isolates, "used": spread.used, "served_min": spread.min, "served_max": spread.max })
        });
        json!({
            "format": 1,
            "machine": self.machine,
            "settings": self.settings,
            "spawn": { "wall_seconds": self.spawn_seconds, "answer": self.spawn },
            "memory": {
                "before": before, "after_spawn": after, "after_load": under_load,
                "bytes_per_idle_isolate": self.bytes_per_isolate(),
            },
            "load": self.load,
            "load_under_attack": self.attacked,
            "churn": self.churned,
            "spread": spread,
            "status": self.status,
        })
    }

    pub(super) fn for_people(&self) -> String {
        let row = |name: &str, text: String| format!("  {name:<26}{text}\n");
        let setting = |name: &str| show(self.settings.get(name), 0);
        let load = |name: &str| self.load.get(name);
        let mut text = format!(
            "\nscale: {} isolates, {} requests of {} tokens, {} at a time, {} on {}, {}\n",
            setting("isolates"),
            setting("requests"),
            setting("max_tokens"),
            setting("concurrency"),
            self.settings["strategy"].as_str().unwrap_or("-"),
            self.settings["model"].as_str().unwrap_or("-"),
            self.machine_line(),
        );
        let spawn = |name: &str, decimals: usize| show(self.spawn.get(name), decimals);
        text += &row("spawned", format!("{} in {:.2} s", spawn("spawned", 0), self.spawn_seconds));
        text += &row("spawn p50 / p99", format!("{} / {} us", spawn("spawn_p50_us", 1), spawn("spawn_p99_us", 1)));
        let bytes = self.bytes_per_isolate().map(Value::from);
        text += &row("per idle isolate", format!("{} bytes resident", show(bytes.as_ref(), 0)));
        let resident =
            |n: usize| self.memory[n].get("resident_bytes").and_then(Value::as_u64).map(|bytes| Value::from(bytes >> 20));
        let [before, after, loaded] = [0, 1, 2].map(|n| show(resident(n).as_ref(), 0));
        text += &row("host's resident memory", format!("{before} MiB, with isolates {after} MiB, after the load {loaded} MiB"));
        text += &row("requests/s", show(load("requests_per_second"), 1));
        text += &row("tokens/s", show(load("tokens_per_second"), 0));
        for (name, key) in [("TTFT p50 / p99", "ttft_ms"), ("latency p50 / p99", "total_ms")] {
            let at = |quantile: &str| show(load(key).and_then(|times| times.get(quantile)), 1);
            text += &row(name, format!("{} / {} ms", at("p50"), at("p99")));
        }
        text += &row("errors", errors(&self.load));
        text += &self.attack_lines();
        text += &self.churn_lines();
        text += &row("spread over isolates", self.spread().map_or_else(|| "-".to_owned(), |spread| spread.for_people()));
        text
    }

    /// Whether the run did what it was asked to.
    ///
    /// # Errors
    /// What it did not.
    pub(super) fn verdict(&self) -> Result<(), String> {
        let wanted = |name: &str| self.settings.get(name).and_then(Value::as_u64).unwrap_or(0);
        let spawned = self.spawn.get("spawned").and_then(Value::as_u64).unwrap_or(0);
        if spawned < wanted("isolates") {
            return Err(format!("only {spawned} of {} isolates were spawned", wanted("isolates")));
        }
        for load in std::iter::once(&self.load).chain(&self.attacked) {
            let finished = load.get("finished").and_then(Value::as_u64).unwrap_or(0);
            if finished < wanted("requests") {
                return Err(format!("only {finished} of {} requests finished; errors: {}", wanted("requests"), errors(load)));
            }
        }
        Ok(())
    }

    /// The load under attack, and how many times as long it took.
    fn attack_lines(&self) -> String {
        let Some(attacked) = &self.attacked else { return String::new() };
        let at = |load: &Value, key: &str, quantile: &str| load.get(key)?.get(quantile)?.as_f64();
        let times = |key: &str, quantile: &str| {
            let (then, now) = (at(&self.load, key, quantile), at(attacked, key, quantile));
            let ratio = then.zip(now).map_or_else(|| "-".to_owned(), |(then, now)| format!("{:.1}", now / then));
            format!("{} ms, {ratio} times as long", now.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}")))
        };
        let line = |(name, key)| format!("    {name:<24}{} / {}\n", times(key, "p50"), times(key, "p99"));
        let lines: String = [("TTFT p50 / p99", "ttft_ms"), ("latency p50 / p99", "total_ms")].map(line).concat();
        let n_hostile = show(self.settings.get("hostile"), 0);
        let errors = errors(attacked);
        format!("  beside {n_hostile} hostile isolates\n{lines}    {:<24}{errors}\n", "errors of the good ones")
    }

    fn churn_lines(&self) -> String {
        let Some(churned) = &self.churned else { return String::new() };
        let figure = |when: &str, name: &str| show(churned.get(when).and_then(|held| held.get(name)), 0);
        let pair = |name: &str| format!("{} -> {}", figure("before", name), figure("after", name));
        format!(
            "  {:<26}{} in {} s: resident bytes {}, descriptors {}, threads {}, mappings {}\n",
            "spawned and stopped",
            show(churned.get("cycles"), 0),
            show(churned.get("seconds"), 1),
            pair("resident_bytes"),
            pair("descriptors"),
            pair("threads"),
            pair("mappings"),
        )
    }

    fn machine_line(&self) -> String {
        let memory = self.machine["memory_bytes"].as_u64().map_or_else(|| "-".to_owned(), |bytes| (bytes >> 30).to_string());
        let processor = self.machine["processor"].as_str().unwrap_or("unknown processor");
        format!("{} cores of {processor}, {memory} GiB", show(self.machine.get("cores"), 0))
    }

    fn bytes_per_isolate(&self) -> Option<u64> {
        let resident = |n: usize| self.memory[n].get("resident_bytes").and_then(Value::as_u64);
        let spawned = self.spawn.get("spawned")?.as_u64()?;
        resident(1)?.saturating_sub(resident(0)?).checked_div(spawned)
    }

    fn spread(&self) -> Option<Spread> {
        let nodes = self.nodes.as_array()?;
        let served: Vec<u64> = nodes.iter().filter_map(|node| node.get("served")?.as_u64()).collect();
        let used = served.iter().filter(|served| **served > 0).count();
        Some(Spread { isolates: served.len(), used, min: *served.iter().min()?, max: *served.iter().max()? })
    }
}

impl Spread {
    fn for_people(&self) -> String {
        format!("{} of {} served requests; fewest {}, most {}", self.used, self.isolates, self.min, self.max)
    }
}

/// Failed requests by kind.
fn errors(load: &Value) -> String {
    match load.get("errors").and_then(Value::as_object) {
        None => "-".to_owned(),
        Some(kinds) if kinds.is_empty() => "none".to_owned(),
        Some(kinds) => {
            let mut kinds: Vec<_> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
            kinds.sort();
            kinds.join(", ")
        }
    }
}

fn show(value: Option<&Value>, decimals: usize) -> String {
    value.and_then(Value::as_f64).map_or_else(|| "-".to_owned(), |number| format!("{number:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(load: Value) -> Report {
        Report {
            machine: json!({ "processor": "P", "cores": 2, "memory_bytes": 8_u64 << 30 }),
            settings: json!({ "isolates": 4, "requests": 6, "max_tokens": 16, "concurrency": 2, "model": "m", "strategy": "s" }),
            spawn: json!({ "spawned": 4, "spawn_p50_us": 12.34, "spawn_p99_us": 99.0 }),
            spawn_seconds: 0.5,
            memory: [
                json!({ "resident_bytes": 1_000_000 }),
                json!({ "resident_bytes": 1_080_000 }),
                json!({ "resident_bytes": 2 << 20 }),
            ],
            load,
            attacked: None,
            churned: None,
            nodes: json!([{ "served": 3 }, { "served": 0 }, { "served": 2 }, { "served": 1 }]),
            status: json!({}),
        }
    }

    fn has(text: &str, name: &str, figure: &str) {
        let line =
            text.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_else(|| panic!("no `{name}` in\n{text}"));
        assert!(line.ends_with(figure), "{line}");
    }

    #[test]
    fn figures_stand_in_the_text() {
        let load = json!({
            "finished": 6, "requests_per_second": 512.25, "tokens_per_second": 8190.0, "errors": {},
            "ttft_ms": { "p50": 10.0, "p99": 40.5 }, "total_ms": { "p50": 100.0, "p99": 200.0 },
        });
        let report = report(load);
        let text = report.for_people();
        has(&text, "spawned", "4 in 0.50 s");
        has(&text, "spawn p50 / p99", "12.3 / 99.0 us");
        has(&text, "per idle isolate", "20000 bytes resident");
        has(&text, "requests/s", "512.2");
        has(&text, "TTFT", "10.0 / 40.5 ms");
        has(&text, "latency", "100.0 / 200.0 ms");
        has(&text, "errors", " none");
        has(&text, "spread", "3 of 4 served requests; fewest 0, most 3");
        assert_eq!(report.verdict(), Ok(()));
        assert_eq!(report.as_json()["memory"]["bytes_per_idle_isolate"], 20_000);
    }

    #[test]
    fn failed_requests_and_missing_isolates_fail_the_run() {
        let mut report = report(json!({ "finished": 3, "errors": { "QUEUE_FULL": 2, "GUEST_TRAP": 1 } }));
        assert_eq!(report.verdict(), Err("only 3 of 6 requests finished; errors: GUEST_TRAP 1, QUEUE_FULL 2".to_owned()));
        report.spawn = json!({ "spawned": 3 });
        assert_eq!(report.verdict(), Err("only 3 of 4 isolates were spawned".to_owned()));
    }

    #[test]
    fn an_attack_is_told_as_times_of_before() {
        let load = |p99: f64| json!({ "finished": 6, "errors": {}, "total_ms": { "p50": 100.0, "p99": p99 } });
        let mut report = report(load(200.0));
        report.attacked = Some(load(500.0));
        report.churned = Some(json!({ "cycles": 5, "seconds": 1.0, "before": { "threads": 3 }, "after": { "threads": 4 } }));
        let text = report.for_people();
        let latency = text.lines().filter(|line| line.contains("latency")).nth(1).unwrap();
        assert!(latency.ends_with("100.0 ms, 1.0 times as long / 500.0 ms, 2.5 times as long"), "{latency}");
        assert!(text.contains("threads 3 -> 4"), "{text}");
        assert_eq!(report.verdict(), Ok(()));
        report.attacked = Some(json!({ "finished": 5, "errors": { "GUEST_TRAP": 1 } }));
        assert!(report.verdict().unwrap_err().contains("only 5 of 6"));
    }

    #[test]
    fn a_figure_that_is_not_there_spoils_nothing() {
        let mut report = report(json!({}));
        report.spawn = json!({});
        report.nodes = json!({});
        has(&report.for_people(), "tokens/s", " -");
        has(&report.for_people(), "spread", " -");
    }
}

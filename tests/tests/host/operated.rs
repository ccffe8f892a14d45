//! A host as its operators meet it: workers, hosts, tasks and the test of it all, with `llamboctl`.

use llambo_tests::Host;
use serde_json::Value;

use crate::SMALL;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `llamboctl --json` with these words, whatever its exit code.
fn told(host: &Host, words: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = host.llamboctl(&[&["--json"], words].concat());
    let lines = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code(), lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_added_listed_and_stopped() {
    let host = Host::start(SMALL);
    let before = host.json(&["worker", "list"]).as_array().unwrap().len();
    assert_eq!(host.json(&["worker", "spawn", "--type", "tiny", "--count", "3"])["spawned"], 3);
    let workers = host.json(&["worker", "list", "--type", "tiny"]);
    let one = workers[0]["id"].as_str().unwrap().to_owned();
    let stopped = host.json(&["worker", "stop", &one]);
    assert_eq!((&stopped["stopping"], &stopped["left"]), (&1.into(), &0.into()));
    let left = host.json(&["worker", "list"]);
    assert_eq!(left.as_array().unwrap().len(), before + 2);
    assert!(left.as_array().unwrap().iter().all(|node| node["id"] != one.as_str()));
    let unknown = host.llamboctl(&["worker", "stop", "nobody-1"]);
    assert!(unknown.status.code() == Some(1) && text(&unknown.stderr).contains("nobody-1"), "{}", text(&unknown.stderr));
    let all = host.json(&["worker", "stop-all"]);
    assert_eq!((&all["stopping"], &all["left"]), (&(before + 2).into(), &0.into()));
    // the host is there, and has work for those that come
    assert_eq!(host.json(&["status"])["nodes"]["total"], 0);
    let (code, steps) = told(&host, &["cluster", "test", "--http", &format!("http://{}", host.http()), "--timeout", "2s"]);
    assert_eq!(code, Some(2), "{steps:?}");
    assert!(steps[0].as_array().unwrap().iter().any(|step| step["step"] == "nodes" && step["ok"] == false), "{steps:?}");
    host.json(&["worker", "spawn", "--type", "tiny", "--count", "1"]);
    let (code, steps) = told(&host, &["cluster", "test", "--http", &format!("http://{}", host.http())]);
    assert_eq!(code, Some(0), "{steps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_tells_what_its_machine_has() {
    let host = Host::start(SMALL);
    let hosts = host.json(&["hosts"]);
    let hardware = &hosts[0]["hardware"];
    assert!(hardware["cpus"].as_u64().unwrap() >= 1 && hardware["memory_bytes"].as_u64().unwrap() > 0, "{hosts}");
    assert!(hardware["devices"].as_array().unwrap().iter().any(|device| device["name"] == "CPU"), "{hosts}");
    assert!(hardware["gpus"].is_array() && hosts[0]["nodes"].as_u64().unwrap() > 0, "{hosts}");
    let shown = text(&host.llamboctl(&["hosts"]).stdout);
    assert!(shown.contains("processor  ") && shown.contains("computes   CPU"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_submitted_followed_shown_and_forgotten() {
    let host = Host::start(SMALL);
    let port = format!("http://{}", host.http());
    let task = |words: &[&str]| told(&host, &[&["task", "--http", &port], words].concat());
    let (code, submitted) =
        task(&["submit", "A trait is", "--raw", "--max-tokens", "6", "--temperature", "0", "--id", "one", "--label", "a=b"]);
    assert_eq!((code, &submitted[0]["id"], &submitted[0]["labels"]["a"]), (Some(0), &"one".into(), &"b".into()));
    let (code, events) = task(&["events", "one"]);
    assert_eq!(code, Some(0), "{events:?}");
    let said: String = events.iter().filter_map(|event| event["data"]["text"].as_str()).collect();
    assert_eq!((&events[0]["event"], &events.last().unwrap()["data"]["state"]), (&"started".into(), &"finished".into()));
    let (_, shown) = task(&["show", "one"]);
    assert_eq!((shown[0]["text"].as_str(), &shown[0]["usage"]["output_tokens"]), (Some(said.as_str()), &6.into()));
    // who has read them all is told so, and nothing more
    assert_eq!(task(&["events", "one", "--after", "end"]), (Some(0), vec![]));
    let (_, listed) = task(&["list", "--state", "finished"]);
    assert_eq!(listed[0].as_array().unwrap().len(), 1);
    assert_eq!(task(&["cancel", "one"]).1[0]["state"], "finished");
    assert_eq!(task(&["delete", "one"]).1[0]["deleted"], true);
    let gone = host.llamboctl(&["task", "--http", &port, "show", "one"]);
    assert!(gone.status.code() == Some(1) && text(&gone.stderr).contains("one"), "{}", text(&gone.stderr));
    let plain = host.llamboctl(&[
        "task", "--http", &port, "submit", "A trait is", "--raw", "--max-tokens", "6", "--temperature", "0", "--follow",
    ]);
    assert_eq!((text(&plain.stdout).trim_end(), plain.status.code()), (said.trim_end(), Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_is_waited_for_ends_with_the_host() {
    let host = Host::start(SMALL);
    let drained = host.json(&["drain", "--all", "--wait=20s"]);
    assert_eq!(drained["left"], 0);
    let gone = host.llamboctl(&["status"]);
    assert_eq!(gone.status.code(), Some(69));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_starts_with_the_configuration_that_was_written_for_this_machine() {
    let llamboctl = std::process::Command::new(llambo_tests::program("llamboctl"))
        .args(["generate-config", "--nodes", "5"])
        .output()
        .unwrap();
    let text = text(&llamboctl.stdout);
    // ports and logs are the test's own
    let (models_and_types, _) = text.split_once("# Loopback only").unwrap_or_else(|| panic!("{text}"));
    let host = Host::start(models_and_types);
    let answer = host.json(&["infer", "A trait is", "--max-tokens", "3"]);
    assert_eq!((&answer["model"], &answer["usage"]["output_tokens"]), (&"builtin:demo".into(), &3.into()));
    assert_eq!(host.json(&["status"])["nodes"]["total"], 5);
}

//! Which crate may use which: the rooms of `host/ARCHITECTURE.md`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::process::Command;

use serde_json::Value;

use crate::{assert_none, cargo_metadata, path_of};

/// Each room and the rooms it may use, without those that these may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("llambo-inference", &[]),
    ("llambo-config", &[]),
    ("llambo-hardware", &[]),
    ("llambo-catalog", &["llambo-inference"]),
    ("llambo-strategy", &["llambo-inference"]),
    ("llambo-policy", &["llambo-strategy"]),
    ("llambo-llama", &["llambo-inference", "llambo-catalog"]),
    ("llambo-isolate", &["llambo-inference"]),
    ("llambo-shelf", &["llambo-inference"]),
    ("llambo-telemetry", &["llambo-inference"]),
    ("llambo-orchestrator", &["llambo-inference", "llambo-strategy"]),
    ("llambo-tasks", &["llambo-orchestrator"]),
    ("llambo-sessions", &["llambo-inference"]),
    ("llambo-proto", &["llambo-inference"]),
    ("llambo-edge", &["llambo-proto", "llambo-hardware", "llambo-orchestrator", "llambo-tasks", "llambo-sessions"]),
    ("llambo-client", &["llambo-proto"]),
    ("llambo-download", &["llambo-catalog"]),
    ("llamboctl", &["llambo-client", "llambo-config", "llambo-download", "llambo-hardware"]),
    (
        "llambo",
        &[
            "llambo-config", "llambo-catalog", "llambo-llama", "llambo-isolate", "llambo-policy", "llambo-telemetry",
            "llambo-shelf", "llambo-edge",
        ],
    ),
];
/// What the tests of a room may use besides: the edge is tested through the client that its users have.
const TESTS_MAY_USE: &[(&str, &str)] = &[("llambo-edge", "llambo-client")];
/// They look at everything from outside, and nothing uses them.
const OUTSIDE: &[&str] = &["llambo-tests", "xtask"];

/// Crates that the command-line client must stay free of: it is to build and start in no time, anywhere.
const NOT_IN_LLAMBOCTL: &[&str] =
    &["llama-cpp-sys-2", "wasmtime", "llambo-llama", "llambo-isolate", "llambo-policy", "llambo-orchestrator"];

/// All that `room` may use, also through others. None for a room that is not in the table.
fn reach(room: &str) -> Option<BTreeSet<&'static str>> {
    let (_, direct) = MAY_USE.iter().find(|(name, _)| *name == room)?;
    let mut all: BTreeSet<&str> = direct.iter().copied().collect();
    for next in *direct {
        all.extend(reach(next).unwrap_or_default());
    }
    Some(all)
}

fn arrow_complaints(arrows: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (room, used) in arrows {
        if OUTSIDE.contains(&room.as_str()) {
            continue;
        }
        let Some(allowed) = reach(room) else {
            complaints.push(format!(
                "`{room}` is a new room: say in host/ARCHITECTURE.md what it owns and may use, then add it to MAY_USE"
            ));
            continue;
        };
        for wrong in used.iter().filter(|name| !allowed.contains(name.as_str())) {
            complaints.push(format!(
                "`{room}` must not use `{wrong}`: move what it needs to a room that both may use, or let its caller pass it in \
                 through a trait; if the architecture really changes, change host/ARCHITECTURE.md and MAY_USE in the same commit"
            ));
        }
    }
    complaints
}

fn packages(metadata: &Value) -> &[Value] {
    metadata["packages"].as_array().map_or(&[], Vec::as_slice)
}

fn name_of(value: &Value) -> &str {
    value["name"].as_str().unwrap_or_default()
}

fn dependencies(package: &Value) -> &[Value] {
    package["dependencies"].as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn crates_depend_in_one_direction() {
    let metadata = cargo_metadata(&["--no-deps"]);
    let members: BTreeSet<&str> = packages(&metadata).iter().map(name_of).collect();
    let arrows = packages(&metadata).iter().map(|package| {
        let room = name_of(package);
        let used = dependencies(package).iter().filter(|used| {
            let for_tests = used["kind"] == "dev" && TESTS_MAY_USE.contains(&(room, name_of(used)));
            members.contains(name_of(used)) && !for_tests
        });
        (room.to_owned(), used.map(|used| name_of(used).to_owned()).collect())
    });
    assert_none(&arrow_complaints(&arrows.collect()));
}

#[test]
fn an_arrow_against_the_direction_is_seen() {
    let arrows = |room: &str, used: &str| BTreeMap::from([(room.to_owned(), BTreeSet::from([used.to_owned()]))]);
    assert_eq!(arrow_complaints(&arrows("llambo-isolate", "llambo-llama")).len(), 1);
    assert_eq!(arrow_complaints(&arrows("llambo-inference", "xtask")).len(), 1);
    assert_eq!(arrow_complaints(&arrows("llambo-new", "llambo-inference")).len(), 1);
    assert_eq!(arrow_complaints(&arrows("llambo-edge", "llambo-strategy")), Vec::<String>::new());
}

#[test]
fn llamboctl_reaches_no_native_engine() {
    let host = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let host = String::from_utf8_lossy(&host.stdout).into_owned();
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    // for one platform: packages of others need not have been downloaded
    let metadata = cargo_metadata(&["--filter-platform", host]);
    let names: BTreeMap<&str, &str> =
        packages(&metadata).iter().map(|package| (package["id"].as_str().unwrap_or_default(), name_of(package))).collect();
    let paths = paths_from("llamboctl", &metadata, &names);
    let complaints = NOT_IN_LLAMBOCTL.iter().filter_map(|name| {
        let path = paths.get(name)?.join(" -> ");
        Some(format!("`llamboctl` must build without `{name}`, which it reaches so: {path}; cut one of these arrows"))
    });
    assert_none(&complaints.collect::<Vec<_>>());
    assert!(paths.contains_key("llambo-client"), "the graph of dependencies could not be read");
}

/// Every crate that `start` is built with, each with one way to it.
fn paths_from<'a>(start: &'a str, metadata: &'a Value, names: &BTreeMap<&'a str, &'a str>) -> BTreeMap<&'a str, Vec<&'a str>> {
    let nodes = metadata["resolve"]["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let nodes: BTreeMap<&str, &Value> = nodes.iter().map(|node| (node["id"].as_str().unwrap_or_default(), node)).collect();
    let first = names.iter().find(|(_, name)| **name == start).map(|(id, _)| *id);
    let mut waiting: VecDeque<(&str, Vec<&str>)> = first.map(|id| (id, vec![start])).into_iter().collect();
    let mut paths = BTreeMap::new();
    let mut seen: BTreeSet<&str> = first.into_iter().collect();
    while let Some((id, path)) = waiting.pop_front() {
        let Some(node) = nodes.get(id) else { continue };
        for dependency in node["deps"].as_array().map_or(&[][..], Vec::as_slice) {
            let kinds = dependency["dep_kinds"].as_array().map_or(&[][..], Vec::as_slice);
            let only_for_tests = !kinds.is_empty() && kinds.iter().all(|kind| kind["kind"] == "dev");
            let Some(next) = dependency["pkg"].as_str() else { continue };
            if !only_for_tests && seen.insert(next) {
                let path: Vec<&str> = path.iter().copied().chain(names.get(next).copied()).collect();
                waiting.push_back((next, path));
            }
        }
        if let Some(name) = path.last() {
            paths.insert(*name, path);
        }
    }
    paths
}

/// Programs and tests are built from the same dependencies only if tests ask for no more features.
#[test]
fn tests_need_no_other_build_of_a_dependency() {
    let metadata = cargo_metadata(&["--no-deps"]);
    assert_none(&feature_complaints(packages(&metadata)));
}

fn feature_complaints(packages: &[Value]) -> Vec<String> {
    let features = |dependency: &Value| -> BTreeSet<String> {
        let list = dependency["features"].as_array().map_or(&[][..], Vec::as_slice);
        let default = dependency["uses_default_features"].as_bool().unwrap_or(true).then(|| "default".to_owned());
        list.iter().filter_map(Value::as_str).map(str::to_owned).chain(default).collect()
    };
    let all = || packages.iter().flat_map(|package| dependencies(package).iter().map(move |d| (name_of(package), d)));
    let mut always: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (_, dependency) in all().filter(|(_, dependency)| dependency["kind"] != "dev") {
        always.entry(name_of(dependency)).or_default().extend(features(dependency));
    }
    let mut complaints = Vec::new();
    for (package, dependency) in all().filter(|(_, dependency)| dependency["kind"] == "dev") {
        let Some(always) = always.get(name_of(dependency)) else { continue };
        let more: Vec<String> = features(dependency).difference(always).cloned().collect();
        if !more.is_empty() {
            complaints.push(format!(
                "the tests of `{package}` ask for `{}` of `{}`: it and all that use it would be built a second time for tests; \
                 name the feature in tests/Cargo.toml, which takes part in every build",
                more.join(", "),
                name_of(dependency)
            ));
        }
    }
    complaints
}

#[test]
fn a_feature_only_for_tests_is_seen() {
    let package = |kind: &str, features: &[&str]| {
        let dependency =
            serde_json::json!({ "name": "tokio", "kind": kind, "features": features, "uses_default_features": true });
        serde_json::json!({ "name": "p", "dependencies": [dependency] })
    };
    let normal = package("", &["net"]);
    assert_eq!(feature_complaints(&[normal.clone(), package("dev", &["net"])]), Vec::<String>::new());
    assert_eq!(feature_complaints(&[normal, package("dev", &["test-util"])]).len(), 1);
    assert_eq!(feature_complaints(&[package("dev", &["test-util"])]), Vec::<String>::new());
}

#[test]
fn every_crate_takes_the_workspaces_lints() {
    let metadata = cargo_metadata(&["--no-deps"]);
    let complaints = packages(&metadata).iter().filter_map(|package| {
        let manifest = package["manifest_path"].as_str().expect("every package has a manifest");
        let text = std::fs::read_to_string(path_of(manifest)).expect("the manifest is there");
        let takes_them = text.split("\n[").any(|section| {
            section.trim_start_matches('[').starts_with("lints]") && section.lines().any(|line| line.trim() == "workspace = true")
        });
        (!takes_them).then(|| format!("{manifest}: add `[lints]` with `workspace = true`"))
    });
    assert_none(&complaints.collect::<Vec<_>>());
}

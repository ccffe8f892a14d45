//! The program as scripts meet it: exit codes, streams and files. No host runs.

use std::{
    fs, io,
    net::TcpListener,
    process::{Command, Output, Stdio},
};

/// The program, without what the environment of the tests says.
fn llamboctl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llamboctl"));
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    llamboctl(args).output().expect("the program starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it prints UTF-8")
}

/// An address at which nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    format!("http://{}", listener.local_addr().expect("it is bound"))
}

#[test]
fn a_wrong_command_line_exits_with_64() {
    for args in [
        &["nonsense"][..],
        &["infer"],
        &["infer", "x", "--top-k", "-1"],
        &["infer", "x", "--tier", "3"],
        &["infer", "x", "--label", "team"],
        &["drain"],
        &["session"],
        &["session", "ask"],
        &["session", "create", "--token-budget", "0"],
        &["policy"],
        &["policy", "load", "p.wasm"],
        &["policy", "load", "p.wasm", "--as", "balancer", "--share", "100%"],
        &["policy", "new", "Mine", "--world", "balancer"],
        &["--host", "ftp://x", "status"],
        &[],
    ] {
        let output = run(args);
        assert_eq!(code(&output), 64, "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
    assert_eq!(code(&run(&["--help"])), 0);
    assert_eq!(code(&run(&["--version"])), 0);
}

#[test]
fn an_absent_host_exits_with_69_and_says_what_to_do() {
    let address = nobody();
    for args in [&["status"][..], &["infer", "hello"], &["bench", "load"], &["health"], &["policy", "list"]] {
        let output = run(&[&["--host", &address], args].concat());
        assert_eq!(code(&output), 69, "{args:?}: {}", text(&output.stderr));
        let error = text(&output.stderr);
        assert!(error.contains(&address) && error.contains("is `llambo serve` running?"), "{error}");
    }
    let output = run(&["metrics", "--http", &address]);
    assert_eq!(code(&output), 69);
    assert!(text(&output.stderr).contains("is `llambo serve` running?"));
}

#[test]
fn a_recording_without_a_host_leaves_no_file() {
    let folder = tempfile::tempdir().expect("there is room");
    let file = folder.path().join("t.jsonl");
    let output = run(&["--host", &nobody(), "policy", "record", file.to_str().expect("it is UTF-8")]);
    assert_eq!((code(&output), file.exists()), (69, false), "{}", text(&output.stderr));
}

#[test]
fn errors_are_json_when_asked_for() {
    let output = run(&["--json", "--host", &nobody(), "status"]);
    let error = text(&output.stderr);
    assert!(error.starts_with(r#"{"error":{"#) && error.contains(r#""reason":"UNREACHABLE""#), "{error}");
    assert!(error.contains(r#""code":"UNAVAILABLE""#), "{error}");
    assert_eq!(error.lines().count(), 1);
    let output = run(&["--json", "infer"]);
    assert_eq!(code(&output), 64);
    assert!(text(&output.stderr).contains(r#""reason":"USAGE""#), "{}", text(&output.stderr));
}

#[test]
fn a_shipped_configuration_is_written_once_and_is_valid() {
    let folder = tempfile::tempdir().expect("there is room");
    let file = folder.path().join("c.yaml");
    let path = file.to_str().expect("it is UTF-8");
    assert_eq!(code(&run(&["init", "--output", path])), 0);
    let again = run(&["init", "--output", path]);
    assert_eq!(code(&again), 73);
    assert!(text(&again.stderr).contains("--force"));
    assert_eq!(code(&run(&["init", "--output", path, "--force"])), 0);
    let valid = run(&["config", "validate", path]);
    assert_eq!(code(&valid), 0, "{}", text(&valid.stderr));
}

#[test]
fn a_wrong_configuration_exits_with_65_and_names_the_place() {
    let folder = tempfile::tempdir().expect("there is room");
    let file = folder.path().join("c.yaml");
    fs::write(&file, "network:\n  grpc: nowhere\n  colour: red\n").expect("it can be written");
    let output = run(&["config", "validate", file.to_str().expect("it is UTF-8")]);
    assert_eq!(code(&output), 65);
    let errors = text(&output.stderr);
    assert!(errors.contains("c.yaml:2:") && errors.contains("c.yaml:3:"), "{errors}");
    let absent = run(&["config", "validate", "/nowhere/c.yaml"]);
    assert_eq!((code(&absent), absent.stdout.len()), (65, 0));
    let schema = run(&["infer", "x", "--json-schema", "/nowhere/s.json"]);
    assert_eq!(code(&schema), 65);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    for args in [&["completion", "bash"][..], &["--help"], &["init", "--force", "--output", "/dev/null"]] {
        let (reader, writer) = io::pipe().expect("there are descriptors left");
        drop(reader);
        let output = llamboctl(args).stdout(writer).stderr(Stdio::piped()).output().expect("the program starts");
        assert_eq!((code(&output), text(&output.stderr)), (0, String::new()), "{args:?}");
    }
}

#[test]
fn there_is_a_completion_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completion", shell]);
        assert_eq!(code(&output), 0);
        assert!(text(&output.stdout).contains("llamboctl"), "{shell}");
    }
}

#[test]
fn what_is_nearly_a_command_is_suggested() {
    for (typed, meant) in [("stauts", "status"), ("wroker", "worker"), ("hots", "hosts")] {
        let output = run(&[typed]);
        assert_eq!(code(&output), 64);
        assert!(text(&output.stderr).contains(&format!("'{meant}'")), "{}", text(&output.stderr));
    }
}

#[test]
fn a_flag_may_come_from_the_environment_and_the_command_line_comes_first() {
    let set = |variables: &[(&str, &str)], args: &[&str]| {
        llamboctl(args).envs(variables.iter().copied()).output().expect("the program starts")
    };
    let nobody = nobody();
    // with the type and the count given, what is left to complain about is the host
    let output =
        set(&[("LLAMBO_TYPE", "tiny"), ("LLAMBO_SPAWN_COUNT", "3"), ("LLAMBO_HOST", &nobody), ("LLAMBO_JSON", "1")], &["spawn"]);
    assert_eq!(code(&output), 69, "{}", text(&output.stderr));
    assert!(text(&output.stderr).starts_with("{\"error\""), "{}", text(&output.stderr));
    let wrong = set(&[("LLAMBO_SPAWN_COUNT", "many")], &["spawn", "--type", "tiny"]);
    assert_eq!(code(&wrong), 64);
    let first = set(&[("LLAMBO_SPAWN_COUNT", "many")], &["--host", &nobody, "spawn", "--type", "tiny", "--count", "1"]);
    assert_eq!(code(&first), 69, "{}", text(&first.stderr));
}

#[test]
fn the_manual_names_every_command_and_is_written_for_each() {
    let page = text(&run(&["man"]).stdout);
    assert!(page.starts_with(".ie") && page.contains("llamboctl\\-worker(1)") && page.contains("LLAMBO_HOST"), "{page}");
    let folder = tempfile::tempdir().expect("there is room");
    let output = run(&["man", "--dir", folder.path().to_str().expect("it is UTF-8")]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let page = fs::read_to_string(folder.path().join("llamboctl-bench-load.1")).expect("it was written");
    assert!(page.contains("LLAMBO_BENCH_LOAD_RATE"), "{page}");
}

#[test]
fn a_configuration_is_generated_for_wishes_and_is_valid() {
    let folder = tempfile::tempdir().expect("there is room");
    let model = folder.path().join("a model: \"odd\".gguf");
    fs::write(&model, "GGUF").expect("it can be written");
    let model = model.to_str().expect("it is UTF-8");
    let printed = run(&["generate-config", "--model", model, "--nodes", "7", "--type", "large"]);
    assert_eq!(code(&printed), 0, "{}", text(&printed.stderr));
    let file = folder.path().join("c.yaml");
    let path = file.to_str().expect("it is UTF-8");
    assert_eq!(code(&run(&["generate-config", "--model", model, "--nodes", "7", "--type", "large", "--output", path])), 0);
    // but for what is free just now
    let lasting = |text: String| text.lines().filter(|line| !line.contains("memory")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lasting(fs::read_to_string(&file).expect("it was written")), lasting(text(&printed.stdout)));
    assert_eq!(code(&run(&["config", "validate", path])), 0);
    assert_eq!(code(&run(&["generate-config", "--output", path])), 73, "nothing is overwritten unasked");
    let absent = run(&["generate-config", "--model", "/nowhere/m.gguf"]);
    assert_eq!(code(&absent), 0);
    assert!(text(&absent.stderr).contains("`/nowhere/m.gguf` is not a file here"));
    assert_eq!(code(&run(&["generate-config", "--model", "builtin:nonsense"])), 65);
    // by the other name of its flag
    let named = folder.path().join("d.yaml");
    assert_eq!(code(&run(&["init", "--config", named.to_str().expect("it is UTF-8"), "--full"])), 0);
    assert!(fs::read_to_string(&named).expect("it was written").contains("# The configuration of a llambo host."));
}

#[test]
fn this_machine_is_told_without_a_host() {
    let output = run(&["hosts", "--here"]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("processor  "), "{}", text(&output.stdout));
    let json: serde_json::Value = serde_json::from_slice(&run(&["--json", "hosts", "--here"]).stdout).expect("it is JSON");
    assert!(json["cpus"].as_u64().is_some_and(|n| n > 0), "{json}");
}

#[test]
fn nothing_is_coloured_unless_it_is_asked_for() {
    let printed = |args: &[&str]| text(&run(args).stdout);
    for args in [&["hosts", "--here"][..], &["--help"]] {
        assert!(!printed(args).contains('\u{1b}'), "{args:?}");
    }
}

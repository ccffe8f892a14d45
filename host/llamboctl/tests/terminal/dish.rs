//! `llamboctl dish`.

use std::fs;

use crate::{CTRL_C, CTRL_D, Place, UP, code, text};

impl Place {
    fn script(&self, script: &str) -> (i32, String, String) {
        fs::write(self.path("s.dish"), script).expect("it can be written");
        let output = self.run(&["dish", "s.dish"], "");
        (code(&output), text(&output.stdout), text(&output.stderr))
    }
}

#[test]
fn a_script_runs_llamboctls_commands_over_one_connection() {
    let place = Place::new();
    let script = "# first of all\nspawn --type tiny \\\n  --count 2\nnodes list --json # as JSON\n\ninfer 'Why \"so\"?'\nwatch --interval 100ms --times 2 balancer\n";
    let (code, out, err) = place.script(script);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("spawned 2 of type tiny") && out.contains(r#"[{"id":"tiny-0001","#), "{out}");
    assert!(out.contains("It is **blue**") && out.ends_with("* random\n  round-robin\n* random\n  round-robin\n"), "{out}");
    assert_eq!((place.host.asked(), place.host.n_connections()), (vec!["user: Why \"so\"?".to_owned()], 1));
}

#[test]
fn a_failure_is_told_with_its_place_and_ends_the_script_where_that_is_wanted() {
    let place = Place::new();
    let (code, out, err) = place.script("spawn --type huge --count 1\necho on\n");
    assert_eq!((code, out.as_str()), (0, "on\n"));
    assert_eq!(err, "error: s.dish:1: there is no type `huge`\n");
    let (code, out, err) = place.script("set -ex\necho on\n\nspawn --type huge --count 1\necho never\n");
    assert_eq!((code, out.as_str()), (1, "on\n"));
    assert_eq!(err, "+ echo on\n+ spawn --type huge --count 1\nerror: s.dish:4: there is no type `huge`\n");
    let (code, out, _) = place.script("set -e\nset +e\nspawn\necho on\nspawn --count 1\n");
    assert_eq!((code, out.as_str()), (64, "on\n"), "the last command's code");
    let (code, _, err) = place.script("set -e\nspwan\n");
    assert!(code == 64 && err.contains("s.dish:2: unrecognized subcommand 'spwan'") && err.contains("'spawn'"), "{err}");
    let (code, out, err) = place.script("echo a\n\ninfer 'What\nexit 0\n");
    assert_eq!((code, out.as_str(), err.as_str()), (65, "a\n", "error: s.dish:3: a quote is opened here and not closed\n"));
    assert_eq!(place.script("exit 7\necho never\n").0, 7);
    assert_eq!(code_of(&place, &["dish", "absent.dish"]), 65);
    let (code, _, err) = place.script("infer -\n");
    assert!(code == 64 && err.contains("standard input"), "{err}");
}

fn code_of(place: &Place, words: &[&str]) -> i32 {
    code(&place.run(words, ""))
}

#[test]
fn a_script_comes_through_a_pipe_too() {
    let place = Place::new();
    let output = place.run(&["--json", "dish"], "set -e\nspawn --type tiny --count 1\nspawn --type huge --count 1\necho never\n");
    assert_eq!((code(&output), text(&output.stdout).lines().count()), (1, 1));
    let err = text(&output.stderr);
    assert!(err.contains(r#""reason":"UNKNOWN_TYPE""#) && err.contains("stdin:3: there is no type"), "{err}");
    let away = "http://127.0.0.1:1";
    let output = place.run(&["dish"], &format!("--host {away} status\nstatus"));
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("stdin:1: cannot reach a host at `http://127.0.0.1:1`"), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("2 ready"));
}

#[test]
fn the_shell_completes_what_the_host_has() {
    let place = Place::new();
    let mut terminal = place.terminal(&["dish"]);
    terminal.shows("the cluster at http");
    terminal.types("drain wi\t\r");
    terminal.shows("wide-0002");
    terminal.shows("error");
    terminal.types("spa\t--ty\tti\t--cou\t3\r");
    terminal.shows("spawned 3 of type tiny");
    terminal.enters("help watch");
    terminal.shows("repeat a command until Ctrl-C");
    terminal.enters("nodes");
    terminal.shows("Usage: nodes");
    terminal.enters("exit");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn ctrl_c_stops_a_command_and_a_watch_and_not_the_shell() {
    let place = Place::new();
    let mut terminal = place.terminal(&["dish"]);
    terminal.shows("the cluster at http");
    terminal.enters("infer 'a slow one'");
    terminal.shows("one two ");
    terminal.types(CTRL_C);
    place.host.wait_for_cancelled(1);
    terminal.shows("interrupted");
    terminal.enters("watch balancer --interval 100ms");
    terminal.shows("every 100.0 ms: balancer");
    terminal.shows("* random");
    terminal.shows("every 100.0 ms: balancer");
    terminal.types(CTRL_C);
    terminal.shows("dish> ");
    terminal.enters("status --watch");
    terminal.shows("2 \u{1b}[32mready");
    terminal.types(CTRL_C);
    terminal.shows("interrupted");
    terminal.shows("dish> ");
    terminal.types(&format!("not meant{CTRL_C}"));
    // what is typed ahead of the prompt may be lost
    terminal.shows("dish> ");
    terminal.enters("echo still here");
    terminal.shows("still here\r\n");
    terminal.shows("dish> ");
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn what_was_typed_comes_back_in_the_next_run_but_no_secrets() {
    let place = Place::new();
    let mut terminal = place.terminal(&["dish"]);
    terminal.enters("echo one");
    terminal.shows("one\r\n");
    terminal.enters("echo --token s3cret");
    terminal.shows("s3cret\r\n");
    terminal.enters("exit");
    assert_eq!(terminal.ends(), 0);
    let mut terminal = place.terminal(&["dish"]);
    terminal.shows("dish> ");
    terminal.types(&format!("{UP}{UP} two\r"));
    terminal.shows("one two\r\n");
    terminal.enters("exit 3");
    assert_eq!(terminal.ends(), 3);
    let kept = fs::read_to_string(place.path("state/llambo/dish-lines.jsonl")).expect("it is there");
    assert!(kept.contains("\"echo one\"\n") && !kept.contains("s3cret"), "{kept}");
}

//! `llamboctl limbot`.

use std::{fs, os::unix::fs::MetadataExt};

use serde_json::Value;

use crate::{CTRL_C, CTRL_D, Place, UP, code, text};

#[test]
fn one_question_is_answered_as_it_is_for_programs() {
    let place = Place::new();
    let output = place.run(&["limbot", "Why?", "--system", "Be brief."], "");
    assert_eq!(
        (code(&output), text(&output.stdout)),
        (0, "It is **blue**, after 2 messages.\n".into()),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(text(&output.stderr), "");
    assert_eq!(place.host.asked(), ["system: Be brief. | user: Why?"]);
    assert!(!place.path("state").exists(), "scripts leave nothing behind");
}

#[test]
fn a_pipe_is_the_question_or_its_material() {
    let place = Place::new();
    assert_eq!(code(&place.run(&["limbot"], "Why?\n")), 0);
    assert_eq!(code(&place.run(&["limbot", "Sum up:"], "a\nb\n")), 0);
    assert_eq!(place.host.asked(), ["user: Why?", "user: Sum up:\n\na\nb"]);
    let nothing = place.run(&["limbot"], "");
    assert_eq!(code(&nothing), 65);
    assert!(text(&nothing.stderr).contains("nothing was asked"), "{}", text(&nothing.stderr));
}

#[test]
fn json_is_that_of_infer() {
    let place = Place::new();
    let output = place.run(&["--json", "limbot", "Why?", "--model", "second"], "");
    let told: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!((&told["text"], &told["model"]), (&"It is **blue**, after 1 messages.".into(), &"second".into()), "{told}");
    assert_eq!((&told["usage"]["output_tokens"], &told["finish_reason"]), (&5.into(), &"stop".into()), "{told}");
    let mut place = place;
    place.host.go();
    let output = place.run(&["--json", "limbot", "Why?"], "");
    assert_eq!((code(&output), text(&output.stdout)), (69, String::new()));
    assert!(text(&output.stderr).contains(r#""reason":"UNREACHABLE""#), "{}", text(&output.stderr));
}

#[test]
fn a_conversation_is_shown_well_sent_whole_and_kept() {
    let place = Place::new();
    let mut terminal = place.terminal(&["limbot"]);
    terminal.shows("first at http");
    terminal.enters("Why?");
    // emphasis is a weight and not two stars, and is whole although the host cut it
    terminal.shows("It is \x1b[0;1mblue\x1b[0m, after 1 messages.");
    terminal.shows("tiny-0002 · first · 2 + 5 tokens · stop · first after 1 ms, all after 2 ms");
    terminal.enters("And then?");
    terminal.shows("after 3 messages.");
    terminal.shows("tokens");
    terminal.enters("/history");
    terminal.shows("And then?");
    terminal.enters("/status");
    terminal.shows("2 ready");
    terminal.shows("first, the host's first; it holds 400 tokens");
    terminal.shows("2 turns, about");
    terminal.enters("/save said.md");
    terminal.shows("wrote said.md");
    terminal.enters("/hlep");
    terminal.shows("there is no command /hlep; did you mean /help?");
    terminal.enters("/exit");
    assert_eq!(terminal.ends(), 0);
    let answer = "It is **blue**, after 1 messages.";
    assert_eq!(place.host.asked()[1], format!("user: Why? | assistant: {answer} | user: And then?"));
    let saved = fs::read_to_string(place.path("said.md")).expect("it was written");
    assert!(saved.contains(&format!("## Why?\n\n{answer}\n")), "{saved}");
    let mode = |name: &str| fs::metadata(place.path(name)).expect("it is there").mode() & 0o777;
    assert_eq!(
        ["state/llambo", "state/llambo/limbot-turns.jsonl", "state/llambo/limbot-lines.jsonl"].map(mode),
        [0o700, 0o600, 0o600]
    );
}

#[test]
fn ctrl_c_stops_the_answer_on_the_host_and_not_the_program() {
    let place = Place::new();
    let mut terminal = place.terminal(&["limbot"]);
    terminal.shows("first at http");
    terminal.enters("a slow one");
    terminal.shows("one two");
    terminal.types(CTRL_C);
    terminal.shows("stopped");
    place.host.wait_for_cancelled(1);
    terminal.shows("limbot> ");
    terminal.types(&format!("half a line{CTRL_C}"));
    terminal.shows("Ctrl-D or /exit leaves");
    terminal.enters("Why?");
    terminal.shows("after 3 messages.");
    assert_eq!(place.host.asked()[1], "user: a slow one | assistant: one two  | user: Why?");
    terminal.shows("tokens");
    terminal.shows("limbot> ");
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn what_was_typed_and_said_comes_back_in_the_next_run_also_from_a_damaged_file() {
    let place = Place::new();
    let mut terminal = place.terminal(&["limbot"]);
    terminal.shows("first at http");
    terminal.enters("Why?");
    terminal.shows("after 1 messages.");
    terminal.shows("tokens");
    terminal.enters("/exit");
    assert_eq!(terminal.ends(), 0);
    for name in ["state/llambo/limbot-turns.jsonl", "state/llambo/limbot-lines.jsonl"] {
        let mut bytes = fs::read(place.path(name)).expect("it is there");
        bytes.extend(b"\xff\xfe{\"conversation\": \"x\", \"ques");
        fs::write(place.path(name), bytes).expect("it can be written");
    }
    let mut terminal = place.terminal(&["limbot", "--continue"]);
    terminal.shows("1 turn from before");
    terminal.shows("limbot> ");
    terminal.types(&format!("{UP}{UP}"));
    terminal.shows("Why?");
    terminal.enters(" Again!");
    terminal.shows("after 3 messages.");
    terminal.shows("tokens");
    terminal.enters("/exit");
    assert_eq!(terminal.ends(), 0);
    assert!(place.host.asked()[1].ends_with("user: Why? Again!"), "{:?}", place.host.asked());
    let mut terminal = place.terminal(&["limbot", "--continue"]);
    terminal.shows("2 turns from before");
    terminal.enters("/exit");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn lines_go_on_and_tab_completes() {
    let place = Place::new();
    let mut terminal = place.terminal(&["limbot", "--no-history"]);
    terminal.shows("limbot> ");
    // a backslash before Enter, and Alt-Enter
    terminal.types("one\\\rtwo\x1b\rthree\r");
    terminal.shows("after 1 messages.");
    terminal.shows("tokens");
    terminal.types("/mo\tse\t\r");
    terminal.shows("second answers from now on");
    terminal.types("/ti\t1\r");
    terminal.shows("nodes of tier 1 are asked");
    terminal.enters("/exit");
    assert_eq!(terminal.ends(), 0);
    assert_eq!(place.host.asked(), ["user: one\ntwo\nthree"]);
    assert!(!place.path("state").exists());
}

#[test]
fn a_host_that_goes_away_takes_nothing_with_it() {
    let mut place = Place::new();
    let mut terminal = place.terminal(&["limbot"]);
    terminal.shows("first at http");
    terminal.enters("Why?");
    terminal.shows("after 1 messages.");
    terminal.shows("tokens");
    place.host.go();
    terminal.enters("And then?");
    terminal.shows("the conversation is kept, and /retry asks again when the host is back");
    place.host.come();
    terminal.enters("/retry");
    terminal.shows("after 3 messages.");
    // in the middle of an answer
    terminal.enters("a slow one");
    terminal.shows("one two");
    place.host.go();
    terminal.shows("the conversation is kept");
    place.host.come();
    terminal.enters("Where?");
    terminal.shows("after 5 messages.");
    terminal.enters("/exit");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn what_the_model_cannot_hold_is_left_out_and_told() {
    let place = Place::new();
    let mut terminal = place.terminal(&["limbot", "--quiet"]);
    terminal.shows("first at http");
    for _ in 0..2 {
        terminal.enters(&"x".repeat(500));
        terminal.shows("messages.");
    }
    terminal.enters(&"y".repeat(500));
    terminal.shows("the 2 oldest turns no longer fit into the 400 tokens of first and are left out");
    terminal.shows("after 1 messages.");
    // the host counts otherwise
    terminal.enters("a long one");
    terminal.shows("the oldest turn no longer fits into what the model holds, as the host counts, and is left out");
    terminal.shows("after 1 messages.");
    terminal.enters("/exit");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn without_colours_the_text_stays_as_it_is() {
    let place = Place::new();
    let mut command = place.command(&["limbot"]);
    command.env("NO_COLOR", "1");
    let mut terminal = Place::terminal_of(command);
    terminal.shows("limbot> ");
    terminal.enters("Why?");
    terminal.shows("It is **blue**, after 1 messages.");
    terminal.enters("/exit");
    assert_eq!(terminal.ends(), 0);
}

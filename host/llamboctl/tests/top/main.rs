//! `llamboctl top` as people meet it: on a terminal, beside a host that is made up.

mod host;
mod screen;

use std::process::{Command, Stdio};

use crate::{host::Host, screen::Screen};

fn top(host: &Host, rows: u16, cols: u16) -> Screen {
    let address = format!("http://{}", host.address);
    Screen::start(&["--host", &address, "top", "--interval", "100ms"], rows, cols)
}

#[test]
fn it_shows_nodes_types_and_models_and_leaves_the_terminal_as_it_was() {
    let host = Host::start();
    let mut screen = top(&host, 24, 80);
    let text = screen.until_shows("tiny-1 ");
    assert!(text.contains("llambo 9.8.7") && text.contains("38 ready  2 busy") && text.contains("q quit"), "{text}");
    assert!(screen.is_raw());
    // those with the most to do come first
    let row = |text: &str, n: usize| text.lines().nth(n).unwrap_or_default().to_owned();
    assert!(row(&text, 10).starts_with("tiny-0 ") && row(&text, 11).starts_with("tiny-1 "), "{text}");
    screen.until("tokens that are generated", |text| text.contains("/s out") && !text.contains("tokens    0/s"));
    screen.press("t");
    screen.until_shows("REQUESTS/S");
    screen.press("m");
    screen.until_shows("demo-model");
    screen.press("n");
    screen.until_shows("tiny-1 ");
    screen.press("q");
    let end = screen.end();
    assert_eq!((end.code, end.is_as_before, end.left.trim()), (0, true, ""));
}

#[test]
fn it_follows_the_size_of_the_terminal() {
    let host = Host::start();
    let mut screen = top(&host, 24, 80);
    screen.until_shows("tiny-1 ");
    screen.resize(8, 30);
    let small = screen.until("a small screen", |text| text.lines().last().is_some_and(|last| last.starts_with(" q quit  tab")));
    assert!(small.lines().count() <= 8, "{small}");
    screen.resize(50, 120);
    screen.until_shows("tiny-30 ");
    screen.resize(1, 3);
    screen.press("q");
    assert_eq!(screen.end().code, 0);
}

#[test]
fn a_host_that_goes_is_told_of_and_found_again() {
    let mut host = Host::start();
    let screen = top(&host, 24, 80);
    screen.until_shows("tiny-1 ");
    host.end();
    let gone = screen.until_shows("the host is gone since");
    assert!(gone.contains("tiny-1 "), "what was known stays: {gone}");
    host.begin();
    screen.until("the host again", |text| !text.contains("the host is gone") && text.contains("38 ready"));
    let mut screen = screen;
    screen.press("q");
    assert_eq!(screen.end().code, 0);
}

#[test]
fn ctrl_c_and_sigterm_leave_the_terminal_as_it_was() {
    let host = Host::start();
    let mut screen = top(&host, 24, 80);
    screen.until_shows("tiny-1 ");
    screen.press("\u{3}");
    let end = screen.end();
    assert_eq!((end.code, end.is_as_before), (130, true));

    let screen = top(&host, 24, 80);
    screen.until_shows("tiny-1 ");
    let killed = Command::new("kill").arg(screen.pid().to_string()).status().expect("there is a program that ends others");
    assert!(killed.success());
    let end = screen.end();
    assert_eq!((end.code, end.is_as_before), (130, true));
}

#[test]
fn without_a_terminal_or_a_host_it_says_what_to_do() {
    let host = Host::start();
    let address = format!("http://{}", host.address);
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llamboctl"));
        let output = command.args(words).env_clear().stdin(Stdio::null()).output().expect("the program starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, why) = run(&["--host", &address, "top"]);
    assert!(code == Some(64) && why.contains("status --watch"), "{why}");
    let (code, why) = run(&["--host", &address, "--json", "top"]);
    assert!(code == Some(64) && why.contains("status --watch --json"), "{why}");
    drop(host);
    let screen = Screen::start(&["--host", &address, "top"], 24, 80);
    let end = screen.end();
    assert!(end.code == 69 && end.left.contains("is `llambo serve` running?"), "{}", end.left);
}

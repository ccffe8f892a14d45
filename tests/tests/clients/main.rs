//! The clients that people have already, unchanged and installed from their registries, against a host as its users start it. The suites themselves
//! are in `tests/clients`, in the clients' own languages.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

mod installed;
mod page;

use std::process::Command;

use llambo_tests::Host;

/// A few isolates on the small model, which knows nothing and answers at once.
const SMALL: &str = "
models: [{name: demo-small, path: builtin:demo-small, sequences: 32}]
types: {tiny: {count: 40}}
";

/// Runs a suite against a host of its own.
fn passes(command: &mut Command) {
    let host = Host::start(SMALL);
    // proxies are for what is elsewhere
    let output = command.env("LLAMBO_HTTP", format!("http://{}", host.http())).env("NO_PROXY", "127.0.0.1").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
}

#[test]
fn the_python_client_of_openai_works_unchanged() {
    passes(Command::new(installed::python()).arg(installed::suite("python/test_openai.py")));
}

#[test]
fn the_node_client_of_openai_and_the_ai_sdk_work_unchanged() {
    let folder = installed::node();
    passes(Command::new("node").args(["--test", "openai.test.mjs", "ai-sdk.test.mjs"]).current_dir(folder));
}

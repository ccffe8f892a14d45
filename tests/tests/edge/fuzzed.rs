//! What a program sends to the HTTP port that has read our `OpenAPI` document and means no good: schemathesis, from the Python package index.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use llambo_tests::rehearsal::Rehearsal;

use crate::{all_are_served, is_quiet_again};

/// For each operation and phase.
const MAX_EXAMPLES: &str = "50";
/// An answer that takes longer hangs, in seconds.
const LONGEST_ANSWER: &str = "10";
/// No 5xx, no answer in another form or with another status than the document says.
const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method";

fn run(what: &str, command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{what}: {e}"));
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{what} ended with {}:\n{}", output.status, told.join("\n"));
}

/// The program, installed into the target folder with exactly the pinned packages. Installed once for each list of them.
fn schemathesis() -> PathBuf {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/schemathesis/requirements.txt");
    // `release`, and in it `rehearsal`
    let target = llambo_tests::program("rehearsal").ancestors().nth(2).expect("programs lie in the target folder").to_owned();
    let folder = target.join("clients/schemathesis");
    let (program, installed) = (folder.join("bin/schemathesis"), folder.join("requirements.txt"));
    let wanted = fs::read(&packages).expect("the list is committed");
    if fs::read(&installed).ok().as_ref() != Some(&wanted) {
        run("python3 -m venv", Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        let mut pip = Command::new(folder.join("bin/pip"));
        run("pip install", pip.args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&packages));
        // last: a list that is there says that all of it is installed
        fs::write(&installed, &wanted).expect("the folder is ours");
    }
    program
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_fits_or_breaks_our_document_hangs_or_breaks_the_host() {
    let program = tokio::task::spawn_blocking(schemathesis).await.unwrap();
    let host = Rehearsal::start(&["--quick", "64"]);
    let client = host.client().await;
    all_are_served(&client).await;
    let n_descriptors = host.n_descriptors();
    let document = format!("http://{}/openapi.json", host.http());
    let folder = tempfile::tempdir().unwrap();
    let fuzzing = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(program);
        command.current_dir(folder.path()).args(["run", &document, "--no-color", "--continue-on-failure"]);
        // the same requests in each run: what it finds can be found again; one worker: several overflow a stack that Python counts once
        command.args(["--generation-deterministic", "--workers", "1", "--phases", "examples,coverage,fuzzing", "--mode", "all"]);
        // tells until it is left alone, unless it is asked not to
        command.args(["--exclude-path", "/cluster/watch"]);
        command.args(["--max-examples", MAX_EXAMPLES, "--checks", CHECKS]);
        command.args(["--max-response-time", LONGEST_ANSWER, "--request-timeout", LONGEST_ANSWER]);
        run("schemathesis", &mut command);
    });
    fuzzing.await.unwrap();
    is_quiet_again(&host, &client, n_descriptors).await;
    all_are_served(&client).await;
}

//! What the suites share: a host as its users see it, a process with two ports.

pub mod rehearsal;
pub mod web;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use llambo_client::Client;
use serde_json::Value;
use tempfile::TempDir;

/// A host on a loaded machine gets this long to start.
const STARTS_WITHIN: Duration = Duration::from_mins(2);
/// Lines that a test has not looked at yet; those beyond are lost.
const LOG_LINES: usize = 4096;

/// Loopback, free ports, logs that a program can read.
const PRELUDE: &str = "
network: {grpc: 127.0.0.1:0, http: 127.0.0.1:0, max-request-size: 16MB}
logging: {format: json, level: info}
";

/// A program of this workspace, built by `cargo xtask build` or `cargo build --workspace` in the profile of the tests.
pub fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("a running test has a path");
    let folder = tests.parent().and_then(Path::parent).expect("tests lie in `deps` of the target folder");
    let path = folder.join(name);
    assert!(path.exists(), "{} is not there: run `cargo xtask build` first", path.display());
    path
}

/// A guest module: as committed, or from `LLAMBO_TEST_GUESTS`, a folder with rebuilt ones.
pub fn guest(name: &str) -> PathBuf {
    let prebuilt = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest/prebuilt");
    let folder = std::env::var_os("LLAMBO_TEST_GUESTS").map_or(prebuilt, PathBuf::from);
    let path = folder.join(format!("{name}.wasm"));
    assert!(path.exists(), "there is no guest {}", path.display());
    path
}

/// A running `llambo serve`. Killed when dropped.
pub struct Host {
    child: Child,
    log: mpsc::Receiver<String>,
    grpc: String,
    http: String,
    _folder: TempDir,
}

impl Host {
    /// Starts one with `config` (without `network` and `logging`) and waits until it serves.
    pub fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("cluster-config.yaml");
        fs::write(&file, format!("{config}{PRELUDE}")).expect("a file in a temporary folder");
        let mut child = Command::new(program("llambo"))
            .args(["serve", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = lines(child.stderr.take().expect("standard error is piped"));
        let (mut grpc, mut http, mut said) = (String::new(), String::new(), Vec::new());
        while grpc.is_empty() {
            let Ok(line) = log.recv_timeout(STARTS_WITHIN) else {
                panic!("the host did not start; it said:\n{}", said.join("\n"));
            };
            if let Ok(entry) = serde_json::from_str::<Value>(&line)
                && let (Some(g), Some(h)) = (entry["grpc"].as_str(), entry["http"].as_str())
            {
                (grpc, http) = (format!("http://{g}"), h.to_owned());
            }
            said.push(line);
        }
        Self { child, log, grpc, http, _folder: folder }
    }

    /// `http://` and the gRPC address.
    pub fn grpc(&self) -> &str {
        &self.grpc
    }

    /// The HTTP address.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client of it.
    pub async fn client(&self) -> Client {
        Client::connect(&self.grpc).await.expect("a host that serves takes connections")
    }

    /// Runs `llamboctl --host <this> words` to its end.
    pub fn llamboctl(&self, words: &[&str]) -> Output {
        let mut command = Command::new(program("llamboctl"));
        command.arg("--host").arg(&self.grpc).args(words).stdin(Stdio::null());
        command.output().expect("llamboctl starts")
    }

    /// What `llamboctl --json words` prints. Fails the test unless it succeeds.
    pub fn json(&self, words: &[&str]) -> Value {
        let output = self.llamboctl(&[&["--json"], words].concat());
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "llamboctl {words:?}: {} {told}", output.status);
        serde_json::from_slice(&output.stdout).expect("JSON on standard output")
    }

    /// Sends a signal, as `kill` does.
    pub fn signal(&self, name: &str) {
        // std cannot send signals
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status();
        assert!(sent.expect("there is a shell").success());
    }

    /// Waits for its end, and gives what it logged since it served.
    pub fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let status = self.child.wait().expect("a child can be waited for");
        (status, self.log.iter().collect())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // both fail only when it has ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines of a pipe, read on a thread of their own so that the pipe never fills. The thread ends with the pipe.
fn lines(pipe: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(LOG_LINES);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            // read on, whether or not the test looks: nobody waits for it
            if let Err(mpsc::TrySendError::Disconnected(_)) = sender.try_send(line) {
                break;
            }
        }
    });
    receiver
}

/// Runs `llambo words` to its end.
pub fn llambo(words: &[&str]) -> Output {
    Command::new(program("llambo")).args(words).stdin(Stdio::null()).output().expect("the program starts")
}

/// Looks every 10 ms until `is_so`. Fails the test after a minute.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let looked = tokio::time::timeout(Duration::from_mins(1), async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(looked.await.is_ok(), "not so within a minute: {what}");
}

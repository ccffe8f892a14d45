//! A `llambo serve` that belongs to a command of ours: started on free loopback ports, waited for, asked through
//! `llamboctl`, stopped. Its log goes to a file that is shown when it does not start.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::arguments::Failure;
use crate::build::Programs;
use crate::environment;
use crate::step::{Step, elapsed, line, say};

/// Loading a large model from a slow disk takes its time; a host that hangs is noticed all the same.
const READY_WITHIN: Duration = Duration::from_mins(3);
/// Beyond the default drain time of 10 s, which the host may use whole.
const GONE_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
const LOG_LINES_SHOWN: usize = 40;

/// Where a host listens, both on loopback.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) grpc: u16,
    pub(crate) http: u16,
}

impl Ports {
    /// The documented ones, or free ones with a word about it where another program has them.
    pub(crate) fn default_or_free() -> io::Result<Self> {
        let taken: Vec<u16> = [7400, 7480].into_iter().filter(|port| listener(*port).is_err()).collect();
        if taken.is_empty() {
            return Ok(Self { grpc: 7400, http: 7480 });
        }
        let ports = Self::free()?;
        let taken = taken.iter().map(u16::to_string).collect::<Vec<_>>().join(" and ");
        say(&format!("    port {taken} is in use here; this host takes {} (gRPC) and {} (HTTP)", ports.grpc, ports.http));
        Ok(ports)
    }

    /// Two that nobody listens on.
    pub(crate) fn free() -> io::Result<Self> {
        // held together, so that they differ
        let (grpc, http) = (listener(0)?, listener(0)?);
        Ok(Self { grpc: grpc.local_addr()?.port(), http: http.local_addr()?.port() })
    }
}

fn listener(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// What a host is waited for at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// It answers, whether or not it has isolates.
    Alive,
    /// An isolate can take a request.
    Ready,
}

impl Until {
    fn path(self) -> &'static str {
        match self {
            Self::Alive => "/livez",
            Self::Ready => "/readyz",
        }
    }
}

/// A running host. Dropping it kills it; [`Host::stop`] ends it well.
#[derive(Debug)]
pub(crate) struct Host {
    child: Child,
    llamboctl: PathBuf,
    log: PathBuf,
    pub(crate) ports: Ports,
}

impl Host {
    /// Starts a host and waits until it is so far. `name` becomes that of its log, `target/xtask/<name>.log`.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not ready in time; the end of its log is shown then.
    pub(crate) fn start(programs: &Programs, config: &Path, ports: Ports, name: &str, until: Until) -> Result<Self, Failure> {
        let log = work_folder()?.join(format!("{name}.log"));
        let step = Step::begin(&format!("start a host with {} (log: {})", config.display(), log.display()));
        let output = File::create(&log).and_then(|file| Ok((file.try_clone()?, file)));
        let (stdout, stderr) = output.map_err(|error| Failure::because(format!("cannot write `{}`", log.display()), error))?;
        let mut command = Command::new(&programs.llambo);
        command.arg("serve").arg("--config").arg(config);
        command.args(["--grpc", &format!("127.0.0.1:{}", ports.grpc), "--http", &format!("127.0.0.1:{}", ports.http)]);
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let child = command.spawn().map_err(|error| Failure::because(format!("cannot start `{}`", line(&command)), error))?;
        let mut host = Self { child, llamboctl: programs.llamboctl.clone(), log, ports };
        host.wait_until_ready(until)?;
        step.done(&format!("gRPC 127.0.0.1:{}, HTTP 127.0.0.1:{}", ports.grpc, ports.http));
        Ok(host)
    }

    fn wait_until_ready(&mut self, until: Until) -> Result<(), Failure> {
        let began = Instant::now();
        while began.elapsed() < READY_WITHIN {
            match self.child.try_wait() {
                Ok(Some(status)) => return Err(self.failure(&format!("the host ended with {status} before it was ready"))),
                Ok(None) => {}
                Err(error) => return Err(self.failure(&format!("the host cannot be watched: {error}"))),
            }
            if http_status(self.ports.http, until.path()).is_ok_and(|status| status == 200) {
                return Ok(());
            }
            pause();
        }
        Err(self.failure(&format!("the host was not ready after {}", elapsed(READY_WITHIN))))
    }

    fn failure(&self, what: &str) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        Failure::Failed(format!("{what}; the end of its log ({}):\n{}", self.log.display(), last_lines(&log, LOG_LINES_SHOWN)))
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `llamboctl --host <this host>` followed by `words`.
    pub(crate) fn llamboctl(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.llamboctl);
        command.arg("--host").arg(format!("http://127.0.0.1:{}", self.ports.grpc)).args(words);
        command
    }

    /// Runs `llamboctl` with its output going where ours goes, after a line that says what would be typed.
    ///
    /// # Errors
    /// When it does not succeed.
    pub(crate) fn show(&self, words: &[&str]) -> Result<(), Failure> {
        say(&format!("\n$ llamboctl {}", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")));
        let mut command = self.llamboctl(words);
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.failure(&format!("`{}` ended with {status}", line(&command)))),
            Err(error) => Err(Failure::because(format!("cannot run `{}`", line(&command)), error)),
        }
    }

    /// What `llamboctl --json` answers.
    ///
    /// # Errors
    /// When it does not succeed or does not print JSON.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<Value, Failure> {
        let mut command = self.llamboctl(&["--json"]);
        command.args(words).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().map_err(|error| Failure::because(format!("cannot run `{}`", line(&command)), error))?;
        if !output.status.success() {
            return Err(self.failure(&format!("`{}` ended with {}", line(&command), output.status)));
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|error| Failure::because(format!("`{}` did not print JSON", line(&command)), error))
    }

    /// Waits until the host ends by itself or by a signal from the terminal.
    ///
    /// # Errors
    /// When it ends badly.
    pub(crate) fn wait(mut self) -> Result<(), Failure> {
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.failure(&format!("the host ended with {status}"))),
            Err(error) => Err(Failure::because("the host cannot be waited for", error)),
        }
    }

    /// Asks the host to end, as an operator would, and waits for it.
    ///
    /// # Errors
    /// When it does not end in time or not with exit status 0; it is gone in any case.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        let step = Step::begin("stop the host (SIGTERM)");
        let began = Instant::now();
        // std cannot send signals, and not every system has a `kill` program beside the shell's own
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.pid())]).status();
        if !sent.is_ok_and(|status| status.success()) {
            return Err(self.failure("SIGTERM could not be sent to the host"));
        }
        while began.elapsed() < GONE_WITHIN {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => {
                    step.done(&status.to_string());
                    return Ok(());
                }
                Ok(Some(status)) => return Err(self.failure(&format!("the host ended with {status} after SIGTERM"))),
                Ok(None) => pause(),
                Err(error) => return Err(self.failure(&format!("the host cannot be watched: {error}"))),
            }
        }
        Err(self.failure(&format!("the host was still there {} after SIGTERM; it was killed", elapsed(GONE_WITHIN))))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // both fail only when it has ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder for logs and generated configurations, `target/xtask`.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn work_folder() -> Result<PathBuf, Failure> {
    let folder = environment::root().join("target/xtask");
    fs::create_dir_all(&folder).map_err(|error| Failure::because(format!("cannot make `{}`", folder.display()), error))?;
    Ok(folder)
}

#[expect(clippy::disallowed_methods, reason = "another process is polled, which offers nothing to wait on; no runtime here")]
fn pause() {
    thread::sleep(POLL);
}

/// The status code of `GET path`.
fn http_status(port: u16, path: &str) -> io::Result<u16> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    // in one piece: a server may answer and close before the rest of a request in pieces is written
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    // "HTTP/1.1 200": the status line begins with so many bytes
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;
    status_code(&start).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))
}

fn status_code(start: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(start).ok()?;
    text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(count)..];
    if shown.is_empty() {
        "    (it is empty)".to_owned()
    } else {
        shown.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
    }
}

fn quoted(word: &str) -> String {
    if word.contains(' ') { format!("\"{word}\"") } else { word.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_gives_the_code() {
        assert_eq!(status_code(b"HTTP/1.1 200"), Some(200));
        assert_eq!(status_code(b"HTTP/1.0 503"), Some(503));
        assert_eq!(status_code(b"SSH-2.0-Open"), None);
    }

    #[test]
    fn readiness_is_read_from_a_socket() {
        let server = listener(0).unwrap();
        let port = server.local_addr().unwrap().port();
        let answer = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut request = [0; 64];
            let n = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").unwrap();
            String::from_utf8_lossy(&request[..n]).into_owned()
        });
        assert_eq!(http_status(port, "/readyz").unwrap(), 503);
        assert!(answer.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\n"));
    }

    #[test]
    fn only_the_end_of_a_log_is_shown() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "    b\n    c");
        assert_eq!(last_lines("", 2), "    (it is empty)");
    }

    #[test]
    fn free_ports_differ() {
        let ports = Ports::free().unwrap();
        assert_ne!(ports.grpc, ports.http);
    }
}

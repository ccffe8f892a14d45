//! `limbot` and `dish` as people and scripts meet them: the program beside a host that is made up, also under a terminal.

mod dish;
mod host;
mod limbot;

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};

use expectrl::{Eof, Expect, Session, session::OsSession};

use crate::host::Host;

/// Long for what is there, and short beside the limit of a test.
const PATIENCE: Duration = Duration::from_secs(20);
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const UP: &str = "\x1b[A";

/// A host, and a folder for what the program keeps.
struct Place {
    host: Host,
    folder: tempfile::TempDir,
}

/// The program under a terminal.
struct Terminal(OsSession);

impl Place {
    fn new() -> Self {
        Self { host: Host::start(), folder: tempfile::tempdir().expect("there is room") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program in the folder, without what the environment of the tests says.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llamboctl"));
        command.args(["--host", &self.host.address]).args(words).env_clear().current_dir(self.folder.path());
        command.env("XDG_STATE_HOME", self.path("state")).env("TERM", "xterm");
        command
    }

    /// What becomes of it with this on standard input.
    fn run(&self, words: &[&str], input: &str) -> Output {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        // it may end before it has read everything
        let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
        child.wait_with_output().expect("it ends")
    }

    fn terminal(&self, words: &[&str]) -> Terminal {
        Self::terminal_of(self.command(words))
    }

    fn terminal_of(command: Command) -> Terminal {
        let mut session = Session::spawn(command).expect("there are terminals left");
        session.set_expect_timeout(Some(PATIENCE));
        session.get_process_mut().set_window_size(120, 40).expect("it has a size");
        Terminal(session)
    }
}

impl Terminal {
    #[track_caller]
    fn shows(&mut self, text: &str) {
        if let Err(e) = self.0.expect(text) {
            let mut seen = vec![0; 16 * 1024];
            let n = self.0.try_read(&mut seen).unwrap_or(0);
            panic!("`{text}` is not shown ({e}), but {:?}", String::from_utf8_lossy(&seen[..n]));
        }
    }

    #[track_caller]
    fn types(&mut self, keys: &str) {
        self.0.send(keys).expect("it takes keys");
    }

    /// A line, and Enter.
    #[track_caller]
    fn enters(&mut self, line: &str) {
        self.types(&format!("{line}\r"));
    }

    /// Its exit code, once it has ended.
    #[track_caller]
    fn ends(mut self) -> i32 {
        self.0.expect(Eof).expect("it ends");
        match self.0.get_process().wait().expect("it ended") {
            expectrl::process::unix::WaitStatus::Exited(_, code) => code,
            other => panic!("it ended otherwise: {other:?}"),
        }
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it prints UTF-8")
}

//! Long steps: one line when a step begins, one when it ends with the time it took, and a sign of life between them
//! where no terminal shows the program's own progress.

use std::io::{self, IsTerminal, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::Failure;

/// Continuous integration systems end a job that is silent for minutes; a line each half minute is few enough to read.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// A step under way. It says that it is done only through [`Step::done`].
#[derive(Debug)]
pub(crate) struct Step {
    started: Instant,
}

impl Step {
    pub(crate) fn begin(what: &str) -> Self {
        say(&format!("==> {what}"));
        Self { started: Instant::now() }
    }

    pub(crate) fn done(self, note: &str) {
        let comma = if note.is_empty() { "" } else { ": " };
        say(&format!("    done in {}{comma}{note}", elapsed(self.started.elapsed())));
    }
}

/// Runs `command` as a step, its output going where ours goes.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<(), Failure> {
    let step = Step::begin(what);
    let status = run_with_signs_of_life(&step, command).map_err(|error| Failure::because(line(command), error))?;
    if status.success() {
        step.done("");
        return Ok(());
    }
    Err(Failure::Failed(format!("`{}` ended with {status} after {}", line(command), elapsed(step.started.elapsed()))))
}

fn run_with_signs_of_life(step: &Step, command: &mut Command) -> io::Result<ExitStatus> {
    let mut child = command.stdin(Stdio::null()).spawn()?;
    if io::stderr().is_terminal() {
        return child.wait();
    }
    // one message: the end
    let (sender, receiver) = sync_channel(1);
    let waiter = thread::spawn(move || {
        let status = child.wait();
        // the receiver is gone only when the whole of xtask is
        let _ = sender.send(());
        status
    });
    while let Err(RecvTimeoutError::Timeout) = receiver.recv_timeout(SIGN_OF_LIFE) {
        say(&format!("    still at it after {}", elapsed(step.started.elapsed())));
    }
    waiter.join().unwrap_or_else(|_| Err(io::Error::other("the thread that waited for it panicked")))
}

/// What `command` writes to standard output, if it can be run and succeeds.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// `command` as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for word in command.get_args() {
        line.push(' ');
        line.push_str(&word.to_string_lossy());
    }
    line
}

/// One line on standard error, so that standard output stays for results.
pub(crate) fn say(text: &str) {
    // nowhere to complain when standard error is closed
    let _ = writeln!(io::stderr(), "{text}");
}

/// A duration for people: `3.2 s`, `48 s`, `12 min 05 s`.
pub(crate) fn elapsed(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        _ => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well_at_every_size() {
        let texts: Vec<String> = [0.04, 9.94, 59.9, 65.0, 754.0].map(|s| elapsed(Duration::from_secs_f64(s))).into();
        assert_eq!(texts, ["0.0 s", "9.9 s", "59 s", "1 min 05 s", "12 min 34 s"]);
    }

    #[test]
    fn a_step_that_fails_names_the_command_and_its_status() {
        let Err(Failure::Failed(message)) = run("fail", Command::new("sh").args(["-c", "exit 3"])) else {
            panic!("it must fail");
        };
        assert!(message.contains("`sh -c exit 3` ended with exit status: 3"), "{message}");
        assert!(run("start nothing", &mut Command::new("no-such-program-here")).is_err());
    }
}

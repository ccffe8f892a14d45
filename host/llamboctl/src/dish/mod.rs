//! `llamboctl dish`: a shell whose commands are llamboctl's own, over one connection, at the terminal or from a script.
//!
//! A line is read as sh reads words and comments, and has no variables, pipes or globs. What a command prints and how it fails is as without the shell.

mod completion;
mod help;
mod live;
mod script;
mod words;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use tokio::{sync::mpsc, time};

use self::{
    completion::Completion,
    live::Live,
    script::{Reader, Statement, Unclosed},
    words::{Asked, Given, Switch, Watch},
};
use crate::{
    args::chat::Dish,
    commands::{self, Door, interruptible, read},
    exit::{self, Failure, OK},
    output,
    terminal::{self, Editor, Log, Typed, aside},
};

const PROMPT: &str = "dish> ";
/// Moves to the top left and clears what is below, as `status --watch` does.
const CLEAR: &str = "\x1b[H\x1b[J";
/// Lines of a script that were read and wait for the commands before them.
const READ_AHEAD: usize = 16;

/// The shell.
struct Shell {
    door: Door,
    json: bool,
    stops_at_failure: bool,
    shows_commands: bool,
    /// The code of the last command.
    last: u8,
}

/// Where a statement comes from.
#[derive(Clone, Copy)]
enum Source<'a> {
    Terminal,
    /// A script's name, and the line.
    Script(&'a str, usize),
}

/// Whether the shell goes on after a statement, or with what it exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    On,
    Exit(u8),
}

pub(crate) async fn dish(door: Door, args: Dish, json: bool) -> Result<u8, Failure> {
    let shell = Shell { door, json, stops_at_failure: false, shows_commands: false, last: OK };
    match &args.script {
        Some(path) => shell.run_file(path).await,
        None if terminal::is_interactive() => shell.interact(args.no_history).await,
        None => shell.run_standard_input().await,
    }
}

impl Shell {
    /// Reads statements from the terminal.
    async fn interact(mut self, no_history: bool) -> Result<u8, Failure> {
        let log = if no_history { None } else { Log::of_user("dish-lines.jsonl").ok() };
        let mut editor = Editor::new(Completion::new(Live::new(self.door.client()?)), log)?;
        writeln!(io::stdout(), "{}", aside(&format!("the cluster at {}; `help` lists what can be typed", self.door.host())))?;
        loop {
            let text = match editor.read(PROMPT).await? {
                Typed::Line(text) => text,
                Typed::Interrupted => continue,
                Typed::End => return Ok(OK),
            };
            let mut reader = Reader::default();
            let mut statements: Vec<_> = text.lines().filter_map(|line| reader.push(line)).collect();
            statements.extend(reader.end().ok().flatten());
            if !statements.iter().any(is_secret) {
                editor.keep(&text);
            }
            // a text that was pasted may have several
            for statement in statements {
                if let Goes::Exit(code) = self.statement(statement, Source::Terminal).await? {
                    return Ok(code);
                }
            }
        }
    }

    async fn run_file(mut self, path: &Path) -> Result<u8, Failure> {
        let (name, text) = (path.display().to_string(), read(path)?);
        let mut reader = Reader::default();
        for line in text.lines() {
            if let Some(code) = self.script_line(reader.push(line), &name).await? {
                return Ok(code);
            }
        }
        self.script_end(reader, &name).await
    }

    /// Runs lines as they come, so that a program may write them one by one.
    async fn run_standard_input(mut self) -> Result<u8, Failure> {
        let (send, mut lines) = mpsc::channel(READ_AHEAD);
        // a thread that nobody joins: input that stays open must not hold up the end of the program
        tokio::task::spawn_blocking(move || {
            for line in io::stdin().lines() {
                if send.blocking_send(line).is_err() {
                    break;
                }
            }
        });
        let (name, mut reader) = ("stdin", Reader::default());
        loop {
            let mut line = None;
            interruptible(async {
                line = lines.recv().await;
                Ok(OK)
            })
            .await?;
            let line = match line {
                None => break,
                Some(Ok(line)) => line,
                Some(Err(e)) => return Err(Failure::bad_input(format!("standard input cannot be read: {e}"))),
            };
            if let Some(code) = self.script_line(reader.push(&line), name).await? {
                return Ok(code);
            }
        }
        self.script_end(reader, name).await
    }

    async fn script_line(&mut self, statement: Option<Statement>, name: &str) -> Result<Option<u8>, Failure> {
        let Some(statement) = statement else { return Ok(None) };
        let line = statement.line;
        match self.statement(statement, Source::Script(name, line)).await? {
            Goes::On => Ok(None),
            Goes::Exit(code) => Ok(Some(code)),
        }
    }

    async fn script_end(mut self, reader: Reader, name: &str) -> Result<u8, Failure> {
        match reader.end() {
            Ok(statement) => Ok(self.script_line(statement, name).await?.unwrap_or(self.last)),
            Err(Unclosed { line }) => {
                Err(Failure::bad_input("a quote is opened here and not closed").at(&format!("{name}:{line}")))
            }
        }
    }

    /// Does what a statement asks, and tells what went wrong.
    async fn statement(&mut self, Statement { words, .. }: Statement, source: Source<'_>) -> Result<Goes, Failure> {
        if self.shows_commands {
            // beside what the command prints, as sh does
            let _ = writeln!(io::stderr(), "+ {}", output::for_terminal(&shell_words::join(&words)));
        }
        let name = words.first().cloned().unwrap_or_default();
        let done = match words::asked(words) {
            Ok(Asked::Exit(code)) => {
                // who leaves a terminal has seen what failed; a script is judged by its last command
                let last = if matches!(source, Source::Terminal) { OK } else { self.last };
                return Ok(Goes::Exit(code.unwrap_or(last)));
            }
            Ok(asked) => self.done(asked).await,
            Err(why) => Err(Failure::wrong_usage(why)),
        };
        let is_failed = !matches!(done, Ok(OK));
        self.last = match done {
            Ok(code) => {
                if let (true, true, Source::Script(script, line)) = (code != OK, self.stops_at_failure, source) {
                    let why = format!("{script}:{line}: `{name}` exited with {code}");
                    let _ = writeln!(io::stderr(), "{}", output::for_terminal(&why));
                }
                code
            }
            // nobody reads any more
            Err(failure) if failure.code() == OK => return Ok(Goes::Exit(OK)),
            Err(failure) => {
                let code = failure.code();
                let failure = match source {
                    Source::Terminal => failure,
                    Source::Script(script, line) => failure.at(&format!("{script}:{line}")),
                };
                let _: ExitCode = exit::report(&failure, self.json);
                if code == exit::INTERRUPTED && matches!(source, Source::Script(..)) {
                    return Ok(Goes::Exit(code));
                }
                code
            }
        };
        let stops = is_failed && self.stops_at_failure && matches!(source, Source::Script(..));
        Ok(if stops { Goes::Exit(self.last) } else { Goes::On })
    }

    async fn done(&mut self, asked: Asked) -> Result<u8, Failure> {
        match asked {
            Asked::Command(words) => self.command(&words).await,
            Asked::Help(words) => help::help(&words),
            Asked::Watch(watch) => self.watch(watch).await,
            Asked::Echo(text) => {
                writeln!(io::stdout(), "{text}")?;
                Ok(OK)
            }
            Asked::Set(switches) => {
                for switch in switches {
                    match switch {
                        Switch::StopAtFailure(is_on) => self.stops_at_failure = is_on,
                        Switch::ShowCommands(is_on) => self.shows_commands = is_on,
                    }
                }
                Ok(OK)
            }
            Asked::Exit(_) => Ok(self.last),
        }
    }

    /// Runs a command of llamboctl. Ctrl-C ends it, and not the shell.
    async fn command(&self, words: &[String]) -> Result<u8, Failure> {
        let (args, given) = match words::command(words) {
            Ok(read) => read,
            Err(e) => return help::of_clap(&e),
        };
        if words::reads_standard_input(&args.command) {
            let why = "`-` is standard input, which is the shell's own; run this command by `llamboctl` itself";
            return Err(Failure::wrong_usage(why));
        }
        let json = self.json || args.json;
        let own = match given {
            Given::Nothing => None,
            // what the shell shows to its host is not shown to another one
            Given::Connection => Some(Door::new(args.host, args.trust)),
        };
        let door = own.as_ref().unwrap_or(&self.door);
        let minds = words::minds_interrupts(&args.command);
        // boxed: each command's future is as large as the largest
        let running = Box::pin(commands::run_at(door, args.command, json));
        if minds { running.await } else { interruptible(running).await }
    }

    /// Runs a command again and again.
    async fn watch(&self, watch: Watch) -> Result<u8, Failure> {
        let Watch { interval, times, command } = watch;
        let redraws = !self.json && terminal::is_interactive();
        let mut ticks = time::interval(interval);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut last = OK;
        let mut n = 0;
        while times.is_none_or(|times| n < times) {
            n += 1;
            let waited = interruptible(async {
                ticks.tick().await;
                Ok(OK)
            });
            match waited.await {
                Ok(_) => {}
                // this is how it ends
                Err(failure) if failure.code() == exit::INTERRUPTED && times.is_none() => return Ok(OK),
                Err(failure) => return Err(failure),
            }
            if redraws {
                let title = format!("every {}: {}", output::nanos(interval.as_nanos() as f64), shell_words::join(&command));
                writeln!(io::stdout(), "{CLEAR}{}", aside(&output::for_terminal(&title)))?;
            }
            let done = match command.first().map(String::as_str) {
                Some("help") => help::help(&command[1..]),
                Some("echo") => {
                    writeln!(io::stdout(), "{}", command[1..].join(" "))?;
                    Ok(OK)
                }
                _ => self.command(&command).await,
            };
            last = match done {
                Ok(code) => code,
                Err(failure) if failure.code() == exit::INTERRUPTED && times.is_none() => return Ok(OK),
                // it would be wrong each time, or nobody reads any more
                Err(failure) if matches!(failure.code(), OK | exit::USAGE | exit::INTERRUPTED) => return Err(failure),
                // a host that is away may come back
                Err(failure) => {
                    let code = failure.code();
                    let _: ExitCode = exit::report(&failure, self.json);
                    code
                }
            };
        }
        Ok(last)
    }
}

/// Whether a statement holds what must not lie on a disk.
fn is_secret(statement: &Statement) -> bool {
    statement.words.iter().any(|word| word == "--token" || word.starts_with("--token="))
}

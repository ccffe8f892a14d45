//! `llamboctl`: asks, watches and operates a llambo host from a terminal or a script.
//!
//! Answers go to standard output, everything else to standard error. With `--json` both carry JSON whose form is stable:
//! see `JSON.md`. Exit codes are in `exit.rs`. Nothing native is linked; it starts in a few milliseconds.

mod args;
mod bench;
mod commands;
mod dish;
mod exit;
mod limbot;
mod output;
mod route;
mod suited;
mod terminal;
mod top;
mod trace;

use std::process::ExitCode;

use clap::FromArgMatches;

use crate::{args::Args, exit::Failure};

fn main() -> ExitCode {
    let args = match parse() {
        Ok(args) => args,
        Err(e) if !e.use_stderr() => {
            // help or version was asked for; a reader that went away has what it wanted
            let _ = e.print();
            return ExitCode::SUCCESS;
        }
        Err(e) if std::env::args_os().any(|arg| arg == "--json") => return exit::report(&Failure::usage(&e), true),
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(exit::USAGE);
        }
    };
    let json = args.json;
    output::set_color(args.color);
    // one thread: the terminal is the bottleneck, and it starts faster
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return exit::report(&Failure::io("start", &e), json),
    };
    let done = runtime.block_on(commands::run(args));
    // a thread that still reads standard input holds nothing up
    runtime.shutdown_background();
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => exit::report(&failure, json),
    }
}

fn parse() -> Result<Args, clap::Error> {
    let mut command = args::command();
    let mut found = command.try_get_matches_from_mut(std::env::args_os())?;
    Args::from_arg_matches_mut(&mut found).map_err(|e| e.format(&mut command))
}

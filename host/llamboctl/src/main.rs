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
mod terminal;
mod trace;

use std::process::ExitCode;

use clap::Parser;

use crate::{args::Args, exit::Failure};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
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

//! The project's own commands: `cargo xtask <command>`. See `cargo xtask help`.
//!
//! Everything that a person or a machine needs to build, try, test and measure llambo is a command here, so that it is
//! written once, works the same everywhere and can be read. Nothing here is part of the programs.
#![expect(clippy::print_stdout, reason = "a command-line program speaks on standard output")]

mod arguments;
mod autoscaling;
mod bench;
mod build;
mod complexity;
mod demo;
mod environment;
mod fuzz;
mod guests;
mod host;
mod libclang;
mod metrics;
mod package;
mod packages;
mod page;
mod picture;
mod scale;
mod setup;
mod step;
mod test;
mod train;

use std::process::ExitCode;

use crate::arguments::Failure;

/// One command: what it is called, how, what for, and what does it.
struct Command {
    name: &'static str,
    synopsis: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Result<(), Failure>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "demo",
        synopsis: demo::SYNOPSIS,
        about: "build, start a host, ask it something, show the cluster",
        run: demo::run,
    },
    Command {
        name: "test",
        synopsis: test::SYNOPSIS,
        about: "everything a change must pass; extra words are filters for cargo-nextest",
        run: test::run,
    },
    Command {
        name: "build",
        synopsis: build::SYNOPSIS,
        about: "build the programs into target/release; extra words go to cargo",
        run: build::run,
    },
    Command {
        name: "package",
        synopsis: package::SYNOPSIS,
        about: "build programs that can be moved to other machines, with llama.cpp for each kind of processor",
        run: package::run,
    },
    Command {
        name: "scale",
        synopsis: scale::SYNOPSIS,
        about: "start a host with many isolates, send load, print and save a report",
        run: scale::run,
    },
    Command {
        name: "autoscaling",
        synopsis: autoscaling::SYNOPSIS,
        about: "draw what the built-in scaler does under several loads",
        run: autoscaling::run,
    },
    Command {
        name: "complexity",
        synopsis: complexity::SYNOPSIS,
        about: "measure the built-in classifier on labelled prompts, into host/COMPLEXITY.md",
        run: complexity::run,
    },
    Command {
        name: "bench",
        synopsis: bench::SYNOPSIS,
        about: "measure llambo beside llama.cpp's own programs",
        run: bench::run,
    },
    Command {
        name: "fuzz",
        synopsis: fuzz::SYNOPSIS,
        about: "feed what reads from guests, clients and disks with anything at all; needs a nightly compiler",
        run: fuzz::run,
    },
    Command {
        name: "setup",
        synopsis: "setup",
        about: "check for what the build needs and install what is missing",
        run: setup::command,
    },
    Command {
        name: "env",
        synopsis: "env",
        about: "print the build's environment: eval \"$(cargo xtask env)\"",
        run: environment::command,
    },
    Command {
        name: "guests",
        synopsis: "guests [--check|--javascript]",
        about: "rebuild the prebuilt guest modules and policies, or compare them",
        run: run_guests,
    },
    Command {
        name: "metrics",
        synopsis: metrics::SYNOPSIS,
        about: "write host/METRICS.md from what the program says of its metrics",
        run: metrics::run,
    },
    Command {
        name: "page",
        synopsis: page::SYNOPSIS,
        about: "make the web page again of its sources in host/edge/page",
        run: page::run,
    },
    Command {
        name: "train-builtin",
        synopsis: train::SYNOPSIS,
        about: "train the built-in models again (hours)",
        run: train::run,
    },
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (name, rest) = match words.split_first() {
        Some((name, rest)) => (name.as_str(), rest),
        None => ("help", &[][..]),
    };
    if matches!(name, "help" | "--help" | "-h") {
        println!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        eprintln!("error: there is no command `{name}`\n\n{}", help());
        return ExitCode::from(arguments::USAGE);
    };
    if rest.iter().take_while(|word| *word != "--").any(|word| word == "--help" || word == "-h") {
        println!("cargo xtask {}\n\n{}", command.synopsis, command.about);
        return ExitCode::SUCCESS;
    }
    match (command.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => {
            eprintln!("error: {message}\nusage: cargo xtask {}", command.synopsis);
            ExitCode::from(arguments::USAGE)
        }
        Err(Failure::Failed(message)) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run_guests(words: &[String]) -> Result<(), Failure> {
    guests::run(words).map_err(Failure::Failed)
}

fn help() -> String {
    let mut text = String::from("cargo xtask <command>\n");
    for command in COMMANDS {
        text.push_str("\n  ");
        text.push_str(command.synopsis);
        text.push_str("\n      ");
        text.push_str(command.about);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_command() {
        let text = help();
        for command in COMMANDS {
            assert!(command.synopsis.starts_with(command.name), "{}", command.synopsis);
            assert!(text.contains(command.synopsis), "{text}");
        }
    }
}

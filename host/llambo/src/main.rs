//! `llambo`: the host. Wires the rooms together in one order and takes them apart in the other; decides nothing itself.

mod check;
mod factory;
mod logging;
mod models;
mod plan;
mod publish;
mod serve;

use std::{
    fmt::Display,
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use llambo_config::Config;

/// Isolates are made on one thread and end on another, by the thousand: an allocator that takes no lock for that, and gives back what was freed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A host for thousands of sandboxed Wasm isolates beside one batched llama.cpp per model.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or Ctrl-C; then finish what is under way and end
    Serve(ServeArguments),
    /// Look whether a configuration is right and fits this machine; start nothing
    Check(CheckArguments),
}

#[derive(Args)]
struct ServeArguments {
    #[command(flatten)]
    file: ConfigArguments,
    /// Address for gRPC, instead of the configuration's; port 0 takes any free one
    #[arg(long, value_name = "ADDR", env = "LLAMBO_GRPC")]
    grpc: Option<SocketAddr>,
    /// Address for HTTP (/livez, /readyz, /metrics), instead of the configuration's
    #[arg(long, value_name = "ADDR", env = "LLAMBO_HTTP")]
    http: Option<SocketAddr>,
}

#[derive(Args)]
struct CheckArguments {
    #[command(flatten)]
    file: ConfigArguments,
}

#[derive(Args)]
struct ConfigArguments {
    /// The configuration; without it, the one inside the program: 1,000 small isolates on a built-in model
    #[arg(long, value_name = "FILE", env = "LLAMBO_CONFIG")]
    config: Option<PathBuf>,
}

/// Why the program ends without having done its work.
enum Failure {
    /// The configuration is wrong; every mistake in it is named.
    Config(String),
    /// The machine does not have what is needed.
    Machine(String),
    /// It was told a second time to end, and did not wait.
    Interrupted,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Serve(serve) => serve.config().and_then(serve::run),
        Command::Check(check) => check.file.load().and_then(|config| check::run(&config)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

// === impl Arguments ===

impl ServeArguments {
    fn config(self) -> Result<Config, Failure> {
        let mut config = self.file.load()?;
        for (given, address, flag) in
            [(self.grpc, &mut config.network.grpc, "--grpc"), (self.http, &mut config.network.http, "--http")]
        {
            let Some(given) = given else { continue };
            if !given.ip().is_loopback() && !config.network.insecure {
                return Err(Failure::Config(format!(
                    "{flag} {given} can be reached from other machines, and there is no authentication yet; use 127.0.0.1, \
                     or set `network.insecure: true`"
                )));
            }
            *address = given;
        }
        Ok(config)
    }
}

impl ConfigArguments {
    fn load(&self) -> Result<Config, Failure> {
        match &self.config {
            None => Ok(Config::shipped()),
            Some(path) => Config::load(path).map_err(|errors| Failure::Config(errors.to_string())),
        }
    }
}

// === impl Failure ===

impl Failure {
    fn machine(error: impl Display) -> Self {
        Self::Machine(error.to_string())
    }

    /// Exit codes are those of `sysexits.h`: 78 for the configuration, 69 for what is not to be had.
    fn tell(self) -> ExitCode {
        let (message, code) = match self {
            Self::Config(message) => (message, 78),
            Self::Machine(message) => (message, 69),
            Self::Interrupted => ("interrupted before its work was done".into(), 130),
        };
        // nothing is left to do when standard error is gone
        let _ = writeln!(io::stderr(), "llambo: {message}");
        ExitCode::from(code)
    }
}

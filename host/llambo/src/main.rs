//! `llambo`: the host. Wires the rooms together in one order and takes them apart in the other; decides nothing itself.

mod check;
mod descriptors;
mod desk;
mod ending;
mod factory;
mod hardware;
mod logging;
mod models;
mod plan;
mod policies;
mod publish;
mod security;
mod serve;
mod sessions;

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
    /// Print every metric of /metrics with its meaning, as a table in Markdown
    Metrics,
}

#[derive(Args)]
struct ServeArguments {
    #[command(flatten)]
    file: ConfigArguments,
    /// Address for gRPC, instead of the configuration's; port 0 takes any free one
    #[arg(long, value_name = "ADDR", env = "LLAMBO_SERVE_GRPC")]
    grpc: Option<SocketAddr>,
    /// Address for HTTP (/livez, /readyz, /metrics), instead of the configuration's
    #[arg(long, value_name = "ADDR", env = "LLAMBO_SERVE_HTTP")]
    http: Option<SocketAddr>,
    /// Serve addresses that other machines reach although nobody has to show a token, or without encryption
    #[arg(long, env = "LLAMBO_INSECURE")]
    insecure: bool,
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
        Command::Metrics => print(&logging::table()),
        Command::Check(check) => check.file.load(false).and_then(|config| check::run(&config)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(Failure::machine)
}

// === impl Arguments ===

impl ServeArguments {
    fn config(self) -> Result<Config, Failure> {
        let mut config = self.file.load(self.insecure)?;
        config.network.insecure |= self.insecure;
        config.network.grpc = self.grpc.unwrap_or(config.network.grpc);
        config.network.http = self.http.unwrap_or(config.network.http);
        for (given, flag) in [(self.grpc, "--grpc"), (self.http, "--http")] {
            if let Some((given, exposure)) = given.and_then(|given| Some((given, config.network.exposure(given)?))) {
                return Err(Failure::Config(format!("{flag} is {given}, but {exposure}; {}", exposure.advice())));
            }
        }
        Ok(config)
    }
}

impl ConfigArguments {
    fn load(&self, insecure: bool) -> Result<Config, Failure> {
        let Some(path) = &self.config else { return Ok(Config::shipped()) };
        let loaded = if insecure { Config::load_insecure(path) } else { Config::load(path) };
        loaded.map_err(|errors| Failure::Config(errors.to_string()))
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

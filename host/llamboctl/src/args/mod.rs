//! The command line.

pub(crate) mod bench;
pub(crate) mod chat;
mod environment;
pub(crate) mod event;
pub(crate) mod fault;
pub(crate) mod infer;
pub(crate) mod machine;
pub(crate) mod models;
pub(crate) mod module;
pub(crate) mod policy;
pub(crate) mod session;
pub(crate) mod task;
pub(crate) mod trust;
pub(crate) mod values;
pub(crate) mod worker;

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args as Group, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use self::{
    bench::Bench,
    chat::{Dish, Limbot},
    event::Events,
    fault::Fault,
    infer::{Embed, Infer},
    machine::{GenerateConfig, Init},
    models::Models,
    module::Module,
    policy::Policy,
    session::Session,
    task::TaskCommand,
    trust::{Token, Trust},
    values::{address, duration, interval},
    worker::Worker,
};

const AFTER: &str = "\
Every flag has an environment variable: `LLAMBO_`, the command and the flag, as in LLAMBO_BENCH_LOAD_RATE, or what `--help` of the command names. The command line comes first.

Exit codes: 0 done, 1 refused or failed by the host, 2 not serving or requests of a load failed, 64 wrong command line,
65 wrong input or configuration, 69 no host there, 73 file exists, 74 reading or writing failed, 130 interrupted.";

/// Ask, watch and operate a llambo host
#[derive(Debug, Parser)]
#[command(name = "llamboctl", version, after_help = AFTER)]
pub(crate) struct Args {
    /// Address of the host's gRPC port
    #[arg(long, global = true, env = "LLAMBO_HOST", default_value = "http://127.0.0.1:7400", value_name = "URL", value_parser = address)]
    pub(crate) host: String,
    /// Print JSON, also for errors
    #[arg(long, global = true, env = "LLAMBO_JSON")]
    pub(crate) json: bool,
    /// Colours: `auto` has them on terminals, unless `NO_COLOR` is set
    #[arg(long, global = true, env = "LLAMBO_COLOR", value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub(crate) color: Color,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// When there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

/// The command line with a variable for every flag.
pub(crate) fn command() -> clap::Command {
    environment::complete(Args::command())
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask a model; the answer is printed as it is generated
    Infer(Infer),
    /// Talk with a model at the terminal, or ask it one question
    Limbot(Limbot),
    /// A shell for the cluster: these commands without `llamboctl` in front, at the terminal or from a script
    Dish(Dish),
    /// Print the embedding of each text
    Embed(Embed),
    /// Models of this machine, and of the host
    #[command(subcommand)]
    Models(Models),
    /// Nodes of the host
    #[command(subcommand)]
    Nodes(Nodes),
    /// The cluster at a glance
    Status(Status),
    /// Watch isolates, load and throughput on the whole screen
    Top {
        /// How often it is drawn anew: 100ms to 60s
        #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
        interval: Duration,
    },
    /// Hosts, with what their machines have
    Hosts {
        /// This machine, without asking a host
        #[arg(long)]
        here: bool,
    },
    /// Isolates as workers: add, list and stop them
    #[command(subcommand)]
    Worker(Worker),
    /// The cluster as one
    #[command(subcommand)]
    Cluster(Cluster),
    /// Requests that are accepted now and answered later
    Task(TaskCommand),
    /// What happened in the cluster, and why: nodes, scaling, breakers, policies, modules
    Events(Events),
    /// Add nodes of a type
    Spawn(Count),
    /// Bring a type to a number of nodes; those that go finish their requests first
    Scale(Count),
    /// Take nodes, a type or the whole host out of service once idle
    Drain(Drain),
    /// Put idle isolates aside on disk; their next request wakes them
    Hibernate(Hibernate),
    /// Wake isolates before a request does, or take in those that another host left
    Wake(Wake),
    /// Show or switch how requests are spread over nodes
    Balancer(Balancer),
    /// Publish guest modules as model names
    #[command(subcommand)]
    Module(Module),
    /// Load and change the modules that decide in the host's place
    #[command(subcommand)]
    Policy(Policy),
    /// Make trouble on purpose, to see what becomes of a service
    #[command(subcommand)]
    Fault(Fault),
    /// Conversations that the host keeps
    #[command(subcommand)]
    Session(Session),
    /// Whether the host takes requests
    Health(Health),
    /// Metrics of the host
    Metrics(Metrics),
    /// Check a configuration file
    #[command(subcommand)]
    Config(Config),
    /// Write a configuration that suits this machine
    Init(Init),
    /// Print a configuration that suits this machine and these wishes
    GenerateConfig(GenerateConfig),
    /// Tokens for those who may use a host
    #[command(subcommand)]
    Token(Token),
    /// Measure the host
    #[command(subcommand)]
    Bench(Bench),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write one for each command
    Man {
        /// A folder for the pages of all commands
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// The cluster at a glance
    Status(Status),
    /// Hosts, with what their machines have
    Hosts,
    /// Write a configuration that suits this machine
    Init(Init),
    /// Try everything that a client needs: the ports, the nodes, an answer of each model
    Test {
        #[command(flatten)]
        port: HttpPort,
        /// Give up on a step after this long
        #[arg(long, env = "LLAMBO_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = duration)]
        timeout: Duration,
    },
}

/// Where the host speaks HTTP.
#[derive(Clone, Debug, Group)]
pub(crate) struct HttpPort {
    /// Address of the host's HTTP port; without it, port 7480 of `--host`, if that is at 7400
    #[arg(long, global = true, env = "LLAMBO_HTTP", value_name = "URL", value_parser = address)]
    pub(crate) http: Option<String>,
}

/// Who is asked.
#[derive(Clone, Debug, Default, Group)]
pub(crate) struct Target {
    /// Model that answers; without it, the host's first
    #[arg(long, env = "LLAMBO_MODEL", value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Node type that serves it; without it, any that has the model
    #[arg(long = "type", env = "LLAMBO_TYPE", value_name = "TYPE")]
    pub(crate) node_type: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Nodes {
    /// List nodes, in order of id
    List(NodeList),
}

/// Which nodes.
#[derive(Debug, Group)]
pub(crate) struct NodeList {
    /// Only nodes of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) node_type: Option<String>,
    /// Only nodes in this state
    #[arg(long, value_parser = ["starting", "ready", "busy", "hibernated", "draining", "stopped", "failed"])]
    pub(crate) state: Option<String>,
    /// At most so many; without it, all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
}

#[derive(Debug, Group)]
pub(crate) struct Status {
    /// Show it again and again until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
    /// How often, with `--watch`: 100ms to 60s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub(crate) interval: Duration,
}

#[derive(Debug, Group)]
pub(crate) struct Count {
    /// Node type
    #[arg(long = "type", env = "LLAMBO_TYPE", value_name = "TYPE")]
    pub(crate) node_type: String,
    /// How many
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) count: u32,
}

#[derive(Debug, Group)]
#[command(group = ArgGroup::new("what").args(["nodes", "node_type", "all"]).required(true))]
pub(crate) struct Drain {
    /// Ids of nodes
    #[arg(value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    /// All nodes of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) node_type: Option<String>,
    /// The whole host, which exits when its last request is done
    #[arg(long)]
    pub(crate) all: bool,
    /// Wait until they are gone, or the host is; without a time, as long as that takes
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "24h", require_equals = true, value_parser = duration)]
    pub(crate) wait: Option<Duration>,
}

#[derive(Debug, Group)]
#[command(group = ArgGroup::new("what").args(["nodes", "node_type"]).required(true))]
pub(crate) struct Hibernate {
    /// Ids of nodes
    #[arg(value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    /// All nodes of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) node_type: Option<String>,
}

#[derive(Debug, Group)]
#[command(group = ArgGroup::new("what").args(["nodes", "node_type", "adopt"]).required(true))]
pub(crate) struct Wake {
    /// Ids of nodes
    #[arg(value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    /// All nodes of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) node_type: Option<String>,
    /// Isolates that lie in the host's `hibernation.folder` and belong to no node; they stay hibernated
    #[arg(long)]
    pub(crate) adopt: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Balancer {
    /// Switch to this strategy
    #[arg(long, value_name = "NAME")]
    pub(crate) strategy: Option<String>,
    /// Show how the strategy does
    #[arg(long)]
    pub(crate) stats: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Health {
    /// Only this service, for example `llambo.v1.Inference`
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub(crate) service: String,
}

#[derive(Debug, Group)]
pub(crate) struct Metrics {
    #[command(flatten)]
    pub(crate) port: HttpPort,
    /// Print them unchanged in this format
    #[arg(long, value_name = "FORMAT", value_parser = ["prometheus"], conflicts_with = "json")]
    pub(crate) export: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Say whether a host could start with this file, and what is wrong where
    Validate {
        /// The file
        file: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn numbers_out_of_range_are_called_that() {
        for line in [
            "spawn --type t --count -1", "infer x --temperature=warm", "infer x --max-tokens -1", "nodes list --limit 0",
            "status --watch --interval 1ms", "bench load --concurrency 0", "infer x --tier 3", "infer x --answers 17",
            "infer x --label team", "events --since yesterday", "events --since #x",
        ] {
            let error = Args::try_parse_from(format!("llamboctl {line}").split(' ')).unwrap_err().to_string();
            assert!(error.contains("invalid value"), "{line}: {error}");
        }
        // the host says what a temperature may be
        assert!(Args::try_parse_from(["llamboctl", "infer", "x", "--temperature", "-1"]).is_ok());
    }

    #[test]
    fn drain_wants_exactly_one_target() {
        let parse = |line: &str| Args::try_parse_from(line.split(' '));
        assert!(parse("llamboctl drain").is_err());
        assert!(parse("llamboctl drain --all --type tiny").is_err());
        assert!(parse("llamboctl drain a b --type tiny").is_err());
        assert!(parse("llamboctl drain a b").is_ok());
    }
}

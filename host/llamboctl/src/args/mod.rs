//! The command line.

pub(crate) mod fault;
pub(crate) mod models;
pub(crate) mod policy;
pub(crate) mod session;
pub(crate) mod trust;
pub(crate) mod values;

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args as Group, Parser, Subcommand};
use clap_complete::Shell;

use self::{
    fault::Fault,
    models::Models,
    policy::Policy,
    session::Session,
    trust::{Token, Trust},
    values::{address, duration, interval, label, rate},
};

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 refused or failed by the host, 2 not serving or requests of a load failed, 64 wrong command line,
65 wrong input or configuration, 69 no host there, 73 file exists, 74 reading or writing failed, 130 interrupted.";

/// Ask, watch and operate a llambo host
#[derive(Debug, Parser)]
#[command(name = "llamboctl", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Address of the host's gRPC port
    #[arg(long, global = true, env = "LLAMBO_HOST", default_value = "http://127.0.0.1:7400", value_name = "URL", value_parser = address)]
    pub(crate) host: String,
    /// Print JSON, also for errors
    #[arg(long, global = true, env = "LLAMBO_JSON")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask a model; the answer is printed as it is generated
    Infer(Infer),
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
    /// Write a configuration file to start from
    Init(Init),
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
}

#[derive(Debug, Group)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(group = ArgGroup::new("form").args(["json_schema", "grammar"]))]
pub(crate) struct Infer {
    /// What to ask; `-` reads it from standard input
    pub(crate) prompt: String,
    /// Put the prompt into the model's chat template, as a user's message (the default)
    #[arg(long, conflicts_with = "raw")]
    pub(crate) chat: bool,
    /// Continue the prompt as it stands
    #[arg(long, conflicts_with = "system")]
    pub(crate) raw: bool,
    /// Instructions that stand above the prompt
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Tokens generated at most; without it, to the end of the context
    #[arg(long, env = "LLAMBO_MAX_TOKENS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    pub(crate) max_tokens: Option<u32>,
    /// 0 takes the likeliest token always
    #[arg(long, env = "LLAMBO_TEMPERATURE", value_name = "T", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f32>,
    /// Only tokens whose probabilities add up to this
    #[arg(long, env = "LLAMBO_TOP_P", value_name = "P", allow_negative_numbers = true)]
    pub(crate) top_p: Option<f32>,
    /// Only the N likeliest tokens; 0 keeps all
    #[arg(long, env = "LLAMBO_TOP_K", value_name = "N", allow_negative_numbers = true)]
    pub(crate) top_k: Option<u32>,
    /// Same seed, same answer
    #[arg(long, env = "LLAMBO_SEED", value_name = "N", allow_negative_numbers = true)]
    pub(crate) seed: Option<u64>,
    /// The answer ends before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Give up after this long, for example `30s`, `500ms` or `2m`
    #[arg(long, env = "LLAMBO_TIMEOUT", value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// The answer is JSON valid under the schema in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json_schema: Option<PathBuf>,
    /// The answer conforms to the GBNF grammar in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) grammar: Option<PathBuf>,
    /// Also tell how the node was chosen: after the answer on standard error, or in the JSON
    #[arg(long)]
    pub(crate) explain: bool,
    /// A note for policies; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// Tier that should serve it, 0 to 2; nodes of other tiers do only when it has none free
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=2), allow_negative_numbers = true)]
    pub(crate) tier: Option<u32>,
    /// Ask so many nodes, at most 16, and make one answer of theirs
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=16), allow_negative_numbers = true)]
    pub(crate) answers: Option<u32>,
    /// Let it wait for all that somebody waits for
    #[arg(long)]
    pub(crate) batch: bool,
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

#[derive(Debug, Group)]
pub(crate) struct Embed {
    /// The texts; a single `-` reads one per line from standard input
    #[arg(required = true)]
    pub(crate) texts: Vec<String>,
    /// Model that embeds; without it, the host's first
    #[arg(long, env = "LLAMBO_MODEL", value_name = "NAME")]
    pub(crate) model: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Nodes {
    /// List nodes, in order of id
    List {
        /// Only nodes of this type
        #[arg(long = "type", value_name = "TYPE")]
        node_type: Option<String>,
        /// Only nodes in this state
        #[arg(long, value_parser = ["starting", "ready", "busy", "hibernated", "draining", "stopped", "failed"])]
        state: Option<String>,
        /// At most so many; without it, all
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Module {
    /// Check a module, try it, and put it into service in the place of the version before
    Load(Load),
    /// List published modules with the versions that can be put back
    List,
    /// Take a module out of service with all its versions
    Unload {
        /// The name it is published by
        name: String,
    },
    /// Put an earlier version back into service
    Rollback {
        /// The name it is published by
        name: String,
        /// This version; without it, the one before the present one
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        to: Option<u32>,
    },
}

#[derive(Debug, Group)]
pub(crate) struct Load {
    /// The module: a component of the world `llambo:guest/engine`, or a command for `wasi_snapshot_preview1`
    pub(crate) file: PathBuf,
    /// What clients ask for, as a model
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// Node type whose limits, tenant and model it takes; without it, the first one that the host permits
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) node_type: Option<String>,
    /// Isolates of it; without it, as many as the version before has, or as the host is configured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: Option<u32>,
    /// What it is asked on trial
    #[arg(long, value_name = "TEXT", default_value = "Hello")]
    pub(crate) prompt: String,
    /// Publish it without a trial
    #[arg(long, conflicts_with = "prompt")]
    pub(crate) no_trial: bool,
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
    /// Address of the host's HTTP port
    #[arg(long, env = "LLAMBO_HTTP", default_value = "http://127.0.0.1:7480", value_name = "URL", value_parser = address)]
    pub(crate) http: String,
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

#[derive(Debug, Group)]
pub(crate) struct Init {
    /// The file to write
    #[arg(long, short, default_value = "cluster-config.yaml", value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Overwrite it if it exists
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Send many requests and report latencies, throughput and how they spread over nodes
    Load(BenchLoad),
}

#[derive(Clone, Debug, Group)]
pub(crate) struct BenchLoad {
    /// Requests in flight at any time
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) concurrency: u32,
    /// Requests in all
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) requests: u64,
    /// Start this many requests a second instead, whether or not earlier ones are done
    #[arg(long, value_name = "R", value_parser = rate, conflicts_with_all = ["concurrency", "requests"])]
    pub(crate) rate: Option<f64>,
    /// For how long, with `--rate`
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = duration, conflicts_with = "requests")]
    pub(crate) duration: Duration,
    /// Tokens generated at most by each request
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_tokens: u32,
    /// What each request asks, continued as it stands
    #[arg(long, default_value = "Once upon a time", value_name = "TEXT")]
    pub(crate) prompt: String,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Give up on a request after this long
    #[arg(long, env = "LLAMBO_TIMEOUT", value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// HTTP/2 connections the requests are spread over; without it, one for every 64 in flight, at most 16
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) connections: Option<u32>,
    /// Also write the report as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn numbers_out_of_range_are_called_that() {
        for line in [
            "spawn --type t --count -1", "infer x --temperature=warm", "infer x --max-tokens -1", "nodes list --limit 0",
            "status --watch --interval 1ms", "bench load --concurrency 0", "infer x --tier 3", "infer x --answers 17",
            "infer x --label team",
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

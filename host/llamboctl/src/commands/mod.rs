//! One module for each group of commands. Each gets the connection and writes its answer to standard output.

mod cluster;
mod faults;
mod hosts;
mod http;
mod https;
mod infer;
mod listings;
mod local;
mod metrics;
mod modules;
mod moving;
mod policies;
mod rehearsal;
mod replays;
mod sessions;
mod status;
mod tasks;
mod template;
mod tokens;
mod traces;
mod trust;
mod wasm;
mod workers;

use llambo_client::Client;

use self::http::Port;
use crate::{
    args::{Args, Cluster, Command, Models, Nodes, bench::Bench, trust::Token},
    bench,
    exit::Failure,
    top,
};

/// What a command that talks to a host needs.
pub(crate) struct Session {
    pub(crate) client: Client,
    /// Whether the answer is for a program.
    pub(crate) json: bool,
}

/// Runs one command; the number is the code to exit with.
pub(crate) async fn run(args: Args) -> Result<u8, Failure> {
    let Args { host, json, trust, command, .. } = args;
    let session = || {
        let credentials = trust::credentials(&trust)?;
        Ok::<_, Failure>(Session { client: Client::connect_lazily_with(&host, &credentials)?, json })
    };
    match command {
        Command::Infer(args) => infer::infer(&session()?, args).await,
        Command::Embed(args) => infer::embed(&session()?, args).await,
        Command::Models(Models::List) => listings::models(&session()?).await,
        Command::Nodes(Nodes::List(args)) => listings::nodes(&session()?, args).await,
        Command::Status(args) => status::status(&session()?, &args).await,
        Command::Top { interval } => top::run(&session()?, interval).await,
        Command::Hosts { here: true } => hosts::here(json),
        Command::Hosts { here: false } | Command::Cluster(Cluster::Hosts) => hosts::hosts(&session()?).await,
        Command::Worker(args) => workers::worker(&session()?, args).await,
        Command::Cluster(Cluster::Status(args)) => status::status(&session()?, &args).await,
        Command::Cluster(Cluster::Test { port, timeout }) => {
            rehearsal::test(&session()?, &Port::of(&port, &host, &trust), timeout).await
        }
        Command::Task(args) => tasks::task(&Port::of(&args.port, &host, &trust), args.task, json).await,
        Command::Spawn(args) => cluster::spawn(&session()?, &args).await,
        Command::Scale(args) => cluster::scale(&session()?, &args).await,
        Command::Drain(args) => cluster::drain(&session()?, args).await,
        Command::Hibernate(args) => moving::hibernate(&session()?, args).await,
        Command::Wake(args) => moving::wake(&session()?, args).await,
        Command::Balancer(args) => cluster::balancer(&session()?, &args).await,
        Command::Module(args) => modules::module(&session()?, args).await,
        Command::Policy(args) => policies::policy(&session()?, args).await,
        Command::Fault(args) => faults::fault(&session()?, args).await,
        Command::Session(args) => sessions::session(&session()?, args).await,
        Command::Health(args) => cluster::health(&session()?, &args).await,
        Command::Metrics(args) => metrics::metrics(&Port::of(&args.port, &host, &trust), args.export.is_some(), json).await,
        Command::Config(crate::args::Config::Validate { file }) => local::validate(&file, json),
        Command::Init(args) | Command::Cluster(Cluster::Init(args)) => local::init(&args, json),
        Command::GenerateConfig(args) => local::generate(&args, json),
        Command::Token(Token::New { tenant }) => tokens::new(&tenant, json),
        Command::Bench(Bench::Load(args)) => bench::load((&host, &trust::credentials(&trust)?), &args, json).await,
        Command::Completion { shell } => local::completion(shell),
        Command::Man { dir } => local::manual(dir.as_deref()),
    }
}

//! One module for each group of commands. Each gets the connection and writes its answer to standard output.

mod cluster;
mod faults;
mod https;
mod infer;
mod listings;
mod local;
mod metrics;
mod models;
mod modules;
mod moving;
mod policies;
mod replays;
mod sessions;
mod status;
mod template;
mod tokens;
mod traces;
mod trust;
mod wasm;

use llambo_client::Client;

use crate::{
    args::{Args, Command, Nodes, models::Models, trust::Token},
    bench,
    exit::Failure,
};

/// What a command that talks to a host needs.
pub(crate) struct Session {
    pub(crate) client: Client,
    /// Whether the answer is for a program.
    pub(crate) json: bool,
}

/// Runs one command; the number is the code to exit with.
pub(crate) async fn run(args: Args) -> Result<u8, Failure> {
    let Args { host, json, trust, command } = args;
    let session = || {
        let credentials = trust::credentials(&trust)?;
        Ok::<_, Failure>(Session { client: Client::connect_lazily_with(&host, &credentials)?, json })
    };
    match command {
        Command::Infer(args) => infer::infer(&session()?, args).await,
        Command::Embed(args) => infer::embed(&session()?, args).await,
        Command::Models(Models::List) => listings::models(&session()?).await,
        Command::Models(Models::Catalog(at)) => models::catalog(&at, json),
        Command::Models(Models::Register(args)) => models::register(&args, json).await,
        Command::Models(Models::Download(args)) => models::download(&args, json).await,
        Command::Models(Models::Unregister(args)) => models::unregister(&args, json),
        Command::Models(Models::Load(args)) => models::host::load(&session()?, args).await,
        Command::Models(Models::Unload { name, retire }) => models::host::unload(&session()?, &name, retire).await,
        Command::Models(Models::Pin { name }) => models::host::pin(&session()?, &name, true).await,
        Command::Models(Models::Unpin { name }) => models::host::pin(&session()?, &name, false).await,
        Command::Models(Models::Show(args)) => models::show::show(&args, json),
        Command::Nodes(Nodes::List { node_type, state, limit }) => {
            listings::nodes(&session()?, node_type.unwrap_or_default(), state.unwrap_or_default(), limit).await
        }
        Command::Status(args) => status::status(&session()?, &args).await,
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
        Command::Metrics(args) => metrics::metrics(&args, &trust, json).await,
        Command::Config(crate::args::Config::Validate { file }) => local::validate(&file, json),
        Command::Init(args) => local::init(&args, json),
        Command::Token(Token::New { tenant }) => tokens::new(&tenant, json),
        Command::Bench(crate::args::Bench::Load(args)) => bench::load((&host, &trust::credentials(&trust)?), &args, json).await,
        Command::Completion { shell } => local::completion(shell),
    }
}

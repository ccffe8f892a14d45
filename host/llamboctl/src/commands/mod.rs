//! One module for each group of commands. Each gets the connection and writes its answer to standard output.

mod cluster;
mod events;
mod faults;
mod hosts;
mod http;
mod https;
mod infer;
mod listings;
mod local;
mod metrics;
mod models;
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

use std::cell::OnceCell;

use llambo_client::Client;

use self::http::Port;
use crate::{
    args::{Args, Cluster, Command, Nodes, bench::Bench, models::Models, trust::Token, trust::Trust},
    bench, dish,
    exit::Failure,
    limbot, top,
};

pub(crate) use infer::{closing_line, interruptible, read, standard_input, whole};

/// What a command that talks to a host needs.
pub(crate) struct Session {
    pub(crate) client: Client,
    /// Whether the answer is for a program.
    pub(crate) json: bool,
}

/// The host that commands go to. All of them share one connection, which is made by the first that needs it.
pub(crate) struct Door {
    host: String,
    trust: Trust,
    client: OnceCell<Client>,
}

/// Runs one command; the number is the code to exit with.
pub(crate) async fn run(args: Args) -> Result<u8, Failure> {
    let Args { host, json, trust, command, .. } = args;
    let door = Door::new(host, trust);
    match command {
        Command::Dish(args) => dish::dish(door, args, json).await,
        command => run_at(&door, command, json).await,
    }
}

/// Runs one command that is not the shell.
pub(crate) async fn run_at(door: &Door, command: Command, json: bool) -> Result<u8, Failure> {
    let session = || Ok::<_, Failure>(Session { client: door.client()?, json });
    let Door { host, trust, .. } = door;
    match command {
        Command::Infer(args) => infer::infer(&session()?, args).await,
        Command::Limbot(args) => limbot::limbot(session()?, args).await,
        Command::Dish(_) => Err(Failure::bad_input("this is the cluster shell already; `exit` leaves it")),
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
        Command::Nodes(Nodes::List(args)) => listings::nodes(&session()?, args).await,
        Command::Status(args) | Command::Cluster(Cluster::Status(args)) => status::status(&session()?, &args).await,
        Command::Top { interval } => top::run(&session()?, interval).await,
        Command::Hosts { here: true } => hosts::here(json),
        Command::Hosts { here: false } | Command::Cluster(Cluster::Hosts) => hosts::hosts(&session()?).await,
        Command::Worker(args) => workers::worker(&session()?, args).await,
        Command::Cluster(Cluster::Test { port, timeout }) => {
            rehearsal::test(&session()?, &Port::of(&port, host, trust)?, timeout).await
        }
        Command::Task(args) => tasks::task(&Port::of(&args.port, host, trust)?, args.task, json).await,
        Command::Events(args) => events::events(&session()?, args).await,
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
        Command::Metrics(args) => metrics::metrics(&Port::of(&args.port, host, trust)?, args.export.is_some(), json).await,
        Command::Config(crate::args::Config::Validate { file }) => local::validate(&file, json),
        Command::Init(args) | Command::Cluster(Cluster::Init(args)) => local::init(&args, json),
        Command::GenerateConfig(args) => local::generate(&args, json),
        Command::Token(Token::New { tenant }) => tokens::new(&tenant, json),
        Command::Bench(Bench::Load(args)) => bench::load((host, &trust::credentials(trust)?), &args, json).await,
        Command::Completion { shell } => local::completion(shell),
        Command::Man { dir } => local::manual(dir.as_deref()),
    }
}

// === impl Door ===

impl Door {
    pub(crate) fn new(host: String, trust: Trust) -> Self {
        Self { host, trust, client: OnceCell::new() }
    }

    /// The connection; nothing is sent yet.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let client = Client::connect_lazily_with(&self.host, &trust::credentials(&self.trust)?)?;
        Ok(self.client.get_or_init(|| client).clone())
    }

    /// Its address, as given.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

//! One module for each group of commands. Each gets the connection and writes its answer to standard output.

mod cluster;
mod faults;
mod https;
mod infer;
mod listings;
mod local;
mod metrics;
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

use std::cell::OnceCell;

use llambo_client::Client;

use crate::{
    args::{Args, Command, Models, Nodes, trust::Token, trust::Trust},
    bench, dish,
    exit::Failure,
    limbot,
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
    let Args { host, json, trust, command } = args;
    let door = Door::new(host, trust);
    match command {
        Command::Dish(args) => dish::dish(door, args, json).await,
        command => run_at(&door, command, json).await,
    }
}

/// Runs one command that is not the shell.
pub(crate) async fn run_at(door: &Door, command: Command, json: bool) -> Result<u8, Failure> {
    let session = || Ok::<_, Failure>(Session { client: door.client()?, json });
    match command {
        Command::Infer(args) => infer::infer(&session()?, args).await,
        Command::Limbot(args) => limbot::limbot(session()?, args).await,
        Command::Dish(_) => Err(Failure::bad_input("this is the cluster shell already; `exit` leaves it")),
        Command::Embed(args) => infer::embed(&session()?, args).await,
        Command::Models(Models::List) => listings::models(&session()?).await,
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
        Command::Metrics(args) => metrics::metrics(&args, &door.trust, json).await,
        Command::Config(crate::args::Config::Validate { file }) => local::validate(&file, json),
        Command::Init(args) => local::init(&args, json),
        Command::Token(Token::New { tenant }) => tokens::new(&tenant, json),
        Command::Bench(crate::args::Bench::Load(args)) => {
            bench::load((&door.host, &trust::credentials(&door.trust)?), &args, json).await
        }
        Command::Completion { shell } => local::completion(shell),
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

//! Requests that are answered later.

use std::time::Duration;

use clap::{Args as Group, Subcommand};

use super::{
    HttpPort, Target,
    session::Options,
    values::{duration, label},
};

#[derive(Debug, Group)]
pub(crate) struct TaskCommand {
    #[command(flatten)]
    pub(crate) port: HttpPort,
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Submit a request and print the id of its task
    Submit(Submit),
    /// Print a task with its text so far
    Show {
        /// The task
        id: String,
    },
    /// Print a task as it runs, to its end
    Events {
        /// The task
        id: String,
        /// Go on behind this event
        #[arg(long, value_name = "EVENT")]
        after: Option<String>,
    },
    /// Call a task off; one that has ended stays as it is
    Cancel {
        /// The task
        id: String,
    },
    /// Forget a task that has ended
    Delete {
        /// The task
        id: String,
    },
    /// List tasks, the newest first
    List {
        /// Only tasks in this state
        #[arg(long, value_parser = ["queued", "running", "finished", "failed", "cancelled", "expired"])]
        state: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
}

#[derive(Debug, Group)]
pub(crate) struct Submit {
    /// What to ask; `-` reads it from standard input
    pub(crate) prompt: String,
    /// Continue the prompt as it stands
    #[arg(long, conflicts_with = "system")]
    pub(crate) raw: bool,
    /// Instructions that stand above the prompt
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) options: Options,
    /// An id of your own; submitted twice, it is the same task
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// The same key with the same request is the same task
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// A note for policies and for the list; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// Tier that should serve it, 0 to 2
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=2))]
    pub(crate) tier: Option<u32>,
    /// Do not let it wait for what somebody waits for
    #[arg(long)]
    pub(crate) interactive: bool,
    /// How long it may take, waiting included
    #[arg(long, env = "LLAMBO_TIMEOUT", value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Print it as it runs, to its end
    #[arg(long)]
    pub(crate) follow: bool,
}

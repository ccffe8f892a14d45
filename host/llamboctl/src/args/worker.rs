//! Isolates by the name that many know them by.

use std::time::Duration;

use clap::{Args as Group, Subcommand};

use super::{Count, NodeList, values::duration};

#[derive(Debug, Subcommand)]
pub(crate) enum Worker {
    /// Add workers of a type
    Spawn(Count),
    /// List workers, in order of id
    List(NodeList),
    /// Take workers out of service; each finishes what it has first
    Stop {
        /// Ids of workers
        #[arg(value_name = "WORKER", required = true)]
        workers: Vec<String>,
        #[command(flatten)]
        patience: Patience,
    },
    /// Take all workers out of service, and let the host go on
    StopAll {
        /// Only workers of this type
        #[arg(long = "type", value_name = "TYPE")]
        node_type: Option<String>,
        #[command(flatten)]
        patience: Patience,
    },
}

/// Whether to wait until they are gone.
#[derive(Clone, Copy, Debug, Group)]
pub(crate) struct Patience {
    /// Do not wait until they are gone
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Wait no longer than this; those that are still busy go later
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration, conflicts_with = "no_wait")]
    pub(crate) wait: Duration,
}

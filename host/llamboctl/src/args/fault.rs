//! `llamboctl fault`.

use clap::{Args as Group, Subcommand};

use super::values::{delay_ms, fault_share};

#[derive(Debug, Subcommand)]
pub(crate) enum Fault {
    /// Make nodes slow, break off, trap or fall silent
    Inject(Inject),
    /// List the faults that are active
    List,
    /// Take faults back; without numbers, all
    Clear {
        /// As `fault list` shows them
        #[arg(value_name = "NUMBER")]
        numbers: Vec<u64>,
    },
}

#[derive(Debug, Group)]
pub(crate) struct Inject {
    /// What happens to an answer
    #[arg(long, value_parser = ["slow", "drop", "trap", "stall"])]
    pub(crate) kind: String,
    /// Ids of nodes; without them, all
    #[arg(value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    /// Only nodes of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) node_type: Option<String>,
    /// Only this share of their requests, for example `10%`
    #[arg(long, value_name = "SHARE", value_parser = fault_share, default_value = "100%")]
    pub(crate) share: f64,
    /// Only once so many pieces of the answer were told
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) after: u32,
    /// So often in all; without it, until it is taken back
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) times: Option<u64>,
    /// How much later each piece comes, with `--kind slow`
    #[arg(long, value_name = "TIME", value_parser = delay_ms, required_if_eq("kind", "slow"))]
    pub(crate) delay: Option<u32>,
}

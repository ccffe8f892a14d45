//! `llamboctl module`.

use std::path::PathBuf;

use clap::{Args as Group, Subcommand};

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

//! What is shown to the host, and how the host is known.

use std::path::PathBuf;

use clap::{Args as Group, Subcommand};

#[derive(Clone, Debug, Default, Group)]
#[command(next_help_heading = "Security")]
pub(crate) struct Trust {
    /// Token to show to the host; others on this machine may see it among the arguments: rather use `LLAMBO_TOKEN` or `--token-file`
    #[arg(long, global = true, env = "LLAMBO_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// File with the token; comes before `--token`
    #[arg(long, global = true, env = "LLAMBO_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Roots to trust instead of the system's, in PEM form
    #[arg(long, global = true, env = "LLAMBO_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Certificate to show to the host, in PEM form
    #[arg(long, global = true, env = "LLAMBO_CERT", value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Its private key, in PEM form
    #[arg(long, global = true, env = "LLAMBO_KEY", value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token; it is shown once, and the host learns only its hash
    New {
        /// The tenant it is for; only for the lines to put into the configuration
        #[arg(long, default_value = "default", value_name = "NAME")]
        tenant: String,
    },
}

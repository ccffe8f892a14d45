//! Configurations that suit a machine.

use std::path::PathBuf;

use clap::Args as Group;

#[derive(Debug, Group)]
pub(crate) struct Init {
    /// The file to write
    #[arg(long, short, visible_alias = "config", default_value = "cluster-config.yaml", value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Overwrite it if it exists
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) wish: Wish,
    /// Write every key there is with its default, instead of what suits this machine
    #[arg(long, conflicts_with_all = ["model", "nodes"])]
    pub(crate) full: bool,
}

#[derive(Debug, Group)]
pub(crate) struct GenerateConfig {
    /// The file to write; without it, standard output
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Overwrite it if it exists
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) wish: Wish,
}

/// What is to be in it.
#[derive(Clone, Debug, Default, Group)]
pub(crate) struct Wish {
    /// The model: a GGUF file, or `builtin:demo`
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
    /// Isolates at the start; without it, as many as suit this machine, up to 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=200_000))]
    pub(crate) nodes: Option<u32>,
    /// Kind of isolates
    #[arg(long = "type", value_name = "TYPE", default_value = "tiny", value_parser = ["tiny", "medium", "large"])]
    pub(crate) node_type: String,
}

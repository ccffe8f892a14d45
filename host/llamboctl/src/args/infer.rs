//! `llamboctl infer` and `llamboctl embed`.

use std::path::PathBuf;

use clap::{ArgGroup, Args as Group};

use super::{
    Target,
    chat::Sampling,
    values::{label, tier},
};

#[derive(Debug, Group)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(group = ArgGroup::new("form").args(["json_schema", "grammar"]))]
pub(crate) struct Infer {
    /// What to ask; `-` reads it from standard input
    pub(crate) prompt: String,
    /// Put the prompt into the model's chat template, as a user's message (the default)
    #[arg(long, conflicts_with = "raw")]
    pub(crate) chat: bool,
    /// Continue the prompt as it stands
    #[arg(long, conflicts_with = "system")]
    pub(crate) raw: bool,
    /// Instructions that stand above the prompt
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// The answer is JSON valid under the schema in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json_schema: Option<PathBuf>,
    /// The answer conforms to the GBNF grammar in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) grammar: Option<PathBuf>,
    /// Also tell how the node was chosen: after the answer on standard error, or in the JSON
    #[arg(long)]
    pub(crate) explain: bool,
    /// A note for policies; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// Tier that should serve it, 0 to 2; nodes of other tiers do only when it has none free
    #[arg(long, value_name = "N", value_parser = tier, allow_negative_numbers = true)]
    pub(crate) tier: Option<u32>,
    /// Ask so many nodes, at most 16, and make one answer of theirs
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=16), allow_negative_numbers = true)]
    pub(crate) answers: Option<u32>,
    /// Let it wait for all that somebody waits for
    #[arg(long)]
    pub(crate) batch: bool,
}

#[derive(Debug, Group)]
pub(crate) struct Embed {
    /// The texts; a single `-` reads one per line from standard input
    #[arg(required = true)]
    pub(crate) texts: Vec<String>,
    /// Model that embeds; without it, the host's first
    #[arg(long, env = "LLAMBO_MODEL", value_name = "NAME")]
    pub(crate) model: Option<String>,
}

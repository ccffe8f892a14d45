//! `llamboctl limbot` and `llamboctl dish`, and how answers are chosen.

use std::{path::PathBuf, time::Duration};

use clap::Args as Group;

use super::{
    Target,
    values::{duration, tier},
};

/// How an answer is chosen, and how long it may take.
#[derive(Clone, Debug, Default, Group)]
pub(crate) struct Sampling {
    /// Tokens generated at most; without it, to the end of the context
    #[arg(long, env = "LLAMBO_MAX_TOKENS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    pub(crate) max_tokens: Option<u32>,
    /// 0 takes the likeliest token always
    #[arg(long, env = "LLAMBO_TEMPERATURE", value_name = "T", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f32>,
    /// Only tokens whose probabilities add up to this
    #[arg(long, env = "LLAMBO_TOP_P", value_name = "P", allow_negative_numbers = true)]
    pub(crate) top_p: Option<f32>,
    /// Only the N likeliest tokens; 0 keeps all
    #[arg(long, env = "LLAMBO_TOP_K", value_name = "N", allow_negative_numbers = true)]
    pub(crate) top_k: Option<u32>,
    /// Same seed, same answer
    #[arg(long, env = "LLAMBO_SEED", value_name = "N", allow_negative_numbers = true)]
    pub(crate) seed: Option<u64>,
    /// The answer ends before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Give up after this long, for example `30s`, `500ms` or `2m`
    #[arg(long, env = "LLAMBO_TIMEOUT", value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Group)]
#[command(
    after_help = "At the terminal, `/help` lists what can be typed. Without a terminal on both sides, or with a question on the command line, one
question is answered; with both a question and a pipe, the piped text is the material that the question is about."
)]
pub(crate) struct Limbot {
    /// What to ask, once; without it, a conversation begins, or the question is read from standard input
    pub(crate) question: Option<String>,
    /// Instructions that stand above the conversation
    #[arg(long, env = "LLAMBO_SYSTEM", value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Tier that should serve it, 0 to 2; nodes of other tiers do only when it has none free
    #[arg(long, env = "LLAMBO_TIER", value_name = "N", value_parser = tier, allow_negative_numbers = true)]
    pub(crate) tier: Option<u32>,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    /// Leave out the line with node, tokens and times after each answer
    #[arg(long, short, env = "LLAMBO_QUIET")]
    pub(crate) quiet: bool,
    /// Go on with the conversation that was had last
    #[arg(long = "continue", short = 'c', conflicts_with = "question")]
    pub(crate) resume: bool,
    /// Keep nothing of this conversation on disk
    #[arg(long, env = "LLAMBO_NO_HISTORY")]
    pub(crate) no_history: bool,
}

#[derive(Debug, Group)]
#[command(
    after_help = "At the terminal, `help` lists what can be typed. A script has one command on each line, with `#` before comments, quotes as in sh, `\\` at the
end of a line that goes on, and `set -e`, `set +e` and `set -x`; it exits with the code of its last command, or, after `set -e`, of the first that failed."
)]
pub(crate) struct Dish {
    /// A script to run; without it, standard input
    pub(crate) script: Option<PathBuf>,
    /// Keep nothing of what is typed on disk
    #[arg(long, env = "LLAMBO_NO_HISTORY")]
    pub(crate) no_history: bool,
}

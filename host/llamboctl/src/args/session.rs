//! Conversations that the host keeps.

use std::time::Duration;

use clap::{Args as Group, Subcommand};

use super::{
    Target,
    values::{duration, label},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Session {
    /// Make a session and print its id
    Create(Create),
    /// Ask within a session; the answer is printed as it is generated
    Ask(Ask),
    /// Print a session with everything said in it
    Show {
        /// The session
        id: String,
    },
    /// List your sessions, the newest first
    List {
        /// At most so many; without it, all
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
    },
    /// Make a session that begins as another one did, and print its id
    Fork {
        /// The session
        id: String,
        /// Messages that it begins with; without it, all
        #[arg(long, value_name = "N")]
        at: Option<u32>,
    },
    /// Take a session away
    Delete {
        /// The session
        id: String,
    },
}

#[derive(Debug, Group)]
pub(crate) struct Create {
    /// Instructions that stand above the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
    /// Time without use after which it is gone, for example `30m`; without it, as the host is configured
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// Tokens, read and written, that its turns may use together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) token_budget: Option<u64>,
    /// Forget the oldest turns when it becomes too long for its model, and do not refuse
    #[arg(long)]
    pub(crate) drop_oldest: bool,
    /// A note for policies and for the list; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// How answers are chosen.
#[derive(Debug, Group)]
pub(crate) struct Options {
    /// Tokens generated at most
    #[arg(long, env = "LLAMBO_MAX_TOKENS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    pub(crate) max_tokens: Option<u32>,
    /// 0 takes the likeliest token always
    #[arg(long, env = "LLAMBO_TEMPERATURE", value_name = "T", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f32>,
    /// Same seed, same answer
    #[arg(long, env = "LLAMBO_SEED", value_name = "N", allow_negative_numbers = true)]
    pub(crate) seed: Option<u64>,
}

#[derive(Debug, Group)]
pub(crate) struct Ask {
    /// The session
    pub(crate) id: String,
    /// What to ask; `-` reads it from standard input; without it, the session's last message is answered
    pub(crate) text: Option<String>,
    #[command(flatten)]
    pub(crate) options: Options,
    /// Keep the beginning of an answer that breaks off
    #[arg(long)]
    pub(crate) keep_partial: bool,
    /// Give up after this long, for example `30s`
    #[arg(long, env = "LLAMBO_TIMEOUT", value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Also tell how the node was chosen
    #[arg(long)]
    pub(crate) explain: bool,
}

//! `llamboctl limbot`: a conversation with a model at the terminal, or one question.
//!
//! The conversation is here and is sent whole with each question; the host finds again what it computed of its beginning. So it outlives a host that goes away, and
//! may go on with another model.

mod answer;
mod chat;
mod completion;
mod markdown;
mod once;
mod slash;
mod talk;

use clap::{CommandFactory, error::ErrorKind};
use llambo_client::Ask;

use crate::{
    args::{Args, Target, chat::Limbot, chat::Sampling},
    commands::Session,
    exit::Failure,
    terminal,
};

/// How answers are wanted.
#[derive(Clone, Debug)]
struct Wishes {
    target: Target,
    tier: Option<u32>,
    system: Option<String>,
    sampling: Sampling,
    /// Without the line after each answer.
    is_quiet: bool,
}

pub(crate) async fn limbot(session: Session, args: Limbot) -> Result<u8, Failure> {
    let Limbot { question, system, target, tier, sampling, quiet, resume, no_history } = args;
    let wishes = Wishes { target, tier, system: system.filter(|text| !text.is_empty()), sampling, is_quiet: quiet };
    if question.is_some() || !terminal::is_interactive() {
        return once::once(&session, wishes, question).await;
    }
    if session.json {
        let message = "`--json` is for one question; write it as an argument or to standard input";
        return Err(Failure::usage(&Args::command().error(ErrorKind::ArgumentConflict, message)));
    }
    chat::chat(session.client, wishes, resume, no_history).await
}

impl Wishes {
    fn over(&self, mut ask: Ask) -> Ask {
        if let Some(model) = &self.target.model {
            ask = ask.model(model);
        }
        if let Some(node_type) = &self.target.node_type {
            ask = ask.node_type(node_type);
        }
        if let Some(tier) = self.tier {
            ask = ask.tier(tier);
        }
        self.sampling.clone().over(ask)
    }
}

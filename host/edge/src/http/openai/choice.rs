//! Answers to one request, several at a time, told as they come.

use futures::{
    Stream, StreamExt, TryFutureExt, TryStreamExt,
    stream::{self, BoxStream, select_all},
};
use llambo_inference::{AnswerEvent, Finished, Usage};
use llambo_orchestrator::DispatchError;
use llambo_proto::convert::Asked;

use super::{
    logprobs::{Logs, TokenLogprob},
    request::Received,
    watch::{Seen, Watch},
};
use crate::{
    answer::{Answering, Deadline},
    door::within,
    http::failure::ApiError,
};

/// What is told of one answer. `Started` comes first, `End` last.
#[derive(Debug)]
pub(super) enum Told {
    /// A node has it, which need not be the one that ends it.
    Started,
    Text {
        text: String,
        logprobs: Vec<TokenLogprob>,
    },
    Call(CallPart),
    End {
        reason: &'static str,
        usage: Usage,
    },
}

/// A part of a call of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CallPart {
    /// Which of the answer's calls.
    pub(super) index: usize,
    /// Its name, with the first part.
    pub(super) name: Option<String>,
    /// What its arguments go on with, as JSON text.
    pub(super) arguments: String,
}

/// An answer by its place among the answers, and what is told of it.
pub(super) type Event = (usize, Told);

/// Answers under way. Dropping it cancels them all.
pub(super) type Choices = BoxStream<'static, Result<Event, DispatchError>>;

/// One answer that is to be asked for.
pub(super) struct Choice {
    pub(super) asked: Asked,
    /// What its text is watched for.
    pub(super) watch: Watch,
    /// Told before everything else.
    pub(super) echo: Option<String>,
}

/// One answer under way.
struct Running {
    watch: Watch,
    logs: Option<Logs>,
    /// Of tokens whose text is held back.
    held: Vec<TokenLogprob>,
}

impl Choice {
    /// `n` answers to one prompt, each with a name and, if there is one, a seed of its own.
    pub(super) fn several(asked: &Asked, n: usize, received: &Received, watch: &Watch, echo: Option<&String>) -> Vec<Self> {
        let choice = |i: usize| {
            let mut asked = asked.clone();
            asked.id = Some(if n == 1 { received.id.clone() } else { format!("{}-{i}", received.id).into() });
            asked.options.seed = asked.options.seed.map(|seed| seed.wrapping_add(i as u64));
            Self { asked, watch: watch.clone(), echo: echo.cloned() }
        };
        (0..n).map(choice).collect()
    }
}

/// Asks for all of them at once; each goes on as soon as there is a node for it.
pub(super) fn ask(received: &Received, deadline: Option<Deadline>, choices: Vec<Choice>) -> Choices {
    let asked = choices.into_iter().enumerate().map(|(index, choice)| {
        let Choice { mut asked, watch, echo } = choice;
        asked.routing.tier = received.tier.or(asked.routing.tier);
        let served_by = received.served_by.clone();
        let (door, caller, at) = (received.door.clone(), received.caller.clone(), received.at);
        let told = async move {
            let answering = door.ask(asked, &caller, at, deadline).await?;
            served_by.note(&answering);
            let logs = answering.journal.clone().filter(|journal| journal.n_top().is_some());
            // the model is there: it has begun to answer
            let logs =
                logs.zip(door.engine(Some(&answering.model)).ok()).map(|(journal, (_, engine))| Logs::new(journal, engine));
            let begin = echo.map(|text| Told::Text { text, logprobs: Vec::new() });
            Ok(stream::iter([Told::Started].into_iter().chain(begin).map(Ok)).chain(events(answering, watch, logs)))
        };
        told.try_flatten_stream().map_ok(move |told| (index, told)).boxed()
    });
    select_all(asked).boxed()
}

fn events(answering: Answering, watch: Watch, logs: Option<Logs>) -> impl Stream<Item = Result<Told, DispatchError>> + Send {
    let mut running = Running { watch, logs, held: Vec::new() };
    answering.map_ok(move |event| stream::iter(running.take(event).into_iter().map(Ok))).try_flatten()
}

/// All answers, once the first of them has begun.
///
/// # Errors
/// The request was not served, or nothing came before its client stopped to wait.
pub(super) async fn begun(mut choices: Choices, must_begin: Option<Deadline>) -> Result<Choices, ApiError> {
    let first = within(must_begin, choices.next()).await?.transpose()?;
    Ok(stream::iter(first.map(Ok)).chain(choices).boxed())
}

impl Running {
    fn take(&mut self, event: AnswerEvent) -> Vec<Told> {
        let mut told = Vec::new();
        match event {
            AnswerEvent::Piece { text, n_tokens } => {
                if let Some(logs) = &mut self.logs {
                    self.held.extend(logs.of_piece(n_tokens));
                }
                let seen = self.watch.push(text);
                self.tell(seen, &mut told);
            }
            AnswerEvent::Finished(Finished { reason, usage }) => {
                let seen = self.watch.end();
                self.tell(seen, &mut told);
                if !self.held.is_empty() {
                    told.push(Told::Text { text: String::new(), logprobs: std::mem::take(&mut self.held) });
                }
                told.push(Told::End { reason: self.watch.finish_reason(reason), usage });
            }
        }
        told
    }

    fn tell(&mut self, seen: Vec<Seen>, told: &mut Vec<Told>) {
        for seen in seen {
            match seen {
                Seen::Text(text) => told.push(Told::Text { text, logprobs: std::mem::take(&mut self.held) }),
                Seen::Call(part) => {
                    self.held.clear();
                    told.push(Told::Call(part));
                }
            }
        }
    }
}

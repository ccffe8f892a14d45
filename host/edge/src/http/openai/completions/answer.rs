//! What a client of completions is told, whole or in chunks of the same form.

use axum::body::Bytes;
use futures::TryStreamExt;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::{
    failure::ApiError,
    openai::{
        choice::{Choices, Event, Told},
        field::Field,
        logprobs::TextLogprobs,
        sse::{Form, data},
        usage::UsageObject,
    },
};

/// What all parts of one answer tell.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) fingerprint: Option<String>,
    /// Answers to each prompt.
    pub(super) n: usize,
    /// Answers to all of them.
    pub(super) n_choices: usize,
}

/// Texts that go on with others; a part of them where they are streamed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Completion {
    id: String,
    /// Always `text_completion`.
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: String,
    /// The same as long as the model's file is the same.
    system_fingerprint: Option<String>,
    /// In the order of the prompts, all answers to one of them together.
    choices: Vec<CompletionChoice>,
    /// Streamed only with `stream_options.include_usage`: null in all parts but the last.
    #[serde(skip_serializing_if = "Field::is_absent")]
    #[schema(value_type = Option<UsageObject>)]
    usage: Field<UsageObject>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct CompletionChoice {
    index: usize,
    text: String,
    logprobs: Option<TextLogprobs>,
    /// `stop` or `length`; null in all parts but the last.
    finish_reason: Option<&'static str>,
}

/// A streamed answer under way.
pub(super) struct Chunks {
    about: About,
    usage: UsageObject,
    tells_usage: bool,
    /// Characters of each answer so far, by its place.
    offsets: Vec<usize>,
}

impl About {
    fn completion(&self, choices: Vec<CompletionChoice>, usage: Field<UsageObject>) -> Completion {
        let Self { id, created, model, fingerprint, .. } = self.clone();
        Completion { id, object: "text_completion", created, model, system_fingerprint: fingerprint, choices, usage }
    }
}

/// Waits for all answers.
///
/// # Errors
/// One of them failed.
pub(super) async fn whole(about: About, mut choices: Choices) -> Result<Completion, ApiError> {
    let mut usage = UsageObject::default();
    let mut told: Vec<(CompletionChoice, usize)> =
        (0..about.n_choices).map(|index| (CompletionChoice { index, ..CompletionChoice::default() }, 0)).collect();
    while let Some((index, event)) = choices.try_next().await? {
        let Some((choice, offset)) = told.get_mut(index) else { continue };
        match event {
            Told::Text { text, logprobs } => {
                choice.text.push_str(&text);
                if !logprobs.is_empty() {
                    *offset += choice.logprobs.get_or_insert_default().extend(logprobs, *offset);
                }
            }
            Told::End { reason, usage: cost } => {
                choice.finish_reason = Some(reason);
                usage.add(index, about.n, cost);
            }
            Told::Started | Told::Call(_) => {}
        }
    }
    let choices = told.into_iter().map(|(choice, _)| choice).collect();
    Ok(about.completion(choices, Field::Told(usage)))
}

impl Chunks {
    pub(super) fn new(about: About, tells_usage: bool) -> Self {
        let offsets = vec![0; about.n_choices];
        Self { about, usage: UsageObject::default(), tells_usage, offsets }
    }

    fn chunk(&self, choices: Vec<CompletionChoice>, usage: Option<UsageObject>) -> Bytes {
        let usage = if self.tells_usage { Field::or_null(usage) } else { Field::Absent };
        data(&self.about.completion(choices, usage))
    }
}

impl Form for Chunks {
    fn event(&mut self, (index, told): Event) -> Option<Bytes> {
        let mut choice = CompletionChoice { index, ..CompletionChoice::default() };
        match told {
            Told::Text { text, logprobs } => {
                choice.text = text;
                if let Some(offset) = self.offsets.get_mut(index).filter(|_| !logprobs.is_empty()) {
                    *offset += choice.logprobs.get_or_insert_default().extend(logprobs, *offset);
                }
            }
            Told::End { reason, usage } => {
                self.usage.add(index, self.about.n, usage);
                choice.finish_reason = Some(reason);
            }
            Told::Started | Told::Call(_) => return None,
        }
        Some(self.chunk(vec![choice], None))
    }

    fn end(&mut self) -> Option<Bytes> {
        self.tells_usage.then(|| self.chunk(Vec::new(), Some(self.usage)))
    }
}

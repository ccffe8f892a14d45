//! One generation or embedding that a guest asked for.

use futures::{FutureExt, StreamExt};
use llambo_inference::{
    AnswerEvent, AnswerStream, Finished, GenerateRequest, InferenceEngine, InferenceError, Message, Prompt, Role, Usage,
};
use serde::Deserialize;

use super::{NnError, Options, Tensor};

/// What one streaming `compute` returns at most, give or take a piece: a guest should not wait for a whole answer.
const PIECE_BYTES: usize = 1024;

/// What `compute` was given.
pub(crate) struct SessionInput {
    pub(crate) prompt: Prompt,
    pub(crate) options: Options,
    /// Tensors were named `0` and `1`, and so are those that go back.
    pub(crate) numbered: bool,
}

/// A generation that is under way.
pub(crate) struct Session {
    events: AnswerStream,
    numbered: bool,
    stream: bool,
    n_generated: u32,
    /// Tokens it began with, where somebody counts them, and what each takes.
    n_begun: u64,
    kv_bytes_per_token: u64,
    /// Came right behind text that is told first.
    failed: Option<InferenceError>,
}

/// What one `compute` came to.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) text: String,
    pub(crate) n_tokens: u32,
    pub(crate) finished: Option<Finished>,
}

#[derive(Deserialize)]
struct ChatMessage {
    role: String,
    content: String,
}

// === impl SessionInput ===

impl SessionInput {
    /// Reads the tensors of a `compute`; `None` where there are none.
    ///
    /// # Errors
    /// `invalid-argument` with what is wrong.
    pub(crate) fn read(inputs: Vec<(String, Tensor)>) -> Result<Option<Self>, NnError> {
        if inputs.is_empty() {
            return Ok(None);
        }
        let (mut prompt, mut options, mut numbered) = (None, None, false);
        for (name, tensor) in inputs {
            match name.as_str() {
                "prompt" | "0" => {
                    numbered = name == "0";
                    once(&mut prompt, Prompt::Text(utf8(&name, tensor.data)?), &name)?;
                }
                "messages" => once(&mut prompt, Prompt::Chat(chat(&tensor.data)?), &name)?,
                "options" | "1" => {
                    let read = Options::parse(&tensor.data).map_err(NnError::invalid)?;
                    once(&mut options, read, &name)?;
                }
                other => {
                    let known = "`prompt`, `messages` or `options`";
                    return Err(NnError::invalid(format!("there is no tensor `{other}`; give {known}")));
                }
            }
        }
        let prompt = prompt.ok_or_else(|| NnError::invalid("there is no tensor `prompt` or `messages`"))?;
        Ok(Some(Self { prompt, options: options.unwrap_or_default(), numbered }))
    }
}

fn once<T>(place: &mut Option<T>, value: T, name: &str) -> Result<(), NnError> {
    if place.replace(value).is_some() {
        return Err(NnError::invalid(format!("`{name}` is the second tensor for the same thing; give one")));
    }
    Ok(())
}

fn utf8(name: &str, data: Vec<u8>) -> Result<String, NnError> {
    String::from_utf8(data).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        NnError::invalid(format!("tensor `{name}` is not UTF-8 from byte {at} on"))
    })
}

fn chat(data: &[u8]) -> Result<Vec<Message>, NnError> {
    let messages: Vec<ChatMessage> = serde_json::from_slice(data)
        .map_err(|e| NnError::invalid(format!("`messages` is not a list of {{\"role\", \"content\"}}: {e}")))?;
    let read = |ChatMessage { role, content }| match Role::parse(&role) {
        Some(role) => Ok(Message { role, content }),
        None => Err(NnError::invalid(format!("there is no role `{role}`; use system, user or assistant"))),
    };
    messages.into_iter().map(read).collect()
}

// === impl Session ===

impl Session {
    pub(crate) fn start(
        engine: &dyn InferenceEngine,
        request: GenerateRequest,
        stream: bool,
        numbered: bool,
    ) -> Result<Self, InferenceError> {
        let events = engine.submit(request)?;
        Ok(Self { numbered, stream, ..Self::over(events) })
    }

    /// Over events that come from elsewhere, piece by piece.
    pub(crate) fn over(events: AnswerStream) -> Self {
        Self { events, numbered: false, stream: true, n_generated: 0, n_begun: 0, kv_bytes_per_token: 0, failed: None }
    }

    /// The same, where what it holds is counted.
    pub(crate) fn holding(self, n_begun: usize, kv_bytes_per_token: u64) -> Self {
        Self { n_begun: n_begun as u64, kv_bytes_per_token, ..self }
    }

    /// Keys and values of what it began with and generated so far.
    pub(crate) fn kv_bytes(&self) -> u64 {
        (self.n_begun + u64::from(self.n_generated)).saturating_mul(self.kv_bytes_per_token)
    }

    pub(crate) fn numbered(&self) -> bool {
        self.numbered
    }

    /// The next piece when streaming, everything otherwise. What is ready at once comes along, so that a guest that
    /// falls behind catches up in one call.
    pub(crate) async fn next(&mut self) -> Result<Output, InferenceError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut output = Output::default();
        loop {
            let event = if self.stream && !output.text.is_empty() {
                if output.text.len() >= PIECE_BYTES {
                    return Ok(output);
                }
                let Some(event) = self.events.next().now_or_never() else { return Ok(output) };
                event
            } else {
                self.events.next().await
            };
            match event {
                Some(Ok(AnswerEvent::Piece { text, n_tokens })) => {
                    self.n_generated = self.n_generated.saturating_add(n_tokens);
                    output.n_tokens = output.n_tokens.saturating_add(n_tokens);
                    output.text.push_str(&text);
                }
                Some(Ok(AnswerEvent::Finished(finished))) => {
                    output.finished = Some(finished);
                    return Ok(output);
                }
                Some(Err(error)) if self.stream && !output.text.is_empty() => {
                    self.failed = Some(error);
                    return Ok(output);
                }
                Some(Err(error)) => return Err(error),
                None => return Err(InferenceError::Backend("the answer ended without its end".into())),
            }
        }
    }

    /// What is known of the cost of one that is given up: what it generated.
    pub(crate) fn usage_so_far(&self) -> Usage {
        Usage { output_tokens: self.n_generated, ..Usage::default() }
    }
}

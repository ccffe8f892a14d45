//! Answers as server-sent events, in the way of OpenAI's interface: each message a `data:` line, the last `[DONE]`.

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt, stream};
use llambo_inference::InferenceError;
use llambo_orchestrator::DispatchError;
use serde::Serialize;

use super::{
    choice::{Choices, Event},
    request::Received,
};
use crate::{
    http::{failure::ApiError, meter::Outcome},
    pump::pump,
};

/// What an answer's events look like.
pub(super) trait Form: Send + 'static {
    /// One event; nothing where it is not told.
    fn event(&mut self, event: Event) -> Option<Bytes>;

    /// What comes behind the last event.
    fn end(&mut self) -> Option<Bytes>;
}

/// Where in its answer a stream is.
struct Telling<F> {
    choices: Choices,
    form: F,
    outcome: Outcome,
    stage: Stage,
}

enum Stage {
    Events,
    Done,
    Over,
}

/// Streams an answer at its client's pace. A client that goes, or takes nothing for too long, ends it.
pub(super) fn respond(received: &Received, choices: Choices, form: impl Form) -> Response {
    let outcome = received.outcome.clone();
    let stalled = move |waited| {
        let error = ApiError::from(InferenceError::stalled(waited));
        outcome.failed(error.status());
        data(&error.into_body())
    };
    let telling = Telling { choices, form, outcome: received.outcome.clone(), stage: Stage::Events };
    let pumped = pump(telling.messages(), received.door.patience, stalled);
    let headers = [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(pumped.map(Ok::<_, std::convert::Infallible>))).into_response()
}

/// A message.
pub(super) fn data(message: &impl Serialize) -> Bytes {
    let mut line = b"data: ".to_vec();
    // fails for maps whose keys are no text, and for nothing else in memory
    if let Err(error) = serde_json::to_writer(&mut line, message) {
        tracing::error!(%error, "a message could not be written as JSON");
    }
    line.extend_from_slice(b"\n\n");
    line.into()
}

impl<F: Form> Telling<F> {
    fn messages(self) -> impl Stream<Item = Bytes> + Send {
        stream::unfold(self, async |mut telling| {
            let message = telling.next().await?;
            Some((message, telling))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        while let Stage::Events = self.stage {
            match self.choices.next().await {
                Some(Ok(event)) => {
                    let Some(message) = self.form.event(event) else { continue };
                    return Some(message);
                }
                Some(Err(error)) => {
                    self.stage = Stage::Over;
                    return Some(self.broken(error));
                }
                None => {
                    self.stage = Stage::Done;
                    let Some(message) = self.form.end() else { continue };
                    return Some(message);
                }
            }
        }
        let Stage::Done = self.stage else { return None };
        self.stage = Stage::Over;
        Some(Bytes::from_static(b"data: [DONE]\n\n"))
    }

    /// The status was told already: the error is the last message, and `[DONE]` does not follow.
    fn broken(&mut self, error: DispatchError) -> Bytes {
        self.choices = stream::empty().boxed();
        let error = ApiError::from(error);
        self.outcome.failed(error.status());
        data(&error.into_body())
    }
}

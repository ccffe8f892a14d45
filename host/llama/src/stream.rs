//! The way of events from the engine's thread to a reader: a bounded channel, and a verdict beside it.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures::Stream;
use llambo_inference::{AnswerEvent, InferenceError};
use tokio::sync::mpsc;

use crate::engine::Handle;

/// Events a reader may fall behind before its sequence is paused: a second or two of reading speed, 64 bytes each.
pub(crate) const EVENTS_BUFFERED: usize = 32;

/// What both ends of a stream see.
#[derive(Default)]
pub(crate) struct Shared {
    /// Set by the engine while the channel is full; the reader wakes the engine when it takes an event then.
    pub(crate) paused: AtomicBool,
    /// Why the engine dropped its end, when it was not with a [`AnswerEvent::Finished`].
    verdict: OnceLock<InferenceError>,
}

/// The engine's end. Dropping it ends the stream.
pub(crate) struct EventSender {
    events: mpsc::Sender<AnswerEvent>,
    shared: Arc<Shared>,
}

/// The reader's end. Dropping it cancels the sequence and wakes the engine.
pub(crate) struct EventReader {
    events: mpsc::Receiver<AnswerEvent>,
    shared: Arc<Shared>,
    engine: Arc<Handle>,
    ended: bool,
}

/// Makes both ends.
pub(crate) fn channel(engine: Arc<Handle>) -> (EventSender, EventReader) {
    let (sender, receiver) = mpsc::channel(EVENTS_BUFFERED);
    let shared = Arc::<Shared>::default();
    let reader = EventReader { events: receiver, shared: Arc::clone(&shared), engine, ended: false };
    (EventSender { events: sender, shared }, reader)
}

/// The engine's end alone, with what a reader would read from.
#[cfg(test)]
pub(crate) fn detached() -> (EventSender, mpsc::Receiver<AnswerEvent>) {
    let (events, receiver) = mpsc::channel(EVENTS_BUFFERED);
    (EventSender { events, shared: Arc::default() }, receiver)
}

impl EventSender {
    /// Hands an event over; gives it back when the reader is behind.
    pub(crate) fn send(&self, event: AnswerEvent) -> Result<(), AnswerEvent> {
        match self.events.try_send(event) {
            // a reader that is gone is seen by `is_cancelled`
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(event)) => {
                self.shared.paused.store(true, Ordering::SeqCst);
                // the reader may have emptied the channel before it could see the flag
                self.events.try_send(event).map_err(|e| match e {
                    mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event) => event,
                })
            }
        }
    }

    /// Whether the reader is gone.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }

    /// Ends the stream with an error, which the reader gets after what it has not read yet.
    pub(crate) fn fail(self, error: InferenceError) {
        // only this end sets it, and it is consumed here
        let _ = self.shared.verdict.set(error);
    }
}

impl Stream for EventReader {
    type Item = Result<AnswerEvent, InferenceError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let item = if let Some(event) = ready!(self.events.poll_recv(cx)) {
            if self.shared.paused.swap(false, Ordering::SeqCst) {
                self.engine.wake();
            }
            self.ended = matches!(event, AnswerEvent::Finished(_));
            Ok(event)
        } else {
            self.ended = true;
            let verdict = self.shared.verdict.get().cloned();
            Err(verdict.unwrap_or_else(|| InferenceError::Stopped(self.engine.name().to_string())))
        };
        Poll::Ready(Some(item))
    }
}

impl Drop for EventReader {
    fn drop(&mut self) {
        if !self.ended {
            self.events.close();
            self.engine.wake();
        }
    }
}

//! A request while it is served: the answer's stream owns the guest and runs it whenever it is polled, since waking a task for every token costs
//! more than the guest does. Only one that computes without a wait goes on elsewhere (`lane`).

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::{FutureExt, Stream, future::BoxFuture};
use llambo_inference::{AnswerEvent, GenerateRequest, InferenceError};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
};

use crate::{
    isolate::{Isolate, Occupied},
    output::{Event, Voice},
};

/// Pieces that wait together go on as one of about this size.
const MERGED_BYTES: usize = 1024;

/// The client's end of an answer.
pub(crate) struct Events {
    pub(crate) isolate: Arc<Isolate>,
    pub(crate) turn: u64,
    pub(crate) is_heavy: Arc<AtomicBool>,
    pub(crate) serving: Serving,
    pub(crate) pieces: mpsc::Receiver<Event>,
    /// What is told last.
    pub(crate) end: Option<Event>,
}

/// Where the guest is at work. It goes on only when all it said was taken.
pub(crate) enum Serving {
    Here(BoxFuture<'static, Event>),
    Lane(JoinHandle<Event>),
    Done,
}

/// One request, from the guest's first step to its end, which is told last.
pub(crate) async fn serve(
    mut occupied: Occupied,
    request: GenerateRequest,
    events: mpsc::Sender<Event>,
    is_heavy: Arc<AtomicBool>,
) -> Event {
    let node_type = Arc::clone(&occupied.isolate.node_type);
    let Some(guest) = occupied.guest.as_mut() else { return Err(InferenceError::Stopped(occupied.isolate.id.to_string())) };
    let voice = Voice::new(events, &node_type.limits);
    let answer = AssertUnwindSafe(guest.answer(&node_type, request, voice, is_heavy));
    // a panic would be the host's mistake: it should cost this guest and no other
    let Ok(ended) = answer.catch_unwind().await else {
        return Err(InferenceError::Backend("the host's code for the guest panicked; its log says where".into()));
    };
    occupied.isolate.served.fetch_add(1, Ordering::Relaxed);
    match &ended.result {
        Ok(_) => occupied.note(true),
        Err(InferenceError::Guest { .. }) if !ended.usable => occupied.note(false),
        // neither its merit nor its fault
        Err(_) => {}
    }
    if ended.usable {
        occupied.leave();
    } else if let Err(error) = &ended.result {
        metrics::counter!("llambo_isolate_replaced_total", "reason" => error.reason()).increment(1);
        tracing::warn!(node_id = %occupied.isolate.id, reason = error.reason(), "guest ended");
    }
    ended.result.map(AnswerEvent::Finished)
}

// === impl Events ===

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if let Ok(piece) = self.pieces.try_recv() {
            return Poll::Ready(Some(self.with_more(piece)));
        }
        let polled = match &mut self.serving {
            Serving::Here(serving) => serving.as_mut().poll(cx),
            Serving::Lane(task) => Pin::new(task).poll(cx).map(|joined| joined.unwrap_or_else(|e| Err(lost(&e)))),
            Serving::Done => return Poll::Ready(self.end.take()),
        };
        if let Poll::Ready(end) = polled {
            // its place too is free from here on, however long the client takes to be told
            (self.serving, self.end) = (Serving::Done, Some(end));
        } else if self.is_heavy.swap(false, Ordering::Relaxed) {
            self.isolate.suspect();
            self.go_on_in_the_lane();
            cx.waker().wake_by_ref();
        }
        if let Serving::Lane(_) = &self.serving {
            // another thread sends, and must find this one waiting
            return match self.pieces.poll_recv(cx) {
                Poll::Ready(Some(piece)) => Poll::Ready(Some(self.with_more(piece))),
                _ => Poll::Pending,
            };
        }
        match (self.pieces.try_recv(), &self.serving) {
            (Ok(piece), _) => Poll::Ready(Some(self.with_more(piece))),
            (Err(_), Serving::Done) => Poll::Ready(self.end.take()),
            (Err(_), _) => Poll::Pending,
        }
    }
}

fn lost(error: &JoinError) -> InferenceError {
    InferenceError::Backend(format!("the guest's task ended without a word: {error}"))
}

impl Events {
    /// What was said meanwhile comes along: each message on its own costs more than all of them together.
    fn with_more(&mut self, mut event: Event) -> Event {
        while let Ok(AnswerEvent::Piece { text, n_tokens }) = &mut event
            && text.len() < MERGED_BYTES
            && let Ok(Ok(AnswerEvent::Piece { text: more, n_tokens: n_more })) = self.pieces.try_recv()
        {
            text.push_str(&more);
            *n_tokens = n_tokens.saturating_add(n_more);
        }
        event
    }

    pub(crate) fn go_on_in_the_lane(&mut self) {
        metrics::counter!("llambo_isolate_heavy_total", "type" => self.isolate.node_type.settings().name.to_string())
            .increment(1);
        self.serving = match std::mem::replace(&mut self.serving, Serving::Done) {
            Serving::Here(serving) => {
                if let Some(task) = self.isolate.node_type.pools.lane.take(serving) {
                    Serving::Lane(task)
                } else {
                    self.end = Some(Err(InferenceError::Stopped(self.isolate.id.to_string())));
                    Serving::Done
                }
            }
            other => other,
        };
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Serving::Lane(task) = &self.serving {
            task.abort();
            self.isolate.abandon(self.turn);
        }
    }
}

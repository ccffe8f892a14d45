//! An answer on its way, with everything that must end when it does.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::Stream;
use llambo_inference::{AnswerEvent, AnswerStream, InferenceError};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{lease::Lease, record::Record};

/// A node's events with exactly one end, whatever the node does. Dropping it cancels the generation and frees the node.
pub(crate) struct Served {
    /// `None` once the end was told.
    running: Option<Running>,
}

struct Running {
    // dropped in this order: the node must be free before its place is given to the next
    events: AnswerStream,
    first: Option<AnswerEvent>,
    deadline: Option<Pin<Box<Sleep>>>,
    record: Record,
    lease: Lease,
}

impl Served {
    pub(crate) fn new(
        first: AnswerEvent,
        events: AnswerStream,
        deadline: Option<Instant>,
        mut record: Record,
        lease: Lease,
    ) -> Self {
        if let AnswerEvent::Piece { n_tokens, .. } = first {
            record.generated(n_tokens);
        }
        let deadline = deadline.map(|at| Box::pin(sleep_until(at)));
        Self { running: Some(Running { events, first: Some(first), deadline, record, lease }) }
    }

    /// Passes an event on; with the end, all that belongs to the answer goes.
    fn tell(&mut self, item: Result<AnswerEvent, InferenceError>) -> Option<Result<AnswerEvent, InferenceError>> {
        let running = self.running.as_mut()?;
        match &item {
            Ok(AnswerEvent::Piece { .. }) => return Some(item),
            Ok(AnswerEvent::Finished(finished)) => running.record.finished(finished),
            Err(error) => {
                running.record.failed(error);
                running.lease.mark_failed(error);
            }
        }
        self.running = None;
        Some(item)
    }
}

impl Stream for Served {
    type Item = Result<AnswerEvent, InferenceError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(running) = &mut self.running else { return Poll::Ready(None) };
        if let Some(first) = running.first.take() {
            return Poll::Ready(self.tell(Ok(first)));
        }
        if let Some(deadline) = &mut running.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            let n_generated = running.record.n_generated();
            return Poll::Ready(self.tell(Err(InferenceError::DeadlineExceeded { n_generated })));
        }
        let item = match ready!(running.events.as_mut().poll_next(cx)) {
            Some(item) => {
                if let Ok(AnswerEvent::Piece { n_tokens, .. }) = item {
                    running.record.generated(n_tokens);
                }
                item
            }
            None => Err(InferenceError::Stopped(running.lease.node_id().to_string())),
        };
        Poll::Ready(self.tell(item))
    }
}

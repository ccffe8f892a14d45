//! One answer on its way to its client.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Stream, future::BoxFuture};
use llambo_inference::{AnswerEvent, AnswerStream, Fault, InferenceError, NodeId, RequestId};
use llambo_orchestrator::DispatchError;
use llambo_proto::{
    convert::{self, Timing},
    status, v1,
};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::not_served;

/// When the parts of a host give up on a request, so that each can tell the next before that one gives up itself.
///
/// The transport ends a call after exactly the client's timeout, with a bare CANCELLED. Whoever decodes should stop before
/// the edge does, since it knows how far it came; and the edge before the transport.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    /// For whoever decodes.
    pub(super) inner: Instant,
    /// For the edge.
    pub(super) edge: Instant,
}

/// What each part gives the next at most: enough for a message to pass through a busy machine.
const MARGIN: Duration = Duration::from_millis(5);
/// The share of a short timeout given instead.
const SHORT: u32 = 16;

/// `started`, pieces, `finished`; or an error in between. Dropping it cancels everything behind it.
pub(super) struct Answering {
    request_id: RequestId,
    node: NodeId,
    first: Option<v1::GenerateResponse>,
    /// Gone once it has ended, so that its node is free even while the client is slow to take the last message.
    events: Option<AnswerStream>,
    received: Instant,
    ttft: Duration,
    n_tokens: u32,
    expiry: Option<Pin<Box<Sleep>>>,
    /// Done when the edge closes and waits for nobody any more.
    closed: BoxFuture<'static, ()>,
}

// === impl Deadline ===

impl Deadline {
    pub(super) fn new(received: Instant, timeout: Duration) -> Self {
        let margin = MARGIN.min(timeout / SHORT);
        Self { inner: received + timeout.saturating_sub(2 * margin), edge: received + timeout.saturating_sub(margin) }
    }
}

// === impl Answering ===

impl Answering {
    /// An answer whose first event is there now.
    pub(super) fn new(
        request_id: RequestId,
        first: v1::GenerateResponse,
        answer: llambo_inference::Answer,
        received: Instant,
        deadline: Option<Deadline>,
        closed: BoxFuture<'static, ()>,
    ) -> Self {
        Self {
            request_id,
            node: answer.node,
            first: Some(first),
            events: Some(answer.events),
            received,
            ttft: received.elapsed(),
            n_tokens: 0,
            expiry: deadline.map(|deadline| Box::pin(sleep_until(deadline.edge))),
            closed,
        }
    }

    fn fail(&mut self, error: &InferenceError) -> Poll<Option<Result<v1::GenerateResponse, Status>>> {
        self.events = None;
        let (request_id, node) = (&self.request_id, &self.node);
        if error.fault() == Fault::Node {
            tracing::warn!(%request_id, node_id = %node, n_generated = self.n_tokens, %error, "an answer broke off");
        } else {
            tracing::debug!(%request_id, node_id = %node, n_generated = self.n_tokens, %error, "an answer ended early");
        }
        Poll::Ready(Some(Err(status::status(error))))
    }
}

impl Stream for Answering {
    type Item = Result<v1::GenerateResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let Some(events) = &mut self.events else { return Poll::Ready(None) };
        let Poll::Ready(event) = events.as_mut().poll_next(cx) else {
            if self.closed.as_mut().poll(cx).is_ready() {
                tracing::warn!(request_id = %self.request_id, node_id = %self.node, "an answer was cut off by the host's end");
                self.events = None;
                return Poll::Ready(Some(Err(not_served(&DispatchError::Draining))));
            }
            if let Some(expiry) = &mut self.expiry {
                ready!(expiry.as_mut().poll(cx));
                let n_generated = self.n_tokens;
                return self.fail(&InferenceError::DeadlineExceeded { n_generated });
            }
            return Poll::Pending;
        };
        match event {
            Some(Ok(event)) => {
                match &event {
                    AnswerEvent::Piece { n_tokens, .. } => self.n_tokens = self.n_tokens.saturating_add(*n_tokens),
                    AnswerEvent::Finished(finished) => {
                        let request_id = &self.request_id;
                        tracing::debug!(
                            %request_id, node_id = %self.node, n_prompt = finished.usage.input_tokens,
                            n_generated = finished.usage.output_tokens, ttft_ms = ms(self.ttft), "answered"
                        );
                        self.events = None;
                    }
                }
                let (received, ttft) = (self.received, self.ttft);
                let timing = || Timing { ttft_ms: ms(ttft), total_ms: ms(received.elapsed()) };
                Poll::Ready(Some(Ok(convert::event(event, timing))))
            }
            Some(Err(error)) => self.fail(&error),
            None => self.fail(&InferenceError::Backend("the answer broke off without an end".into())),
        }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt, stream};
    use llambo_inference::Answer;
    use llambo_proto::status::Details;

    use super::*;

    fn answering(events: AnswerStream, timeout: Option<Duration>) -> Answering {
        let first = convert::started(&"r".into(), &"n".into(), &"m".into());
        let now = Instant::now();
        Answering::new(
            "r".into(),
            first,
            Answer { node: "n".into(), events },
            now,
            timeout.map(|t| Deadline::new(now, t)),
            futures::future::pending().boxed(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn each_part_gives_up_before_the_next() {
        let now = Instant::now();
        for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(8), Duration::from_hours(1)] {
            let deadline = Deadline::new(now, timeout);
            assert!(deadline.inner <= deadline.edge && deadline.edge <= now + timeout, "{timeout:?}");
            assert!(deadline.inner >= now + timeout / 8 * 7, "{timeout:?}: hardly any time is left");
        }
        let deadline = Deadline::new(now, Duration::from_secs(1));
        assert!(deadline.inner < deadline.edge && deadline.edge < now + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_stands_still_ends_at_its_deadline() {
        let piece = Ok(AnswerEvent::Piece { text: "a".into(), n_tokens: 3 });
        let events = stream::iter([piece]).chain(stream::pending()).boxed();
        let messages: Vec<_> = answering(events, Some(Duration::from_secs(2))).collect().await;
        assert_eq!(messages.len(), 3, "started, the piece and the end");
        let status = messages[2].as_ref().unwrap_err();
        let details = Details::of(status);
        assert_eq!(details.reason.as_deref(), Some("DEADLINE_EXCEEDED"));
        assert_eq!(details.metadata["n_generated"], "3");
    }

    #[tokio::test]
    async fn an_answer_that_the_edge_does_not_wait_for_says_why() {
        let (close, closing) = tokio::sync::watch::channel(false);
        let piece = Ok(AnswerEvent::Piece { text: "a".into(), n_tokens: 1 });
        let mut answering = answering(stream::iter([piece]).chain(stream::pending()).boxed(), None);
        answering.closed = crate::serve::closed(closing).boxed();
        assert!(answering.next().await.unwrap().is_ok() && answering.next().await.unwrap().is_ok());
        close.send_replace(true);
        let status = answering.next().await.unwrap().unwrap_err();
        assert_eq!(Details::of(&status).reason.as_deref(), Some("DRAINING"));
        assert!(answering.next().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_without_an_end_is_an_error_not_an_answer() {
        let messages: Vec<_> = answering(stream::empty().boxed(), None).collect().await;
        assert_eq!(messages[1].as_ref().unwrap_err().code(), tonic::Code::Internal);
        assert_eq!(messages.len(), 2);
    }
}

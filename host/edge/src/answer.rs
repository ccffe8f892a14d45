//! One answer on its way to its client, whatever that speaks.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, Stream, future::BoxFuture};
use llambo_inference::{AnswerEvent, AnswerStream, Fault, InferenceError, Journal, ModelName, NodeId, Part, RequestId};
use llambo_orchestrator::{DispatchError, Route, Routed, TierNote};
use llambo_proto::convert::Timing;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    grpc::route,
    serve::{Closing, closed},
    trace,
};

/// When the parts of a host give up on a request, so that each can tell the next before that one gives up itself.
///
/// The transport ends a call after exactly the client's timeout, with a bare CANCELLED. Whoever decodes should stop before
/// the edge does, since it knows how far it came; and the edge before the transport.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    /// For whoever decodes.
    pub(crate) inner: Instant,
    /// For the edge.
    pub(crate) edge: Instant,
}

/// What each part gives the next at most: enough for a message to pass through a busy machine.
const MARGIN: Duration = Duration::from_millis(5);
/// The share of a short timeout given instead.
const SHORT: u32 = 16;

/// Pieces, and the end; or an error in between. Dropping it cancels everything behind it.
pub(crate) struct Answering {
    pub(crate) id: RequestId,
    pub(crate) node: NodeId,
    pub(crate) model: ModelName,
    /// If it was asked for.
    pub(crate) route: Option<Box<Route>>,
    /// The tier that serves it, where there are several.
    pub(crate) tier: Option<Arc<TierNote>>,
    /// Where its tokens are written down.
    pub(crate) journal: Option<Journal>,
    /// Gone once it has ended, so that its node is free even while the client is slow to take the last message.
    events: Option<AnswerStream>,
    received: Instant,
    ttft: Duration,
    n_tokens: u32,
    expiry: Option<Pin<Box<Sleep>>>,
    closing: Closing,
    /// Done when the edge closes and waits for nobody any more. Made when it is first waited for: most events are there at once.
    closed: Option<BoxFuture<'static, ()>>,
    /// The whole request, where it is traced. Ends with the answer, whoever reads it.
    part: Part,
}

// === impl Deadline ===

impl Deadline {
    pub(crate) fn new(received: Instant, timeout: Duration) -> Self {
        let margin = MARGIN.min(timeout / SHORT);
        Self { inner: received + timeout.saturating_sub(2 * margin), edge: received + timeout.saturating_sub(margin) }
    }
}

// === impl Answering ===

impl Answering {
    /// An answer whose first event is there now.
    pub(crate) fn new(
        (id, model): (RequestId, ModelName),
        answer: Routed,
        received: Instant,
        deadline: Option<Deadline>,
        closing: Closing,
    ) -> Self {
        Self {
            id,
            model,
            node: answer.node,
            route: answer.route,
            tier: answer.tier,
            journal: None,
            events: Some(answer.events),
            received,
            ttft: received.elapsed(),
            n_tokens: 0,
            expiry: deadline.map(|deadline| Box::pin(sleep_until(deadline.edge))),
            closing,
            closed: None,
            part: Part::default(),
        }
    }

    /// The same, as a part of a trace.
    pub(crate) fn traced(mut self, part: Part) -> Self {
        part.record("llambo.node.id", self.node.as_str());
        self.part = part;
        self
    }

    /// How long it took, up to now.
    pub(crate) fn timing(&self) -> Timing {
        let tier = self.tier.as_deref().map(route::tier);
        Timing { ttft_ms: ms(self.ttft), total_ms: ms(self.received.elapsed()), tier }
    }

    fn fail(&mut self, error: InferenceError) -> Poll<Option<Result<AnswerEvent, DispatchError>>> {
        self.events = None;
        let trace_id = trace::id(&self.part);
        self.part.failed(error.reason());
        self.part.end();
        let (request_id, node) = (&self.id, &self.node);
        if error.fault() == Fault::Node {
            tracing::warn!(%request_id, trace_id, node_id = %node, n_generated = self.n_tokens, %error, "an answer broke off");
        } else {
            tracing::debug!(%request_id, trace_id, node_id = %node, n_generated = self.n_tokens, %error, "an answer ended early");
        }
        Poll::Ready(Some(Err(error.into())))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if self.events.is_some() {
            // its client went away, or took nothing for too long
            self.part.failed("CANCELLED");
        }
    }
}

impl Stream for Answering {
    type Item = Result<AnswerEvent, DispatchError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(events) = &mut self.events else { return Poll::Ready(None) };
        let Poll::Ready(event) = events.as_mut().poll_next(cx) else {
            let this = &mut *self;
            let wait = || closed(this.closing.clone()).boxed();
            if this.closed.get_or_insert_with(wait).as_mut().poll(cx).is_ready() {
                this.part.failed(DispatchError::Draining.reason());
                tracing::warn!(request_id = %this.id, trace_id = trace::id(&this.part), node_id = %this.node, "an answer was cut off by the host's end");
                this.events = None;
                return Poll::Ready(Some(Err(DispatchError::Draining)));
            }
            if let Some(expiry) = &mut self.expiry {
                ready!(expiry.as_mut().poll(cx));
                let n_generated = self.n_tokens;
                return self.fail(InferenceError::DeadlineExceeded { n_generated });
            }
            return Poll::Pending;
        };
        match event {
            Some(Ok(event)) => {
                match &event {
                    AnswerEvent::Piece { n_tokens, .. } => self.n_tokens = self.n_tokens.saturating_add(*n_tokens),
                    AnswerEvent::Finished(finished) => {
                        let request_id = &self.id;
                        tracing::debug!(
                            %request_id, trace_id = trace::id(&self.part), node_id = %self.node, n_prompt = finished.usage.input_tokens,
                            n_generated = finished.usage.output_tokens, ttft_ms = ms(self.ttft), "answered"
                        );
                        let ttft_ms = ms(self.ttft);
                        trace::finished(&mut self.part, finished, ttft_ms);
                        self.events = None;
                    }
                }
                Poll::Ready(Some(Ok(event)))
            }
            Some(Err(error)) => self.fail(error),
            None => self.fail(InferenceError::Backend("the answer broke off without an end".into())),
        }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};

    use super::*;

    /// Of an edge that never closes: its sender is not dropped.
    fn open() -> Closing {
        let (never, closing) = tokio::sync::watch::channel(false);
        std::mem::forget(never);
        closing
    }

    fn answering(events: AnswerStream, timeout: Option<Duration>) -> Answering {
        let now = Instant::now();
        Answering::new(
            ("r".into(), "m".into()),
            Routed { node: "n".into(), events, route: None, tier: None },
            now,
            timeout.map(|t| Deadline::new(now, t)),
            open(),
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
        let told: Vec<_> = answering(events, Some(Duration::from_secs(2))).collect().await;
        assert_eq!(told.len(), 2, "the piece and the end");
        assert_eq!(told[1], Err(InferenceError::DeadlineExceeded { n_generated: 3 }.into()));
    }

    #[tokio::test]
    async fn an_answer_that_the_edge_does_not_wait_for_says_why() {
        let (close, closing) = tokio::sync::watch::channel(false);
        let piece = Ok(AnswerEvent::Piece { text: "a".into(), n_tokens: 1 });
        let mut answering = answering(stream::iter([piece]).chain(stream::pending()).boxed(), None);
        answering.closing = closing;
        assert!(answering.next().await.unwrap().is_ok());
        close.send_replace(true);
        assert_eq!(answering.next().await, Some(Err(DispatchError::Draining)));
        assert!(answering.next().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_without_an_end_is_an_error_not_an_answer() {
        let told: Vec<_> = answering(stream::empty().boxed(), None).collect().await;
        assert_eq!(told[0].as_ref().unwrap_err().reason(), "BACKEND_FAILED");
        assert_eq!(told.len(), 1);
    }
}

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::Stream;
use llambo_proto::v1;
use tokio::time::Sleep;
use tonic::Streaming;

use crate::Error;

/// What the host gets beyond the caller's own timeout, so that its account of what happened can still arrive.
const GRACE: Duration = Duration::from_millis(500);

/// One message of an answer. The first is `Started`, the last is `Finished`.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one event is held at a time; boxing the first would burden everybody who matches")]
pub enum Event {
    /// A node took the request.
    Started(v1::Started),
    /// More text; whole UTF-8, never taken back.
    Piece(v1::Piece),
    /// The end, and what it cost.
    Finished(v1::Finished),
}

/// An answer as it is generated. Ends after `Finished` or after one error; dropping it cancels the request on the host.
#[must_use = "dropping a generation cancels it"]
pub struct Generation {
    messages: Streaming<v1::GenerateResponse>,
    address: String,
    limit: Option<Pin<Box<Sleep>>>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// `Finished` came; the host's own end is still taken, or it would count the call as cancelled.
    Finished,
    Over,
}

impl Generation {
    pub(crate) fn new(messages: Streaming<v1::GenerateResponse>, address: String, timeout: Option<Duration>) -> Self {
        let limit = timeout.map(|timeout| Box::pin(tokio::time::sleep(timeout.saturating_add(GRACE))));
        Self { messages, address, limit, state: State::Open }
    }

    fn end(&mut self, error: Error) -> Poll<Option<Result<Event, Error>>> {
        self.state = State::Over;
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for Generation {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.state {
            State::Over => return Poll::Ready(None),
            State::Finished => {
                let _ = ready!(Pin::new(&mut self.messages).poll_next(cx));
                self.state = State::Over;
                return Poll::Ready(None);
            }
            State::Open => {}
        }
        if let Some(limit) = &mut self.limit
            && limit.as_mut().poll(cx).is_ready()
        {
            return self.end(Error::timed_out());
        }
        loop {
            let message = match ready!(Pin::new(&mut self.messages).poll_next(cx)) {
                Some(Ok(message)) => message,
                Some(Err(status)) => {
                    let error = Error::of(&status, &self.address);
                    return self.end(error);
                }
                None => {
                    let address = self.address.clone();
                    return self.end(Error::Lost { address, why: "the answer broke off before it was finished".into() });
                }
            };
            let event = match message.event {
                Some(v1::generate_response::Event::Started(started)) => Event::Started(started),
                Some(v1::generate_response::Event::Piece(piece)) => Event::Piece(piece),
                Some(v1::generate_response::Event::Finished(finished)) => {
                    self.state = State::Finished;
                    Event::Finished(finished)
                }
                // a kind of event that a newer host knows and this client does not
                None => continue,
            };
            return Poll::Ready(Some(Ok(event)));
        }
    }
}

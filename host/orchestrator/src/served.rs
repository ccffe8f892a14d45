//! An answer on its way, with everything that must end when it does.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, Stream, future::BoxFuture};
use llambo_inference::{AnswerEvent, AnswerStream, InferenceError};
use tokio::time::{Sleep, sleep, sleep_until};

use crate::{
    course::{Course, Leg, silence},
    error::DispatchError,
    lease::Lease,
    record::Record,
    told::Told,
};

type Event = Result<AnswerEvent, InferenceError>;

/// A node's events with exactly one end, whatever the node does; where it fails in the middle, another node's from there on. Dropping it cancels the
/// generation and frees the node.
pub(crate) struct Served {
    stage: Stage,
    /// Comes first.
    pending: Option<Event>,
    told: Told,
    /// Tokens that were told when it last changed nodes.
    n_told_before: u32,
    deadline: Option<Pin<Box<Sleep>>>,
    /// How long its node may say nothing, and when that will have been.
    stall_timeout: Option<Duration>,
    silence: Option<Pin<Box<Sleep>>>,
}

enum Stage {
    Running(Box<Running>),
    Moving(BoxFuture<'static, Moved>),
    /// The end was told.
    Ended,
}

struct Running {
    // dropped in this order: the node must be free before its place is given to the next
    events: AnswerStream,
    course: Box<Course>,
    record: Record,
    lease: Lease,
}

/// What came of going to another node, and why it went.
struct Moved {
    course: Box<Course>,
    record: Record,
    leg: Result<Leg, DispatchError>,
    broken: InferenceError,
}

// === impl Served ===

impl Served {
    pub(crate) fn new(course: Box<Course>, leg: Leg, record: Record) -> Self {
        let deadline = course.deadline().map(|at| Box::pin(sleep_until(at)));
        let (told, stall_timeout) = (Told::default(), course.stall_timeout());
        let mut served =
            Self { stage: Stage::Ended, pending: None, told, n_told_before: 0, deadline, stall_timeout, silence: None };
        served.pending = served.run(course, leg, record);
        served
    }

    /// From here on this node's answer is told, which has begun: what is told of that.
    fn run(&mut self, course: Box<Course>, leg: Leg, record: Record) -> Option<Event> {
        let Leg { first, events, lease, .. } = leg;
        self.stage = Stage::Running(Box::new(Running { events, course, record, lease }));
        self.take(Ok(first))
    }

    /// An event of the node: what is told of it, if anything.
    fn take(&mut self, event: Event) -> Option<Event> {
        let Stage::Running(running) = &mut self.stage else { return None };
        match event {
            Ok(AnswerEvent::Piece { text, n_tokens }) => match self.told.piece(text, n_tokens) {
                Ok(Some((text, n_tokens))) if !text.is_empty() => {
                    running.record.generated(n_tokens);
                    Some(Ok(AnswerEvent::Piece { text, n_tokens }))
                }
                Ok(_) => None,
                Err(_) => Some(self.differs()),
            },
            Ok(AnswerEvent::Finished(finished)) => match self.told.end() {
                Ok(()) => {
                    running.record.finished(&finished);
                    running.lease.mark_finished();
                    self.stage = Stage::Ended;
                    Some(Ok(AnswerEvent::Finished(finished)))
                }
                Err(_) => Some(self.differs()),
            },
            Err(error) => {
                let got_on = self.told.n_tokens() > self.n_told_before;
                if !running.course.may_go_on(&error, got_on) {
                    return Some(self.fail(error));
                }
                self.move_on(error);
                None
            }
        }
    }

    /// Goes on with another node.
    fn move_on(&mut self, broken: InferenceError) {
        let Stage::Running(running) = std::mem::replace(&mut self.stage, Stage::Ended) else { return };
        let Running { events, mut course, mut record, lease, .. } = *running;
        drop(events);
        self.told.begin_again();
        self.n_told_before = self.told.n_tokens();
        let moving = async move {
            let leg = course.go_on(lease, broken.clone(), &mut record).await;
            Moved { course, record, leg, broken }
        };
        self.stage = Stage::Moving(moving.boxed());
    }

    /// Another node, or the end.
    fn arrive(&mut self, moved: Moved) -> Option<Event> {
        let Moved { course, mut record, leg, broken } = moved;
        match leg {
            Ok(leg) => self.run(course, leg, record),
            Err(error) => {
                let error = match error {
                    DispatchError::Inference(InferenceError::DeadlineExceeded { .. }) => {
                        InferenceError::DeadlineExceeded { n_generated: self.told.n_tokens() }
                    }
                    DispatchError::Inference(error) => error,
                    // why it needed another node says more than why there is none
                    _ => broken,
                };
                record.failed(&error);
                self.stage = Stage::Ended;
                Some(Err(error))
            }
        }
    }

    fn differs(&mut self) -> Event {
        let n_told = self.told.n_tokens();
        let detail = format!("its node was lost after {n_told} tokens, and another one's answer differs from what was sent");
        self.fail(InferenceError::Guest { reason: "NOT_RESUMABLE", detail })
    }

    /// The end, by an error; all that belongs to the answer goes.
    fn fail(&mut self, error: InferenceError) -> Event {
        if let Stage::Running(running) = &mut self.stage {
            running.record.failed(&error);
            running.lease.mark_failed(&error);
        }
        self.stage = Stage::Ended;
        Err(error)
    }
}

impl Stream for Served {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if let Some(event) = self.pending.take() {
            return Poll::Ready(Some(event));
        }
        loop {
            let told = match &mut self.stage {
                Stage::Ended => return Poll::Ready(None),
                Stage::Moving(moving) => {
                    // its deadline is looked at wherever it waits
                    let moved = ready!(moving.as_mut().poll(cx));
                    self.arrive(moved)
                }
                Stage::Running(_) => {
                    if self.is_late(cx) {
                        let n_generated = self.told.n_tokens();
                        return Poll::Ready(Some(self.fail(InferenceError::DeadlineExceeded { n_generated })));
                    }
                    let event = ready!(self.next_event(cx));
                    self.take(event)
                }
            };
            if told.is_some() {
                return Poll::Ready(told);
            }
        }
    }
}

impl Served {
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready())
    }

    fn next_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let Stage::Running(running) = &mut self.stage else { return Poll::Pending };
        let Poll::Ready(event) = running.events.as_mut().poll_next(cx) else {
            let Some(timeout) = self.stall_timeout else { return Poll::Pending };
            ready!(self.silence.get_or_insert_with(|| Box::pin(sleep(timeout))).as_mut().poll(cx));
            self.silence = None;
            return Poll::Ready(Err(silence(&running.lease)));
        };
        self.silence = None;
        Poll::Ready(event.unwrap_or_else(|| Err(InferenceError::Stopped(running.lease.node_id().to_string()))))
    }
}

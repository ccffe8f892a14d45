use std::sync::Arc;

use futures::StreamExt;
use llambo_inference::{Answer, AnswerEvent, AnswerStream, GenerateRequest, InferenceError};
use llambo_strategy::RequestView;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    admission::{Admitted, Call, Place, Wanted},
    error::DispatchError,
    lease::Lease,
    queue::Ticket,
    record::Record,
    registry::{NodeKey, ScopeId},
    served::Served,
    shared::Shared,
};

/// The one door: brings a request to a node and its tokens back. Clones are the same door.
#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

/// Someone in the queue. Dropping it leaves; a lease that was on its way goes back and to the next.
struct Waiting {
    shared: Arc<Shared>,
    scope: ScopeId,
    ticket: Ticket,
    call: oneshot::Receiver<Call>,
}

impl Dispatcher {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Finds a node, waiting for one if all are busy, and starts the generation on it. Returns with the first event, which
    /// the answer's stream repeats.
    ///
    /// Until then a node that fails is replaced by another, up to [`crate::Settings::attempts`] in all; afterwards nothing
    /// is tried again. The stream has exactly one end: [`AnswerEvent::Finished`] or one error, and `None` follows. The
    /// request's deadline ends it wherever it is. The node counts the request until the stream has told its end or is
    /// dropped.
    ///
    /// Dropping the future or the stream cancels the request and everything behind it. Runs within a tokio runtime.
    ///
    /// # Errors
    /// Before a node was found: [`DispatchError::QueueFull`], [`DispatchError::WaitExpired`], [`DispatchError::NoNode`],
    /// [`DispatchError::Draining`], [`DispatchError::UnknownType`], [`DispatchError::WrongModel`]. Otherwise what the last
    /// node said, or that the deadline passed, as [`DispatchError::Inference`].
    pub async fn dispatch(&self, request: GenerateRequest) -> Result<Answer, DispatchError> {
        let mut record = Record::open(&self.shared, &request);
        let deadline = request.deadline.map(Instant::from_std);
        match self.start(request, deadline, &mut record).await {
            Ok((first, events, lease)) => {
                let node = lease.node_id().clone();
                let served = Served::new(first, events, deadline, record, lease);
                Ok(Answer { node, events: Box::pin(served) })
            }
            Err(error) => {
                record.refused(&error);
                Err(error)
            }
        }
    }

    /// Takes a free node without waiting and without sending it anything; `None` when there is none. It counts as one
    /// request in flight until the lease is dropped, and as no request served.
    pub fn try_lease(&self, request: &RequestView<'_>) -> Option<Lease> {
        let pick = self.shared.lock().try_take(&Wanted::of_view(request))?;
        Some(Lease::new(&self.shared, pick))
    }

    async fn start(
        &self,
        request: GenerateRequest,
        deadline: Option<Instant>,
        record: &mut Record,
    ) -> Result<(AnswerEvent, AnswerStream, Lease), DispatchError> {
        if deadline.is_some_and(|at| at <= Instant::now()) {
            return Err(InferenceError::DeadlineExceeded { n_generated: 0 }.into());
        }
        let wanted = Wanted::by(&request);
        let (ticket, admitted) = self.shared.lock().admit(&wanted, Instant::now())?;
        let mut lease = self.enter(admitted, deadline, &wanted).await?;
        let mut failed = Vec::new();
        loop {
            record.assigned(lease.node_id());
            let error = match first_event(&mut lease, request.clone(), deadline).await {
                Ok((first, events)) => return Ok((first, events, lease)),
                Err(error) => error,
            };
            lease.mark_failed(&error);
            failed.push(lease.key());
            if !error.may_be_tried_again() || failed.len() >= self.shared.settings.attempts as usize {
                return Err(error.into());
            }
            tracing::debug!(request_id = %request.id, node_id = %lease.node_id(), %error, "node failed before its first token");
            let Some(admitted) = self.exchange(lease, &wanted, ticket, &failed) else { return Err(error.into()) };
            record.redispatched();
            lease = match self.enter(admitted, deadline, &wanted).await {
                Ok(lease) => lease,
                Err(late @ DispatchError::Inference(_)) => return Err(late),
                // it had a node: that this one failed says more than that no other came free
                Err(_) => return Err(error.into()),
            };
        }
    }

    /// Gives a failed lease for another node, in one step, so that nobody is sent to the failed one in between.
    fn exchange(&self, lease: Lease, wanted: &Wanted, ticket: Ticket, failed: &[NodeKey]) -> Option<Admitted> {
        let report = lease.into_report();
        let (admitted, effects) = self.shared.lock().redispatch(report, (wanted, ticket), failed, Instant::now());
        self.shared.apply(effects);
        admitted
    }

    async fn enter(&self, admitted: Admitted, deadline: Option<Instant>, wanted: &Wanted) -> Result<Lease, DispatchError> {
        let place = match admitted {
            Admitted::Now(pick) => return Ok(Lease::new(&self.shared, pick)),
            Admitted::Later(place) => place,
        };
        let mut waiting = Waiting::new(&self.shared, place);
        let since = Instant::now();
        let patience = since.checked_add(self.shared.settings.max_wait);
        let until = [deadline, patience].into_iter().flatten().min();
        let call = match until {
            Some(until) => timeout_at(until, &mut waiting.call).await,
            None => Ok((&mut waiting.call).await),
        };
        match call {
            Ok(Ok(Some(lease))) => Ok(lease),
            Ok(_) => Err(wanted.no_node()),
            Err(_) if deadline.is_some() && until == deadline => Err(InferenceError::DeadlineExceeded { n_generated: 0 }.into()),
            Err(_) => {
                drop(waiting);
                let now = Instant::now();
                let retry_after = self.shared.lock().retry_after(now);
                Err(DispatchError::WaitExpired { waited: now.saturating_duration_since(since), retry_after })
            }
        }
    }
}

async fn first_event(
    lease: &mut Lease,
    request: GenerateRequest,
    deadline: Option<Instant>,
) -> Result<(AnswerEvent, AnswerStream), InferenceError> {
    lease.mark_used();
    let asked = Instant::now();
    let start = async {
        let mut events = lease.node().generate(request).await?;
        match events.next().await {
            Some(first) => Ok((first?, events)),
            None => Err(InferenceError::Stopped(lease.node_id().to_string())),
        }
    };
    let started = match deadline {
        Some(at) => timeout_at(at, start).await.unwrap_or(Err(InferenceError::DeadlineExceeded { n_generated: 0 })),
        None => start.await,
    };
    if let Ok((AnswerEvent::Piece { .. }, _)) = &started {
        lease.first_token_after(asked.elapsed());
    }
    started
}

// === impl Waiting ===

impl Waiting {
    fn new(shared: &Arc<Shared>, place: Place) -> Self {
        Self { shared: Arc::clone(shared), scope: place.scope, ticket: place.ticket, call: place.call }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let effects = self.shared.lock().leave(self.scope, self.ticket);
        self.shared.apply(effects);
    }
}

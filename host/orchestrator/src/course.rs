//! A request on its way: to a node, and from one that fails it to another, before its first token or in the middle of its answer.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use llambo_inference::{AnswerEvent, AnswerStream, GenerateRequest, InferenceError};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    admission::{Admitted, Call, Effects, Gone, Place},
    error::DispatchError,
    guide::Guide,
    lease::Lease,
    queue::Ticket,
    record::Record,
    registry::{NodeKey, ScopeId},
    route::Route,
    shared::Shared,
    tiers::TierNote,
    wanted::Wanted,
};

/// All that is needed to send a request to one more node.
pub(crate) struct Course {
    shared: Arc<Shared>,
    request: Box<GenerateRequest>,
    deadline: Option<Instant>,
    guide: Guide,
    wanted: Wanted,
    ticket: Ticket,
    /// What is told of the tier that serves it, where that is told, from its first node on.
    tier: Option<Arc<TierNote>>,
    /// Nodes that failed it, since it last got on.
    failed: Vec<NodeKey>,
}

/// A node's answer, whose first event is there.
pub(crate) struct Leg {
    pub(crate) first: AnswerEvent,
    pub(crate) events: AnswerStream,
    pub(crate) lease: Lease,
    pub(crate) route: Option<Box<Route>>,
    pub(crate) tier: Option<Arc<TierNote>>,
}

/// Someone in the queue. Dropping it leaves; a lease that was on its way goes back and to the next.
struct Waiting {
    shared: Arc<Shared>,
    scope: ScopeId,
    ticket: Ticket,
    call: oneshot::Receiver<Call>,
}

// === impl Course ===

impl Course {
    /// Finds a node, waiting for one if all are busy, and starts the generation on it.
    pub(crate) async fn begin(
        shared: &Arc<Shared>,
        mut request: Box<GenerateRequest>,
        record: &mut Record,
    ) -> Result<(Box<Self>, Leg), DispatchError> {
        let deadline = request.deadline.map(Instant::from_std);
        if deadline.is_some_and(|at| at <= Instant::now()) {
            return Err(InferenceError::DeadlineExceeded { n_generated: 0 }.into());
        }
        shared.retries.earn();
        let mut guide = Guide::new(shared, &request);
        let mut wanted = guide.wanted(&request);
        let now = Instant::now();
        record.hold(shared.quotas.open(&request.share.tenant, now)?);
        wanted.max_waiting = shared.quotas.max_waiting(&request.share.tenant);
        record.let_in(guide.let_in(&mut wanted)?);
        let mut effects = Effects::default();
        let admitted = shared.lock().admit(&wanted, now, &mut effects);
        shared.apply(effects);
        let (ticket, admitted) = admitted?;
        request.journal.get_or_insert_default();
        let shared = Arc::clone(shared);
        let mut course = Box::new(Self { shared, request, deadline, guide, wanted, ticket, tier: None, failed: Vec::new() });
        let lease = course.enter(admitted).await?;
        let leg = course.ask(lease, record).await?;
        Ok((course, leg))
    }

    /// How long a node may say nothing.
    pub(crate) fn stall_timeout(&self) -> Option<Duration> {
        self.shared.settings.stall_timeout
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether it may go on elsewhere after this error. `got_on`: the node that failed it had said more than the ones before.
    pub(crate) fn may_go_on(&mut self, error: &InferenceError, got_on: bool) -> bool {
        if got_on {
            self.failed.clear();
        }
        error.may_be_tried_again() && self.failed.len() + 1 < self.shared.settings.attempts as usize
    }

    /// Another node's answer, from its beginning, for one that broke off.
    pub(crate) async fn go_on(&mut self, lease: Lease, error: InferenceError, record: &mut Record) -> Result<Leg, DispatchError> {
        let lease = self.another(lease, error, record).await?;
        self.ask(lease, record).await
    }

    async fn ask(&mut self, mut lease: Lease, record: &mut Record) -> Result<Leg, DispatchError> {
        loop {
            let settled;
            (lease, settled) = self.guide.settle(lease, &self.wanted, &self.failed);
            record.assigned(lease.node_id(), settled.number);
            let mut asked = self.request.clone();
            asked.routing.trace = record.observed.trace();
            match first_event(&self.shared, &mut lease, asked, self.deadline).await {
                Ok((first, events)) => {
                    let tier = self.served_by(&lease);
                    record.served_by(tier.as_deref());
                    return Ok(Leg { first, events, lease, route: settled.route, tier });
                }
                Err(error) => {
                    let (request_id, node_id) = (&self.request.id, lease.node_id());
                    tracing::debug!(%request_id, %node_id, %error, "node failed before its first token");
                    lease = self.another(lease, error, record).await?;
                }
            }
        }
    }

    /// Notes which node goes on with it.
    fn served_by(&mut self, lease: &Lease) -> Option<Arc<TierNote>> {
        match &self.tier {
            Some(tier) => tier.goes_on(lease.node_id(), lease.tier()),
            None => self.tier = self.guide.tier_note(&self.wanted, lease),
        }
        self.tier.clone()
    }

    /// A place on another node for one that failed with `error`; which is the answer where there is none.
    async fn another(&mut self, mut lease: Lease, error: InferenceError, record: &mut Record) -> Result<Lease, DispatchError> {
        lease.mark_failed(&error);
        record.observed.node_failed(error.reason());
        self.guide.failed(&lease);
        let may = self.may_go_on(&error, false);
        self.failed.push(lease.key());
        if !may {
            return Err(error.into());
        }
        if !self.shared.retries.spend(Instant::now()) {
            metrics::counter!("llambo_orchestrator_retries_refused_total").increment(1);
            return Err(error.into());
        }
        let Some(admitted) = self.exchange(lease) else { return Err(error.into()) };
        record.redispatched();
        match self.enter(admitted).await {
            Ok(lease) => Ok(lease),
            Err(late @ DispatchError::Inference(_)) => Err(late),
            // it had a node: that this one failed says more than that no other came free
            Err(_) => Err(error.into()),
        }
    }

    /// Gives a failed lease for another node, in one step, so that nobody is sent to the failed one in between.
    fn exchange(&self, lease: Lease) -> Option<Admitted> {
        let (report, wanted) = (lease.into_report(), (&self.wanted, self.ticket));
        let (admitted, effects) = self.shared.lock().redispatch(report, wanted, &self.failed, Instant::now());
        self.shared.apply(effects);
        admitted
    }

    async fn enter(&self, admitted: Admitted) -> Result<Lease, DispatchError> {
        let place = match admitted {
            Admitted::Now(pick) => return Ok(Lease::new(&self.shared, pick)),
            Admitted::Later(place) => place,
        };
        let mut waiting = Waiting::new(&self.shared, place);
        let since = Instant::now();
        let patience = since.checked_add(self.shared.settings.max_wait);
        let until = [self.deadline, patience].into_iter().flatten().min();
        let call = match until {
            Some(until) => timeout_at(until, &mut waiting.call).await,
            None => Ok((&mut waiting.call).await),
        };
        match call {
            Ok(Ok(Ok(lease))) => Ok(lease),
            Ok(Ok(Err(Gone::Displaced))) => Err(self.shared.displaced(Instant::now())),
            Ok(_) => Err(self.wanted.no_node()),
            Err(_) if self.deadline.is_some() && until == self.deadline => {
                Err(InferenceError::DeadlineExceeded { n_generated: 0 }.into())
            }
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
    shared: &Shared,
    lease: &mut Lease,
    request: Box<GenerateRequest>,
    deadline: Option<Instant>,
) -> Result<(AnswerEvent, AnswerStream), InferenceError> {
    lease.mark_used();
    let asked = Instant::now();
    let start = async {
        let events = lease.node().generate(*request).await?;
        let node_type = || shared.lock().registry.entry(lease.key()).map(|entry| entry.node_type.clone());
        let mut events = shared.faults.befall(lease.node_id(), node_type, events);
        match events.next().await {
            Some(first) => Ok((first?, events)),
            None => Err(InferenceError::Stopped(lease.node_id().to_string())),
        }
    };
    let silent = shared.settings.stall_timeout.and_then(|timeout| asked.checked_add(timeout));
    let until = [deadline, silent].into_iter().flatten().min();
    let started = match until {
        Some(at) => timeout_at(at, start).await.unwrap_or_else(|_| {
            let is_late = deadline.is_some() && until == deadline;
            Err(if is_late { InferenceError::DeadlineExceeded { n_generated: 0 } } else { silence(lease) })
        }),
        None => start.await,
    };
    if let Ok((AnswerEvent::Piece { .. }, _)) = &started {
        lease.first_token_after(asked.elapsed());
    }
    started
}

/// A node that says nothing for so long is as good as gone.
pub(crate) fn silence(lease: &Lease) -> InferenceError {
    tracing::warn!(node_id = %lease.node_id(), "a node has said nothing for as long as `balancing.stall-timeout`");
    InferenceError::Stopped(lease.node_id().to_string())
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

//! Who goes in now, who waits, who is next: nodes, queue, limits and strategy as one pure state machine.
//!
//! After every step either as many requests are in flight as may, or nobody waits whom a free node could serve. So a new
//! request that finds a free node overtakes no one. What must happen outside the lock is returned as [`Effects`].

use std::{sync::Arc, time::Duration};

use llambo_inference::{GenerateRequest, ModelName, Node, NodeId, NodeState, NodeView, TypeName};
use llambo_strategy::RequestView;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    balance::Balance,
    error::DispatchError,
    lease::Lease,
    queue::{DrainRate, Queue, Ticket},
    registry::{Entry, NodeKey, Registry, ScopeId},
};

/// Weight of the newest value in a node's time to first token: about the last ten requests count.
const TTFT_ALPHA: f32 = 0.2;

pub(crate) struct Admission {
    pub(crate) registry: Registry,
    pub(crate) balance: Balance,
    queue: Queue<Waiter>,
    rate: DrainRate,
    in_flight: usize,
    max_in_flight: usize,
    max_waiting: usize,
    draining: bool,
}

/// What a choice may know of a request, for as long as it waits.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    model: ModelName,
    node_type: Option<TypeName>,
    n_prompt_bytes: usize,
}

struct Waiter {
    wanted: Wanted,
    /// Nodes that failed this request.
    avoid: Vec<NodeKey>,
    call: oneshot::Sender<Call>,
}

/// What ends a wait: a lease, or `None` when no node that could serve the request is left.
pub(crate) type Call = Option<Lease>;

/// A node that was taken for a request; its lease is made outside the lock.
pub(crate) struct Pick {
    pub(crate) key: NodeKey,
    pub(crate) node: Arc<dyn Node>,
    pub(crate) id: NodeId,
    pub(crate) choice: Duration,
}

pub(crate) enum Admitted {
    Now(Pick),
    Later(Place),
}

/// A place in the queue.
pub(crate) struct Place {
    pub(crate) scope: ScopeId,
    pub(crate) ticket: Ticket,
    pub(crate) call: oneshot::Receiver<Call>,
}

/// How a request left its node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    /// Whether the node was asked at all.
    pub(crate) used: bool,
    pub(crate) ttft_us: Option<f32>,
    /// What the node says of itself after an error.
    pub(crate) observed: Option<NodeState>,
}

/// What must happen once the lock is released.
#[derive(Default)]
#[must_use = "waiters are called and nodes stopped by `Shared::apply`"]
pub(crate) struct Effects {
    pub(crate) calls: Vec<(oneshot::Sender<Call>, Option<Pick>)>,
    pub(crate) stop: Vec<Arc<dyn Node>>,
    /// Nothing is in flight and nobody waits.
    pub(crate) idle: bool,
}

// === impl Wanted ===

impl Wanted {
    pub(crate) fn by(request: &GenerateRequest) -> Self {
        Self { model: request.model.clone(), node_type: request.node_type.clone(), n_prompt_bytes: request.prompt.n_bytes() }
    }

    pub(crate) fn of_view(view: &RequestView<'_>) -> Self {
        Self { model: view.model.clone(), node_type: view.node_type.cloned(), n_prompt_bytes: view.n_prompt_bytes }
    }

    fn view(&self) -> RequestView<'_> {
        RequestView { model: &self.model, node_type: self.node_type.as_ref(), n_prompt_bytes: self.n_prompt_bytes }
    }

    pub(crate) fn no_node(&self) -> DispatchError {
        DispatchError::NoNode { model: self.model.clone(), node_type: self.node_type.clone() }
    }
}

// === impl Admission ===

impl Admission {
    pub(crate) fn new(balance: Balance, max_in_flight: usize, max_waiting: usize) -> Self {
        Self {
            registry: Registry::default(),
            balance,
            queue: Queue::default(),
            rate: DrainRate::default(),
            in_flight: 0,
            max_in_flight,
            max_waiting,
            draining: false,
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.queue.len() == 0
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining
    }

    pub(crate) fn start_drain(&mut self) {
        self.draining = true;
    }

    pub(crate) fn retry_after(&self, now: Instant) -> Duration {
        self.rate.retry_after(self.queue.len(), now)
    }

    /// A node at once, a place in the queue, or why neither.
    pub(crate) fn admit(&mut self, wanted: &Wanted, now: Instant) -> Result<(Ticket, Admitted), DispatchError> {
        let scope = self.enter(wanted)?;
        let ticket = self.queue.ticket();
        if let Some(pick) = self.take(scope, &[], wanted) {
            return Ok((ticket, Admitted::Now(pick)));
        }
        let waiting = self.queue.len();
        if waiting >= self.max_waiting {
            return Err(DispatchError::QueueFull { waiting, limit: self.max_waiting, retry_after: self.retry_after(now) });
        }
        Ok((ticket, Admitted::Later(self.wait(scope, ticket, wanted.clone(), Vec::new()))))
    }

    /// A node at once, or nothing.
    pub(crate) fn try_take(&mut self, wanted: &Wanted) -> Option<Pick> {
        let scope = self.enter(wanted).ok()?;
        self.take(scope, &[], wanted)
    }

    /// Gives back a node that failed a request and takes another for it, or a place in the queue by its old ticket. `None`
    /// when there is no other. `failed` must be the last of `avoid`.
    pub(crate) fn redispatch(
        &mut self,
        (failed, report): (NodeKey, Report),
        (wanted, ticket): (&Wanted, Ticket),
        avoid: &[NodeKey],
        now: Instant,
    ) -> (Option<Admitted>, Effects) {
        let mut effects = Effects::default();
        self.give_back(failed, report, now, &mut effects);
        let admitted = match self.registry.resolve(&wanted.model, wanted.node_type.as_ref()) {
            Ok(scope) if self.registry.has_others(scope, avoid) => Some(
                self.take(scope, avoid, wanted)
                    .map_or_else(|| Admitted::Later(self.wait(scope, ticket, wanted.clone(), avoid.to_vec())), Admitted::Now),
            ),
            _ => None,
        };
        self.call_waiters(&mut effects);
        (admitted, effects)
    }

    /// A request has left its node.
    pub(crate) fn release(&mut self, key: NodeKey, report: Report, now: Instant) -> Effects {
        let mut effects = Effects::default();
        self.give_back(key, report, now, &mut effects);
        self.call_waiters(&mut effects);
        effects
    }

    /// A waiter gave up. If it was called already, its lease comes back by itself.
    pub(crate) fn leave(&mut self, scope: ScopeId, ticket: Ticket) -> Effects {
        self.queue.remove(scope, ticket);
        Effects { idle: self.is_idle(), ..Effects::default() }
    }

    /// Takes a node in, unless its id is taken.
    pub(crate) fn add(&mut self, node: Arc<dyn Node>, view: NodeView) -> Result<Effects, Arc<dyn Node>> {
        let mut effects = Effects::default();
        let Some(key) = self.registry.add(Arc::clone(&node), view) else { return Err(node) };
        self.change(key, &mut effects, |_| {});
        self.call_waiters(&mut effects);
        Ok(effects)
    }

    /// Takes nodes out of service: at once those that are idle, the others when they are. Answers how many of them took
    /// requests before.
    pub(crate) fn drain(&mut self, keys: &[NodeKey], effects: &mut Effects) -> u32 {
        let mut drained = 0;
        for &key in keys {
            let Some(entry) = self.registry.entry(key) else { continue };
            drained += u32::from(!entry.draining);
            self.change(key, effects, |entry| entry.draining = true);
        }
        drained
    }

    /// What a node says of itself now.
    pub(crate) fn observe(&mut self, id: &NodeId, observed: NodeState) -> Effects {
        let mut effects = Effects::default();
        if let Some(key) = self.registry.key(id) {
            self.change(key, &mut effects, |entry| entry.observed = observed);
            self.call_waiters(&mut effects);
        }
        effects
    }

    fn enter(&self, wanted: &Wanted) -> Result<ScopeId, DispatchError> {
        if self.draining {
            return Err(DispatchError::Draining);
        }
        let scope = self.registry.resolve(&wanted.model, wanted.node_type.as_ref())?;
        if self.registry.scope(scope).live == 0 {
            return Err(wanted.no_node());
        }
        Ok(scope)
    }

    fn wait(&mut self, scope: ScopeId, ticket: Ticket, wanted: Wanted, avoid: Vec<NodeKey>) -> Place {
        let (sender, call) = oneshot::channel();
        self.queue.push(scope, ticket, Waiter { wanted, avoid, call: sender });
        Place { scope, ticket, call }
    }

    fn take(&mut self, scope: ScopeId, avoid: &[NodeKey], wanted: &Wanted) -> Option<Pick> {
        if self.in_flight >= self.max_in_flight {
            return None;
        }
        let (balance, mut choice) = (&mut self.balance, Duration::ZERO);
        let key = self.registry.choose(scope, avoid, |index| {
            let (slot, took) = balance.choose(index, &wanted.view())?;
            choice = took;
            Some(slot)
        })?;
        self.in_flight += 1;
        // a taken node only ever becomes less available: there is no one to call
        self.change(key, &mut Effects::default(), |entry| {
            entry.in_flight += 1;
            if entry.observed == NodeState::Hibernated {
                entry.observed = NodeState::Ready;
            }
        });
        let entry = self.registry.entry(key)?;
        Some(Pick { key, node: Arc::clone(&entry.node), id: entry.id.clone(), choice })
    }

    fn give_back(&mut self, key: NodeKey, report: Report, now: Instant, effects: &mut Effects) {
        self.in_flight -= 1;
        if report.used {
            self.rate.ended(now);
        }
        let number = self.balance.number();
        self.change(key, effects, |entry| {
            entry.in_flight -= 1;
            if entry.served_under != number {
                (entry.served, entry.served_under) = (0, number);
            }
            entry.served += u64::from(report.used);
            if let Some(ttft_us) = report.ttft_us {
                let before = if entry.ttft_us > 0.0 { entry.ttft_us } else { ttft_us };
                entry.ttft_us = before + TTFT_ALPHA * (ttft_us - before);
            }
            if let Some(observed) = report.observed {
                entry.observed = observed;
            }
        });
    }

    /// Changes a node, removes it if it is idle and will take nothing more, and tells the queue what that means for its scopes.
    fn change(&mut self, key: NodeKey, effects: &mut Effects, change: impl FnOnce(&mut Entry)) {
        let Some(scopes) = self.registry.change(key, change) else { return };
        if self.registry.entry(key).is_some_and(|entry| entry.in_flight == 0 && entry.leaves()) {
            effects.stop.extend(self.registry.remove(key));
        }
        for id in scopes {
            let scope = self.registry.scope(id);
            self.queue.set_servable(id, scope.has_candidates());
            if scope.live == 0 {
                effects.calls.extend(self.queue.clear(id).map(|waiter| (waiter.call, None)));
            }
        }
    }

    /// Gives free nodes to those who wait, in order of arrival, as far as the limit allows.
    fn call_waiters(&mut self, effects: &mut Effects) {
        while self.in_flight < self.max_in_flight {
            let Some((ticket, scope)) = self.next_waiter() else { break };
            let Some(waiter) = self.queue.remove(scope, ticket) else { break };
            let pick = self.take(scope, &waiter.avoid, &waiter.wanted);
            debug_assert!(pick.is_some(), "a scope that can serve a waiter has a candidate");
            effects.calls.push((waiter.call, pick));
        }
        effects.idle = self.is_idle();
    }

    /// The earliest who can be served. Nearly always the first head; only requests that are dispatched again are passed
    /// over, when every node that is free for them has failed them.
    fn next_waiter(&self) -> Option<(Ticket, ScopeId)> {
        let (mut next, mut from) = (None, Ticket::default());
        while let Some((head, scope)) = self.queue.next_servable(from)
            && next.is_none_or(|(ticket, _)| head < ticket)
        {
            let first = self.queue.waiters(scope).find(|(_, waiter)| self.registry.can_serve(scope, &waiter.avoid));
            next = next.into_iter().chain(first.map(|(ticket, _)| (ticket, scope))).min();
            from = head.following();
        }
        next
    }
}

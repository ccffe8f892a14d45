//! Who goes in now, who waits, who is next: nodes, queue, limits and strategy as one pure state machine.
//!
//! After every step either as many requests are in flight as may, or nobody waits whom a free node could serve. So a new
//! request that finds a free node overtakes no one. What must happen outside the lock is returned as [`Effects`].

use std::{sync::Arc, time::Duration};

use llambo_inference::{Node, NodeId, NodeState, NodeView};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    balance::Balance,
    entry::Entry,
    error::DispatchError,
    lease::Lease,
    queue::{DrainRate, Queue, Ticket},
    quota::Quotas,
    registry::{NodeKey, Registry, ScopeId},
    report::Report,
    turns::Turns,
    wanted::Wanted,
};

/// In place of a node's number, where its cache is that of all which share it.
pub(crate) const SHARED: u64 = u64::MAX;

pub(crate) struct Admission {
    pub(crate) registry: Registry,
    pub(crate) balance: Balance,
    queue: Queue<Waiter>,
    turns: Turns,
    pub(crate) rate: DrainRate,
    pub(crate) in_flight: usize,
    max_in_flight: usize,
    max_waiting: usize,
    draining: bool,
}

struct Waiter {
    wanted: Wanted,
    /// Nodes that failed this request.
    avoid: Vec<NodeKey>,
    call: oneshot::Sender<Call>,
}

/// What ends a wait.
pub(crate) type Call = Result<Lease, Gone>;

/// Why a wait ended with nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// No node that could serve the request is left.
    NoNode,
    /// The queue was full, and somebody else's turn to have a place in it.
    Displaced,
}

/// A node that was taken for a request; its lease is made outside the lock.
pub(crate) struct Pick {
    pub(crate) key: NodeKey,
    pub(crate) node: Arc<dyn Node>,
    pub(crate) id: NodeId,
    /// Its number, or that of all that share its cache.
    pub(crate) home: u64,
    pub(crate) choice: Duration,
    pub(crate) tier: u8,
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

/// What must happen once the lock is released.
#[derive(Default)]
#[must_use = "waiters are called and nodes stopped by `Shared::apply`"]
pub(crate) struct Effects {
    pub(crate) calls: Vec<(oneshot::Sender<Call>, Result<Pick, Gone>)>,
    pub(crate) stop: Vec<Arc<dyn Node>>,
    /// Nodes that rest because they failed, and until when.
    pub(crate) rests: Vec<(NodeKey, Instant)>,
    /// Somebody waits for a type that has no nodes.
    pub(crate) wanted: bool,
    /// Nothing is in flight and nobody waits.
    pub(crate) idle: bool,
}

// === impl Admission ===

impl Admission {
    pub(crate) fn new(balance: Balance, max_in_flight: usize, max_waiting: usize) -> Self {
        Self {
            registry: Registry::default(),
            balance,
            queue: Queue::default(),
            turns: Turns::default(),
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

    pub(crate) fn max_waiting(&self) -> usize {
        self.max_waiting
    }

    pub(crate) fn max_in_flight(&self) -> usize {
        self.max_in_flight
    }

    pub(crate) fn n_waiting(&self, scope: ScopeId) -> usize {
        self.queue.n_waiting(scope)
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
    pub(crate) fn admit(
        &mut self,
        wanted: &Wanted,
        now: Instant,
        effects: &mut Effects,
    ) -> Result<(Ticket, Admitted), DispatchError> {
        let scope = self.enter(wanted)?;
        let is_missed = self.registry.miss(scope, wanted);
        let turn = self.turns.turn(&wanted.claim);
        let ticket = self.queue.ticket(wanted.deferred, turn);
        if let Some(pick) = self.take(scope, &[], wanted) {
            self.turns.served(turn);
            return Ok((ticket, Admitted::Now(pick)));
        }
        self.check_room(wanted, now, effects)?;
        effects.wanted |= is_missed;
        Ok((ticket, Admitted::Later(self.wait(scope, ticket, wanted.clone(), Vec::new()))))
    }

    /// Whether one more may wait; somebody who has too many places may have to leave one for it.
    fn check_room(&mut self, wanted: &Wanted, now: Instant, effects: &mut Effects) -> Result<(), DispatchError> {
        let tenant = wanted.tenant();
        if let Some(limit) = wanted.max_waiting
            && self.turns.n_waiting(tenant) >= limit as usize
        {
            return Err(Quotas::too_many_wait(tenant, limit, self.retry_after(now)));
        }
        let waiting = self.queue.len();
        if waiting < self.max_waiting {
            return Ok(());
        }
        let displaced = self.turns.displaced(&wanted.claim).filter(|_| waiting <= self.max_waiting);
        let Some(waiter) = displaced.and_then(|(ticket, scope)| self.take_out(scope, ticket)) else {
            return Err(DispatchError::QueueFull { waiting, limit: self.max_waiting, retry_after: self.retry_after(now) });
        };
        effects.calls.push((waiter.call, Err(Gone::Displaced)));
        Ok(())
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
        let admitted = match self.registry.resolve(wanted) {
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
        self.take_out(scope, ticket);
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

    /// A node has rested.
    pub(crate) fn rested(&mut self, key: NodeKey, now: Instant) -> Effects {
        let mut effects = Effects::default();
        self.change(key, &mut effects, |entry| entry.breaker.close(now));
        self.call_waiters(&mut effects);
        effects
    }

    fn enter(&self, wanted: &Wanted) -> Result<ScopeId, DispatchError> {
        if self.draining {
            return Err(DispatchError::Draining);
        }
        let scope = self.registry.resolve(wanted)?;
        if self.registry.scope(scope).live == 0 && !self.registry.may_wake(scope) {
            return Err(wanted.no_node());
        }
        Ok(scope)
    }

    fn wait(&mut self, scope: ScopeId, ticket: Ticket, wanted: Wanted, avoid: Vec<NodeKey>) -> Place {
        let (sender, call) = oneshot::channel();
        self.turns.waits(&wanted.claim.flow, ticket, scope);
        self.queue.push(scope, ticket, Waiter { wanted, avoid, call: sender });
        Place { scope, ticket, call }
    }

    fn take_out(&mut self, scope: ScopeId, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.queue.remove(scope, ticket)?;
        self.turns.left(&waiter.wanted.claim.flow, ticket, scope);
        Some(waiter)
    }

    fn take(&mut self, scope: ScopeId, avoid: &[NodeKey], wanted: &Wanted) -> Option<Pick> {
        if self.in_flight >= self.max_in_flight {
            return None;
        }
        let scope = self.preferred(scope, avoid, wanted);
        let cached = self.registry.slots_of(&wanted.cached, scope);
        let (balance, mut choice) = (&mut self.balance, Duration::ZERO);
        let key = self.registry.choose(scope, avoid, |index| {
            let (slot, took) = balance.choose(index, &wanted.view(&cached))?;
            choice = took;
            Some(slot)
        })?;
        self.in_flight += 1;
        // a taken node only ever becomes less available: there is no one to call
        self.change(key, &mut Effects::default(), Entry::occupy);
        self.pick(key, choice)
    }

    pub(crate) fn pick(&self, key: NodeKey, choice: Duration) -> Option<Pick> {
        let entry = self.registry.entry(key)?;
        let home = if entry.shares_cache { SHARED } else { entry.number };
        Some(Pick { key, node: Arc::clone(&entry.node), id: entry.id.clone(), home, choice, tier: entry.tier })
    }

    /// Changes a node, removes it if it is idle and will take nothing more, and tells the queue what that means for its scopes.
    pub(crate) fn change(&mut self, key: NodeKey, effects: &mut Effects, change: impl FnOnce(&mut Entry)) {
        let Some(scopes) = self.registry.change(key, change) else { return };
        if self.registry.entry(key).is_some_and(|entry| entry.in_flight == 0 && entry.leaves()) {
            effects.stop.extend(self.registry.remove(key));
        }
        for id in scopes {
            let scope = self.registry.scope(id);
            self.queue.set_servable(id, scope.has_candidates());
            if scope.live == 0 && !self.registry.may_wake(id) {
                for (ticket, waiter) in self.queue.clear(id) {
                    self.turns.left(&waiter.wanted.claim.flow, ticket, id);
                    effects.calls.push((waiter.call, Err(Gone::NoNode)));
                }
            }
        }
    }

    /// Gives free nodes to those who wait, in order of turns, as far as the limit allows.
    pub(crate) fn call_waiters(&mut self, effects: &mut Effects) {
        while self.in_flight < self.max_in_flight {
            let Some((ticket, scope)) = self.next_waiter() else { break };
            let Some(waiter) = self.take_out(scope, ticket) else { break };
            let pick = self.take(scope, &waiter.avoid, &waiter.wanted);
            debug_assert!(pick.is_some(), "a scope that can serve a waiter has a candidate");
            self.turns.served(ticket.turn);
            effects.calls.push((waiter.call, pick.ok_or(Gone::NoNode)));
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

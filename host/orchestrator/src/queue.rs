//! Who waits: one line for each scope, in order of turns over all of them.
//!
//! The head of every line whose scope has a free node is kept in one ordered set, so the next to be served is found without
//! looking at those who wait for something else. Pure: it neither wakes anyone nor knows what is waited with.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::registry::ScopeId;

/// Whose turn it is, relative to all others. A request that is dispatched again keeps its ticket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    /// Behind all that are not.
    is_deferred: bool,
    pub(crate) turn: u128,
    /// Of equal turns the earlier one comes first.
    number: u64,
}

#[derive(Debug)]
pub(crate) struct Queue<W> {
    lines: Vec<Line<W>>,
    /// First ticket of each line whose scope has a free node.
    heads: BTreeSet<(Ticket, ScopeId)>,
    waiting: usize,
    n_tickets: u64,
}

#[derive(Debug)]
struct Line<W> {
    waiters: BTreeMap<Ticket, W>,
    servable: bool,
    /// What `heads` has for this line.
    head: Option<Ticket>,
}

/// How fast requests end, over the last few.
#[derive(Debug, Default)]
pub(crate) struct DrainRate {
    ends: VecDeque<Instant>,
}

/// Ends looked back at: enough to even out long and short answers, few enough to follow a change within seconds.
const ENDS: usize = 64;
/// What is promised before two requests have ended.
const RETRY_BEFORE_ANY: Duration = Duration::from_secs(1);
/// Below this, clients would come back faster than they can be refused.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Above this, clients give up anyway.
const RETRY_MAX: Duration = Duration::from_mins(1);

// === impl Ticket ===

impl Ticket {
    pub(crate) fn new(is_deferred: bool, turn: u128, number: u64) -> Self {
        Self { is_deferred, turn, number }
    }

    pub(crate) fn following(self) -> Self {
        Self { number: self.number + 1, ..self }
    }
}

// === impl Queue ===

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self { lines: Vec::new(), heads: BTreeSet::new(), waiting: 0, n_tickets: 0 }
    }
}

impl<W> Queue<W> {
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// A ticket for a turn, behind those that have the same.
    pub(crate) fn ticket(&mut self, is_deferred: bool, turn: u128) -> Ticket {
        self.n_tickets += 1;
        Ticket::new(is_deferred, turn, self.n_tickets)
    }

    /// How many wait for a scope.
    pub(crate) fn n_waiting(&self, scope: ScopeId) -> usize {
        self.lines.get(scope.0).map_or(0, |line| line.waiters.len())
    }

    pub(crate) fn push(&mut self, scope: ScopeId, ticket: Ticket, waiter: W) {
        let before = self.line(scope).waiters.insert(ticket, waiter);
        debug_assert!(before.is_none(), "a ticket waits once");
        self.waiting += 1;
        self.refresh(scope);
    }

    /// Takes a waiter out of the line; `None` if it was called or gave up already.
    pub(crate) fn remove(&mut self, scope: ScopeId, ticket: Ticket) -> Option<W> {
        let waiter = self.line(scope).waiters.remove(&ticket)?;
        self.waiting -= 1;
        self.refresh(scope);
        Some(waiter)
    }

    /// Takes everyone out of a line, in order.
    pub(crate) fn clear(&mut self, scope: ScopeId) -> impl Iterator<Item = (Ticket, W)> {
        let waiters = std::mem::take(&mut self.line(scope).waiters);
        self.waiting -= waiters.len();
        self.refresh(scope);
        waiters.into_iter()
    }

    /// Says whether a scope has a free node.
    pub(crate) fn set_servable(&mut self, scope: ScopeId, servable: bool) {
        let line = self.line(scope);
        if line.servable != servable {
            line.servable = servable;
            self.refresh(scope);
        }
    }

    /// The earliest head at or after `from` whose scope has a free node.
    pub(crate) fn next_servable(&self, from: Ticket) -> Option<(Ticket, ScopeId)> {
        self.heads.range((from, ScopeId(0))..).next().copied()
    }

    /// Those who wait for a scope, in order.
    pub(crate) fn waiters(&self, scope: ScopeId) -> impl Iterator<Item = (Ticket, &W)> {
        self.lines.get(scope.0).into_iter().flat_map(|line| &line.waiters).map(|(ticket, waiter)| (*ticket, waiter))
    }

    fn line(&mut self, scope: ScopeId) -> &mut Line<W> {
        if scope.0 >= self.lines.len() {
            self.lines.resize_with(scope.0 + 1, || Line { waiters: BTreeMap::new(), servable: false, head: None });
        }
        &mut self.lines[scope.0]
    }

    fn refresh(&mut self, scope: ScopeId) {
        let line = self.line(scope);
        let head = line.waiters.first_key_value().map(|(ticket, _)| *ticket).filter(|_| line.servable);
        let before = std::mem::replace(&mut line.head, head);
        if before != head {
            if let Some(before) = before {
                self.heads.remove(&(before, scope));
            }
            if let Some(head) = head {
                self.heads.insert((head, scope));
            }
        }
    }
}

// === impl DrainRate ===

impl DrainRate {
    pub(crate) fn ended(&mut self, now: Instant) {
        if self.ends.len() == ENDS {
            self.ends.pop_front();
        }
        self.ends.push_back(now);
    }

    /// How long until `waiting` requests have been served at the present rate. Counted up to now, so that it grows while
    /// nothing ends.
    pub(crate) fn retry_after(&self, waiting: usize, now: Instant) -> Duration {
        let (Some(first), n @ 2..) = (self.ends.front(), self.ends.len()) else { return RETRY_BEFORE_ANY };
        let each = now.saturating_duration_since(*first).as_secs_f64() / n as f64;
        let all = each * (waiting + 1) as f64;
        Duration::from_secs_f64(all.clamp(RETRY_MIN.as_secs_f64(), RETRY_MAX.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn the_next_served_is_the_first_of_all_whose_scope_has_a_free_node(
            steps in vec((0u8..4, 0usize..5, any::<bool>(), 0u128..20), 1..200),
        ) {
            let (mut queue, mut model, mut servable) = (Queue::default(), Vec::<(Ticket, ScopeId)>::new(), [false; 5]);
            for (action, n, flag, turn) in steps {
                match action {
                    0 | 1 => {
                        let ticket = queue.ticket(flag, turn);
                        queue.push(ScopeId(n), ticket, ticket);
                        model.push((ticket, ScopeId(n)));
                        model.sort();
                    }
                    2 => {
                        queue.set_servable(ScopeId(n), flag);
                        servable[n] = flag;
                    }
                    _ if !model.is_empty() => {
                        let (ticket, scope) = model.remove(n % model.len());
                        prop_assert_eq!(queue.remove(scope, ticket), Some(ticket));
                        prop_assert_eq!(queue.remove(scope, ticket), None);
                    }
                    _ => {}
                }
                prop_assert_eq!(queue.len(), model.len());
                let first = model.iter().find(|(_, scope)| servable[scope.0]);
                prop_assert_eq!(queue.next_servable(Ticket::default()), first.copied());
            }
        }
    }

    #[test]
    fn clearing_a_line_leaves_the_others() {
        let mut queue = Queue::default();
        for (scope, name) in [(0, "a"), (1, "b"), (0, "c")] {
            let ticket = queue.ticket(false, 0);
            queue.push(ScopeId(scope), ticket, name);
        }
        assert_eq!(queue.clear(ScopeId(0)).map(|(_, name)| name).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!((queue.len(), queue.waiters(ScopeId(1)).count()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_promised_wait_follows_the_rate_at_which_requests_end() {
        let mut rate = DrainRate::default();
        assert_eq!(rate.retry_after(10, Instant::now()), RETRY_BEFORE_ANY);
        for _ in 0..ENDS {
            rate.ended(Instant::now());
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        assert_eq!(rate.retry_after(9, Instant::now()), Duration::from_secs(5));
        tokio::time::advance(Duration::from_secs(32)).await;
        assert_eq!(rate.retry_after(9, Instant::now()), Duration::from_secs(10));
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(rate.retry_after(9, Instant::now()), RETRY_MAX);
    }
}

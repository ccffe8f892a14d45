//! What happened in the cluster, for whoever watches: a ring of the last events, each with a number.
//!
//! Nothing here is on the way of a request. What happens to many nodes within a second is one event: they are gathered by what
//! happened, to which type and why, and told when the second is over.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use llambo_inference::{ClusterEvent, EventKind, NodeId, TypeName, Witness};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use crate::{
    cluster::{Cluster, NODES_PER_STEP},
    registry::NodeKey,
};

/// Events that are kept: some hours of a lively cluster, about a megabyte.
const KEPT: usize = 4096;
/// What happens to nodes within this time is one event.
const GATHERED_FOR: Duration = Duration::from_secs(1);
/// How often a watcher looks whether gathered events are due: nobody else's clock runs for it.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What is gathered at a time: more kinds, types and reasons than there are.
const BATCHES: usize = 256;

/// An event with its place among all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counted from 1 since the host started.
    pub number: u64,
    /// When it happened; of several nodes, when it began.
    pub at: SystemTime,
    /// What happened.
    pub what: ClusterEvent,
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The next event.
    Event(Arc<Event>),
    /// So many were forgotten before it could be told of them.
    Missed(u64),
}

/// Which events a watcher is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// After the event of that number. One that is not there yet is of an earlier run of the host, and counts as none.
    pub after: u64,
    /// From this time on.
    pub since: Option<SystemTime>,
    /// Of these kinds; empty: all.
    pub kinds: Vec<EventKind>,
    /// About these node types; empty: about anything.
    pub types: Vec<TypeName>,
}

/// Tells one watcher what happens, in order.
pub struct EventWatch {
    events: Arc<Events>,
    filter: EventFilter,
    /// Whether it looked before: from then on nothing may be left out.
    has_begun: bool,
    ready: VecDeque<Told>,
}

#[derive(Default)]
pub(crate) struct Events {
    ring: Mutex<Ring>,
    told: Notify,
}

#[derive(Default)]
struct Ring {
    kept: VecDeque<Arc<Event>>,
    last: u64,
    batches: BTreeMap<(EventKind, TypeName, &'static str), Batch>,
}

/// Nodes that the same happened to.
struct Batch {
    at: SystemTime,
    since: Instant,
    first: NodeId,
    count: u32,
}

// === impl Events ===

impl Events {
    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened to a node, as it may to many.
    pub(crate) fn gather(&self, kind: EventKind, node_type: &TypeName, node: &NodeId, reason: &'static str) {
        self.gather_all(kind, reason, [(node_type.clone(), node.clone(), 1)]);
    }

    /// The same of several: their types, one node of each, and how many.
    pub(crate) fn gather_all(
        &self,
        kind: EventKind,
        reason: &'static str,
        nodes: impl IntoIterator<Item = (TypeName, NodeId, u32)>,
    ) {
        let mut ring = self.lock();
        let now = Instant::now();
        for (node_type, first, count) in nodes {
            if ring.batches.len() >= BATCHES {
                ring.tell_gathered(None);
            }
            let batch = ring.batches.entry((kind, node_type, reason));
            batch.or_insert_with(|| Batch { at: SystemTime::now(), since: now, first, count: 0 }).count += count;
        }
        if ring.tell_gathered(Some(now)) {
            drop(ring);
            self.told.notify_waiters();
        }
    }

    /// Tells what was gathered for long enough.
    pub(crate) fn flush(&self) {
        if self.lock().tell_gathered(Some(Instant::now())) {
            self.told.notify_waiters();
        }
    }

    /// What passes the filter, and up to which number was looked.
    fn read(&self, filter: &EventFilter, has_begun: bool) -> (VecDeque<Told>, u64) {
        let ring = self.lock();
        let after = if filter.after > ring.last { 0 } else { filter.after };
        let oldest = ring.kept.front().map_or(ring.last + 1, |event| event.number);
        let mut told = VecDeque::new();
        let missed = oldest.saturating_sub(after + 1);
        // somebody who begins at the beginning, or at a time, asks for what there is
        if missed > 0 && (has_begun || after > 0) {
            told.push_back(Told::Missed(missed));
        }
        let begin = ring.kept.partition_point(|event| event.number <= after);
        let events = ring.kept.range(begin..).filter(|event| filter.passes(event));
        told.extend(events.map(|event| Told::Event(Arc::clone(event))));
        (told, ring.last)
    }
}

impl Witness for Events {
    fn tell(&self, event: ClusterEvent) {
        let mut ring = self.lock();
        // what happened before stands before
        ring.tell_gathered(Some(Instant::now()));
        ring.push(SystemTime::now(), event);
        drop(ring);
        self.told.notify_waiters();
    }
}

impl Ring {
    fn push(&mut self, at: SystemTime, what: ClusterEvent) {
        metrics::counter!("llambo_orchestrator_events_total", "kind" => what.kind.as_str()).increment(1);
        self.last += 1;
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::new(Event { number: self.last, at, what }));
    }

    /// Tells of batches that were gathered for long enough, or of all. Answers whether there were any.
    fn tell_gathered(&mut self, now: Option<Instant>) -> bool {
        let is_due = |batch: &Batch| now.is_none_or(|now| now.saturating_duration_since(batch.since) >= GATHERED_FOR);
        if !self.batches.values().any(is_due) {
            return false;
        }
        let (mut due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.batches).into_iter().partition(|(_, batch)| is_due(batch));
        self.batches = rest.into_iter().collect();
        due.sort_by_key(|(_, batch)| batch.since);
        for ((kind, node_type, reason), Batch { at, first, count, .. }) in due {
            let mut what = ClusterEvent::of_type(kind, &node_type, count, reason);
            if count == 1 {
                what.subject = first.to_string();
            }
            self.push(at, what);
        }
        true
    }
}

// === impl EventFilter ===

impl EventFilter {
    fn passes(&self, event: &Event) -> bool {
        let is_of = |node_type: &TypeName| self.types.contains(node_type);
        self.since.is_none_or(|since| event.at >= since)
            && (self.kinds.is_empty() || self.kinds.contains(&event.what.kind))
            && (self.types.is_empty() || event.what.node_type.as_ref().is_some_and(is_of))
    }
}

// === impl EventWatch ===

impl EventWatch {
    /// What there is now, and is not told yet.
    pub fn now(&mut self) -> Option<Told> {
        if self.ready.is_empty() {
            self.events.flush();
            let (told, last) = self.events.read(&self.filter, self.has_begun);
            (self.ready, self.filter.after, self.has_begun) = (told, last, true);
        }
        self.ready.pop_front()
    }

    /// The next event, waiting for one.
    pub async fn next(&mut self) -> Told {
        loop {
            let events = Arc::clone(&self.events);
            let mut told = std::pin::pin!(events.told.notified());
            // listening before looking: nothing that happens between the two is missed
            told.as_mut().enable();
            if let Some(told) = self.now() {
                return told;
            }
            let _ = timeout(LOOK_EVERY, told).await;
        }
    }
}

impl Cluster {
    /// What happened and what happens, as far as it passes the filter.
    pub fn watch_events(&self, filter: EventFilter) -> EventWatch {
        EventWatch { events: Arc::clone(&self.shared.events), filter, has_begun: false, ready: VecDeque::new() }
    }

    /// Where others tell what happens.
    pub fn witness(&self) -> Arc<dyn Witness> {
        Arc::clone(&self.shared.events) as _
    }

    pub(crate) fn tell(&self, event: ClusterEvent) {
        self.shared.events.tell(event);
    }

    /// Those of these nodes that do not drain yet are going to.
    pub(crate) fn tell_draining(&self, keys: &[NodeKey], reason: &'static str) {
        let mut types: BTreeMap<TypeName, (NodeId, u32)> = BTreeMap::new();
        for step in keys.chunks(NODES_PER_STEP) {
            let admission = self.shared.lock();
            let entries = step.iter().filter_map(|key| admission.registry.entry(*key)).filter(|entry| !entry.draining);
            for entry in entries {
                match types.get_mut(&entry.node_type) {
                    Some((_, count)) => *count += 1,
                    None => drop(types.insert(entry.node_type.clone(), (entry.id.clone(), 1))),
                }
            }
        }
        let nodes = types.into_iter().map(|(node_type, (first, count))| (node_type, first, count));
        self.shared.events.gather_all(EventKind::NodesDraining, reason, nodes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(events: &Arc<Events>, filter: EventFilter) -> EventWatch {
        EventWatch { events: Arc::clone(events), filter, has_begun: false, ready: VecDeque::new() }
    }

    fn all(watch: &mut EventWatch) -> Vec<Told> {
        std::iter::from_fn(|| watch.now()).collect()
    }

    fn subjects(told: &[Told]) -> Vec<String> {
        let subject = |told: &Told| match told {
            Told::Event(event) => format!("{} {} {}", event.what.kind, event.what.subject, event.what.count),
            Told::Missed(n) => format!("missed {n}"),
        };
        told.iter().map(subject).collect()
    }

    fn loaded(events: &Events, name: &str) {
        events.tell(ClusterEvent::new(EventKind::ModelLoaded, name, ""));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_thousand_nodes_within_a_second_are_one_event() {
        let events = Arc::new(Events::default());
        for n in 0..100_000 {
            let node_type = if n % 2 == 0 { "tiny" } else { "large" };
            events.gather(EventKind::NodesStopped, &node_type.into(), &format!("{node_type}-{n}").into(), "drained");
        }
        let mut watch = watch(&events, EventFilter::default());
        assert_eq!(all(&mut watch), [], "there may be more to come");
        tokio::time::advance(GATHERED_FOR).await;
        events.gather(EventKind::NodesStopped, &"lone".into(), &"lone-1".into(), "drained");
        assert_eq!(subjects(&all(&mut watch)), ["nodes.stopped large 50000", "nodes.stopped tiny 50000"]);
        tokio::time::advance(GATHERED_FOR).await;
        assert_eq!(subjects(&all(&mut watch)), ["nodes.stopped lone-1 1"], "one node is called by its name");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watcher_that_waits_is_told_of_what_was_gathered_without_another_event() {
        let events = Arc::new(Events::default());
        events.gather(EventKind::NodesFailed, &"tiny".into(), &"tiny-1".into(), "gone");
        let told = watch(&events, EventFilter::default()).next().await;
        assert_eq!(subjects(&[told]), ["nodes.failed tiny-1 1"]);
    }

    #[tokio::test]
    async fn who_is_behind_is_told_how_many_were_missed_and_who_begins_is_not() {
        let events = Arc::new(Events::default());
        loaded(&events, "first");
        let mut behind = watch(&events, EventFilter::default());
        assert_eq!(subjects(&all(&mut behind)), ["model.loaded first 1"]);
        (0..KEPT + 10).for_each(|n| loaded(&events, &n.to_string()));
        let told = all(&mut behind);
        assert_eq!(told[0], Told::Missed(10));
        assert_eq!(subjects(&told[1..2]), ["model.loaded 10 1"]);
        assert_eq!(told.len(), KEPT + 1);
        assert_eq!(all(&mut watch(&events, EventFilter::default())).len(), KEPT);
        let after = |after: u64| subjects(&all(&mut watch(&events, EventFilter { after, ..EventFilter::default() }))[..1]);
        assert_eq!(after(KEPT as u64 + 10), [format!("model.loaded {} 1", KEPT + 9)]);
        assert_eq!(after(1 << 40), ["model.loaded 10 1"], "a number of an earlier run: all there is");
    }

    #[tokio::test]
    async fn events_are_filtered_by_kind_type_and_time() {
        let events = Arc::new(Events::default());
        loaded(&events, "m");
        events.tell(ClusterEvent::of_type(EventKind::ScaleUp, &"tiny".into(), 3, "busy"));
        events.tell(ClusterEvent::of_type(EventKind::ScaleUp, &"large".into(), 2, "busy"));
        let told = |filter| subjects(&all(&mut watch(&events, filter)));
        let kinds = EventKind::named("scale");
        assert_eq!(told(EventFilter { kinds, ..EventFilter::default() }), ["scale.up tiny 3", "scale.up large 2"]);
        assert_eq!(told(EventFilter { types: vec!["large".into()], ..EventFilter::default() }), ["scale.up large 2"]);
        let later = Some(SystemTime::now() + Duration::from_mins(1));
        assert_eq!(told(EventFilter { since: later, ..EventFilter::default() }), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_waiting_watcher_wakes_with_the_event() {
        let events = Arc::new(Events::default());
        let mut watch = watch(&events, EventFilter::default());
        let next = tokio::spawn(async move { watch.next().await });
        tokio::task::yield_now().await;
        loaded(&events, "m");
        assert_eq!(subjects(&[next.await.unwrap()]), ["model.loaded m 1"]);
    }
}

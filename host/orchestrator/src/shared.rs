//! What the dispatcher, the cluster's operations and every lease hold in common.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use llambo_inference::{EventKind, Node, NodeId, TypeName};
use llambo_strategy::Balancer;

use tokio::{
    sync::{Notify, broadcast},
    time::{Instant, sleep_until},
};

use crate::{
    Policies, Settings,
    admission::{Admission, Effects},
    entry::Entry,
    error::DispatchError,
    events::Events,
    faults::Faults,
    homes::Homes,
    lease::Lease,
    meters::AllMeters,
    quota::Quotas,
    record::Counters,
    registry::NodeKey,
    retries::Retries,
    route::{RECORDS, Recorder},
    tiers::TierCounters,
    usage::Usages,
};

/// Nodes looked at under one hold of the lock: about 20 us.
const NODES_PER_LOOK: usize = 1024;

pub(crate) struct Shared {
    /// Held for single steps of about a microsecond; never while a node, a waiter or anything else outside is called.
    admission: Mutex<Admission>,
    /// Told whenever nothing is in flight and nobody waits.
    pub(crate) idle: Notify,
    pub(crate) counters: Counters,
    pub(crate) settings: Settings,
    pub(crate) started: Instant,
    pub(crate) policies: Policies,
    pub(crate) homes: Homes,
    pub(crate) usages: Arc<Usages>,
    pub(crate) recorder: Recorder,
    pub(crate) retries: Retries,
    pub(crate) quotas: Quotas,
    pub(crate) faults: Faults,
    pub(crate) events: Arc<Events>,
    pub(crate) tiers: TierCounters,
    pub(crate) meters: AllMeters,
    /// Told when somebody waits for a type that has no nodes.
    pub(crate) wanted: Notify,
    /// Whether there are types of different tiers at all.
    has_tiers: AtomicBool,
    /// Decisions that were recorded.
    n_recorded: AtomicU64,
    /// Whether the strategy looks at who has computed what.
    strategy_wants_prefixes: AtomicBool,
}

impl Shared {
    pub(crate) fn new(admission: Admission, settings: Settings, policies: Policies) -> Self {
        let started = Instant::now();
        let wants_prefixes = admission.balance.balancer().wants_cached();
        let quotas = Quotas::new(&settings.tenants, started);
        Self {
            quotas,
            faults: Faults::default(),
            events: Arc::default(),
            tiers: TierCounters::default(),
            meters: AllMeters::default(),
            wanted: Notify::new(),
            has_tiers: AtomicBool::new(false),
            admission: Mutex::new(admission),
            idle: Notify::new(),
            counters: Counters::default(),
            settings,
            started,
            policies,
            homes: Homes::default(),
            usages: Usages::new(started),
            retries: Retries::new(started),
            recorder: broadcast::Sender::new(RECORDS),
            n_recorded: AtomicU64::new(0),
            strategy_wants_prefixes: AtomicBool::new(wants_prefixes),
        }
    }

    /// Whether anybody looks at who has computed the beginning of a prompt.
    pub(crate) fn wants_prefixes(&self) -> bool {
        self.strategy_wants_prefixes.load(Relaxed) || self.policies.balancer.is_loaded()
    }

    /// Whether there are types of different tiers.
    pub(crate) fn has_tiers(&self) -> bool {
        self.has_tiers.load(Relaxed)
    }

    /// Types have come.
    pub(crate) fn note_tiers(&self) {
        let has_tiers = self.lock().registry.has_tiers();
        self.has_tiers.store(has_tiers, Relaxed);
    }

    /// Answers with the name of the strategy before.
    pub(crate) fn use_balancer(&self, balancer: Arc<dyn Balancer>) -> &'static str {
        self.strategy_wants_prefixes.store(balancer.wants_cached(), Relaxed);
        self.lock().balance.set(balancer)
    }

    /// Milliseconds since the start.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.n_recorded.fetch_add(1, Relaxed) + 1
    }

    /// A strategy that panics does so before anything was changed, so a poisoned lock guards a sound state.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is said of a request that lost its place in the queue.
    pub(crate) fn displaced(&self, now: Instant) -> DispatchError {
        let admission = self.lock();
        let (waiting, limit) = (admission.waiting(), admission.max_waiting());
        DispatchError::QueueFull { waiting, limit, retry_after: admission.retry_after(now) }
    }

    /// Looks at every node, a part of them under each hold of the lock. Nodes that come meanwhile may be missed.
    pub(crate) fn each_entry(&self, mut each: impl FnMut(NodeKey, &Entry)) {
        for start in (0..).step_by(NODES_PER_LOOK) {
            let admission = self.lock();
            let Some(part) = admission.registry.entries_at(start..start + NODES_PER_LOOK) else { return };
            part.for_each(|(key, entry)| each(key, entry));
        }
    }

    /// Carries out what a step left to do. Must not be called with the lock held.
    pub(crate) fn apply(self: &Arc<Self>, effects: Effects) {
        for (call, pick) in effects.calls {
            // a waiter that is gone gives its lease back as the unsent value drops, and with it calls the next
            drop(call.send(pick.map(|pick| Lease::new(self, pick))));
        }
        if !effects.stop.is_empty() {
            self.stop(effects.stop);
        }
        if effects.wanted {
            self.wanted.notify_one();
        }
        for (key, until) in effects.rests {
            metrics::counter!("llambo_orchestrator_rests_total").increment(1);
            self.tell_breaker(key, EventKind::BreakerOpened, "it failed five times in a row and rests");
            let shared = Arc::downgrade(self);
            // ends by itself within half a minute, and keeps nothing alive
            tokio::spawn(async move {
                sleep_until(until).await;
                if let Some(shared) = shared.upgrade() {
                    let effects = shared.lock().rested(key, until);
                    shared.apply(effects);
                    shared.tell_breaker(key, EventKind::BreakerClosed, "it has rested");
                }
            });
        }
        if effects.idle {
            self.idle.notify_waiters();
        }
    }
}

impl Shared {
    fn stop(&self, nodes: Vec<Arc<dyn Node>>) {
        let mut types: BTreeMap<TypeName, (NodeId, u32)> = BTreeMap::new();
        for node in nodes {
            let view = node.view();
            tracing::debug!(node_id = %view.id, "node taken out of service");
            types.entry(view.node_type).or_insert((view.id, 0)).1 += 1;
            node.stop();
        }
        let nodes = types.into_iter().map(|(node_type, (first, count))| (node_type, first, count));
        self.events.gather_all(EventKind::NodesStopped, "out of service", nodes);
    }

    pub(crate) fn tell_failed(&self, node: &NodeId, node_type: &TypeName) {
        self.events.gather(EventKind::NodesFailed, node_type, node, "it cannot go on and is no longer chosen");
    }

    fn tell_breaker(&self, key: NodeKey, kind: EventKind, reason: &'static str) {
        let node = self.lock().registry.entry(key).map(|entry| (entry.node_type.clone(), entry.id.clone()));
        if let Some((node_type, id)) = node {
            self.events.gather(kind, &node_type, &id, reason);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

//! What the dispatcher, the cluster's operations and every lease hold in common.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{sync::Notify, time::Instant};

use crate::{
    Settings,
    admission::{Admission, Effects},
    lease::Lease,
    record::Counters,
    registry::{Entry, NodeKey},
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
}

impl Shared {
    pub(crate) fn new(admission: Admission, settings: Settings) -> Self {
        Self {
            admission: Mutex::new(admission),
            idle: Notify::new(),
            counters: Counters::default(),
            settings,
            started: Instant::now(),
        }
    }

    /// A strategy that panics does so before anything was changed, so a poisoned lock guards a sound state.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
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
        for node in effects.stop {
            tracing::debug!(node_id = %node.view().id, "node taken out of service");
            node.stop();
        }
        if effects.idle {
            self.idle.notify_waiters();
        }
    }
}

//! Who is told when policies change, once there is somebody.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use llambo_inference::{ClusterEvent, EventKind, Witness};
use llambo_strategy::PolicyRef;

/// Clones tell the same.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<OnceLock<Arc<dyn Witness>>>);

impl Told {
    /// From now on this one is told. Only the first is.
    pub(crate) fn to(&self, witness: Arc<dyn Witness>) {
        let _ = self.0.set(witness);
    }

    pub(crate) fn tell(&self, kind: EventKind, policy: &str, reason: impl Into<String>) {
        if let Some(witness) = self.0.get() {
            witness.tell(ClusterEvent::new(kind, policy, reason));
        }
    }

    /// The same of one that has a place.
    pub(crate) fn tell_of(&self, kind: EventKind, policy: &PolicyRef) {
        let PolicyRef { kind: decides, role, generation, .. } = policy;
        self.tell(kind, &policy.name, format!("{} {decides}, generation {generation}", role.as_str()));
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").finish_non_exhaustive()
    }
}

//! Who is told that a task has changed. What has changed they read themselves.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watchers(Arc<Mutex<HashMap<i64, watch::Sender<()>>>>);

/// Somebody who looks at one task. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Watching {
    watchers: Watchers,
    key: i64,
    changes: watch::Receiver<()>,
}

impl Watchers {
    pub(crate) fn watch(&self, key: i64) -> Watching {
        let changes = self.lock().entry(key).or_insert_with(|| watch::channel(()).0).subscribe();
        Watching { watchers: self.clone(), key, changes }
    }

    /// Whether anybody looks at it.
    pub(crate) fn has(&self, key: i64) -> bool {
        self.lock().contains_key(&key)
    }

    pub(crate) fn changed(&self, keys: impl IntoIterator<Item = i64>) {
        let watched = self.lock();
        for key in keys {
            if let Some(sender) = watched.get(&key) {
                sender.send_replace(());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watching {
    /// Counts as a change.
    pub(crate) fn touch(&mut self) {
        self.changes.mark_changed();
    }

    /// Done at the next change since the last one that was waited for.
    pub(crate) async fn changed(&mut self) {
        // the sender is there for as long as this is
        let _ = self.changes.changed().await;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut watched = self.watchers.lock();
        if watched.get(&self.key).is_some_and(|sender| sender.receiver_count() <= 1) {
            watched.remove(&self.key);
        }
    }
}

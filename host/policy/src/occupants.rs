//! Who sits in a seat, and what operators may change about it. Decisions that are under way end as they began.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use llambo_strategy::{PolicyRef, PolicyStatus, Role};

use crate::{
    installed::{Installed, Instances},
    table::{Entry, Table},
};

/// The policies of one kind; `R` runs them.
pub(crate) struct Occupants<R: ?Sized> {
    table: RwLock<Table<Installed<R>>>,
    /// Whether anybody is there: read by every request.
    is_taken: AtomicBool,
}

/// What operators do, whatever is decided here. `None`: there is no such policy.
pub(crate) trait Managed {
    fn list(&self) -> Vec<PolicyStatus>;
    fn promote(&self) -> Option<(PolicyStatus, Option<Arc<PolicyRef>>)>;
    fn roll_back(&self) -> Option<(Option<PolicyStatus>, Option<Arc<PolicyRef>>)>;
    fn unload(&self, role: Role) -> Option<Arc<PolicyRef>>;
    fn resume(&self, role: Role) -> Option<PolicyStatus>;
}

impl<R: ?Sized> Occupants<R> {
    pub(crate) fn none() -> Self {
        Self { table: RwLock::default(), is_taken: AtomicBool::new(false) }
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.is_taken.load(Relaxed)
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&Table<Installed<R>>) -> T) -> T {
        look(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Table<Installed<R>>) -> T) -> T {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let done = change(&mut table);
        self.is_taken.store(!table.is_empty(), Relaxed);
        done
    }

    pub(crate) fn next_generation(&self) -> u32 {
        self.change(Table::next_generation)
    }
}

impl<R: Instances + ?Sized> Occupants<R> {
    /// Gives a policy its place; answers with how it is there, and who was there.
    pub(crate) fn put(&self, role: Role, share: f64, policy: &Arc<Installed<R>>) -> (PolicyStatus, Option<Arc<PolicyRef>>) {
        self.change(|table| {
            let before = table.put(role, share, Entry::new(policy.by(role).generation, Arc::clone(policy)));
            (policy.status(role, table.share(role)), before.map(|before| was(&before, role)))
        })
    }
}

impl<R: Instances + ?Sized> Managed for Occupants<R> {
    fn list(&self) -> Vec<PolicyStatus> {
        self.look(|table| table.all().map(|(role, entry)| entry.policy.status(role, table.share(role))).collect())
    }

    fn promote(&self) -> Option<(PolicyStatus, Option<Arc<PolicyRef>>)> {
        self.change(|table| {
            let (now, before) = table.promote()?;
            // somebody wants it to decide
            now.policy.stats.resume();
            Some((now.policy.status(Role::Live, None), before.map(|before| was(&before, Role::Live))))
        })
    }

    fn roll_back(&self) -> Option<(Option<PolicyStatus>, Option<Arc<PolicyRef>>)> {
        self.change(|table| {
            let before = table.roll_back().ok()?;
            let now = table.live.as_ref().map(|live| {
                live.policy.stats.resume();
                live.policy.status(Role::Live, None)
            });
            Some((now, before.map(|before| was(&before, Role::Live))))
        })
    }

    fn unload(&self, role: Role) -> Option<Arc<PolicyRef>> {
        self.change(|table| table.take(role).map(|entry| was(&entry, role)))
    }

    fn resume(&self, role: Role) -> Option<PolicyStatus> {
        self.look(|table| {
            let entry = table.in_role(role)?;
            entry.policy.stats.resume();
            Some(entry.policy.status(role, table.share(role)))
        })
    }
}

fn was<R: ?Sized>(entry: &Entry<Installed<R>>, role: Role) -> Arc<PolicyRef> {
    Arc::clone(entry.policy.by(role))
}

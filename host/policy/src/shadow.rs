//! What shadows would have decided, on a thread of their own: nobody waits for them.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use llambo_strategy::{Kind, Role};

use crate::seat::{Answering, answer};

/// Questions that wait for a shadow: some milliseconds' worth. What is beyond is missed, and counted.
const WAITING: usize = 1024;

/// A decision for a shadow to look at.
pub(crate) struct Look<K: Kind> {
    pub(crate) shadow: Arc<Answering<K>>,
    pub(crate) ask: Arc<K::Ask>,
    /// `None`: what is built in decided.
    pub(crate) decided: Option<K::Answer>,
}

/// The thread of one seat's shadows, once there was one.
pub(crate) struct Shadows<K: Kind>(Mutex<Option<Looking<K>>>);

/// The way to the thread, and the thread.
type Looking<K> = (SyncSender<Look<K>>, JoinHandle<()>);

impl<K: Kind> Look<K> {
    /// Asks the shadow and compares. Answers with what it says.
    pub(crate) fn compare(&self) -> Option<K::Answer> {
        let would = answer::<K>(&self.shadow, Role::Shadow, &self.ask).ok()?.answer;
        let stats = &self.shadow.stats;
        stats.compared.fetch_add(1, Relaxed);
        let agrees = match (&would, &self.decided) {
            (Some(would), Some(decided)) => would == decided,
            // it leaves the decision to what is built in, which decided
            (None, None) => true,
            (Some(would), None) => K::is_built_in(&self.ask, would),
            (None, Some(decided)) => K::is_built_in(&self.ask, decided),
        };
        stats.agreed.fetch_add(u64::from(agrees), Relaxed);
        would
    }
}

impl<K: Kind> Default for Shadows<K> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<K: Kind> Shadows<K> {
    /// Lets the shadow look, soon.
    pub(crate) fn look(&self, look: Look<K>) {
        let mut thread = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let (sender, receiver) = sync_channel(WAITING);
            let spawned = thread::Builder::new().name("llambo-shadows".into()).spawn(move || run(&receiver));
            *thread = spawned.ok().map(|handle| (sender, handle));
        }
        let sent = thread.as_ref().map(|(sender, _)| sender.try_send(look));
        if let Some(Err(TrySendError::Full(look) | TrySendError::Disconnected(look))) = sent {
            look.shadow.stats.missed.fetch_add(1, Relaxed);
        }
    }
}

fn run<K: Kind>(looks: &Receiver<Look<K>>) {
    while let Ok(look) = looks.recv() {
        look.compare();
    }
}

impl<K: Kind> Drop for Shadows<K> {
    fn drop(&mut self) {
        let thread = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, handle)) = thread {
            drop(sender);
            let _ = handle.join();
        }
    }
}

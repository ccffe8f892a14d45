use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::TokenLog;

/// The generations that a guest made for one request, in order. When its node is lost, another node runs the guest again, and those of its
/// generations that are asked for alike go on from here instead of anew: what was sent already comes out the same. Clones are the same journal.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    entries: Mutex<Vec<JournalEntry>>,
    /// As in [`TokenLog::n_top`].
    n_top: Option<usize>,
}

/// One generation.
#[derive(Clone, Debug)]
pub struct JournalEntry {
    /// A digest of all that was asked: equal where the same is asked again.
    pub fingerprint: u64,
    /// What its random numbers begin with.
    pub seed: u64,
    /// Its tokens.
    pub log: TokenLog,
}

impl Journal {
    /// One for a client that wants to know how likely each token was, and the `n_top` likeliest beside it.
    pub fn with_logprobs(n_top: usize) -> Self {
        Self(Arc::new(Shared { n_top: Some(n_top), ..Shared::default() }))
    }

    /// One that holds what an earlier run had generated, as [`Self::entries`] told it.
    pub fn restored(entries: Vec<JournalEntry>) -> Self {
        Self(Arc::new(Shared { entries: Mutex::new(entries), n_top: None }))
    }

    /// As in [`TokenLog::n_top`].
    pub fn n_top(&self) -> Option<usize> {
        self.0.n_top
    }

    /// The `i`-th generation begins. If an earlier node had begun the same, it goes on from there, in a log of its own, since the earlier one may
    /// still be writing; what that node did beyond is forgotten as soon as something else is asked.
    pub fn begin(&self, i: usize, fingerprint: u64, seed: u64) -> JournalEntry {
        self.begin_in(i, fingerprint, seed, None)
    }

    /// The same, where who begins wants to be told of `n_top` tokens as well.
    pub fn begin_in(&self, i: usize, fingerprint: u64, seed: u64, n_top: Option<usize>) -> JournalEntry {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(i).filter(|entry| entry.fingerprint == fingerprint) {
            entry.log = entry.log.snapshot();
            return entry.clone();
        }
        entries.truncate(i);
        let log = self.0.n_top.max(n_top).map_or_else(TokenLog::default, TokenLog::with_logprobs);
        let entry = JournalEntry { fingerprint, seed, log };
        entries.push(entry.clone());
        entry
    }

    /// All of them now.
    pub fn entries(&self) -> Vec<JournalEntry> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<JournalEntry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Logged;

    #[test]
    fn what_is_asked_again_goes_on_and_what_differs_begins_anew() {
        let journal = Journal::default();
        let first = journal.begin(0, 7, 1);
        first.log.push(Logged::bare(42));
        journal.begin(1, 8, 2);
        let again = journal.begin(0, 7, 99);
        first.log.push(Logged::bare(43));
        assert_eq!((again.seed, again.log.n_tokens()), (1, 1), "a node that is late writes elsewhere");
        let other = journal.begin(1, 9, 3);
        assert_eq!((other.seed, other.log.n_tokens(), journal.entries().len()), (3, 0, 2));
        journal.begin(0, 5, 4);
        assert_eq!(journal.entries().len(), 1, "what followed followed something else");
    }

    #[test]
    fn what_an_earlier_run_left_is_gone_on_with() {
        let before = Journal::default();
        before.begin(0, 7, 1).log.push(Logged::bare(42));
        let after = Journal::restored(before.entries());
        let entry = after.begin(0, 7, 99);
        assert_eq!((entry.seed, entry.log.from(0, 9)), (1, vec![Logged::bare(42)]));
        entry.log.push(Logged::bare(43));
        assert_eq!(after.entries()[0].log.n_tokens(), 2);
        assert_eq!(before.entries()[0].log.n_tokens(), 1, "the earlier run's own log is left alone");
    }
}

//! Which generation of its request one is, so that another isolate can go on with it.

use std::{
    fmt::{self, Debug, Write},
    hash::{DefaultHasher, Hash, Hasher},
};

use llambo_inference::{Journal, JournalEntry, Sampling};

/// A place in the journal of the request at hand.
pub(crate) struct Place {
    journal: Option<Journal>,
    i: usize,
}

/// What a generation is asked, in short.
pub(crate) struct Fingerprint(DefaultHasher);

// === impl Place ===

impl Place {
    pub(crate) fn new(journal: Option<Journal>, i: usize) -> Self {
        Self { journal, i }
    }

    /// The generation begins, or goes on from where another isolate was with it. `n_top` is what the guest itself wants to know of each token.
    pub(crate) fn begin(&self, asked: Fingerprint, sampling: &mut Sampling, n_top: Option<usize>) -> JournalEntry {
        // what is drawn here instead of in the engine can be drawn again
        let seed = sampling.seed.unwrap_or_else(rand::random);
        let fingerprint = asked.with(sampling).0.finish();
        let journal = self.journal.clone().unwrap_or_default();
        let entry = journal.begin_in(if self.journal.is_some() { self.i } else { 0 }, fingerprint, seed, n_top);
        sampling.seed = Some(entry.seed);
        entry
    }
}

// === impl Fingerprint ===

impl Fingerprint {
    pub(crate) fn of(asked: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        asked.hash(&mut hasher);
        Self(hasher)
    }

    fn with(mut self, more: &impl Debug) -> Self {
        // a hasher takes whatever it is given
        let _ = write!(self, "{more:?}");
        self
    }
}

impl Write for Fingerprint {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

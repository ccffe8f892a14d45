//! What is kept of a run while it runs: text with the places where it was cut into pieces, and the tokens behind it. All of it is
//! written as additions, so that a long answer is not written again each second.

use llambo_inference::{Journal, JournalEntry, Logged, TokenLog};
use serde::{Deserialize, Serialize};

/// Text and the lengths of its pieces in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pieces {
    pub(crate) text: String,
    /// Each length as LEB128.
    pub(crate) cuts: Vec<u8>,
}

/// What was added to a journal: how many generations it has now, and the new tokens of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addition {
    n: usize,
    grown: Vec<Grown>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Grown {
    i: usize,
    fingerprint: u64,
    seed: u64,
    /// How many tokens of it are kept already.
    from: usize,
    tokens: Vec<u32>,
}

/// How far a journal is kept.
#[derive(Debug, Default)]
pub(crate) struct Mark(Vec<(u64, u64, usize)>);

// === impl Pieces ===

impl Pieces {
    pub(crate) fn push(&mut self, piece: &str) {
        if piece.is_empty() {
            return;
        }
        self.text.push_str(piece);
        let mut rest = piece.len();
        while rest > 0x7f {
            self.cuts.push(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        self.cuts.push(rest.to_le_bytes()[0]);
    }

    pub(crate) fn append(&mut self, other: &Self) {
        self.text.push_str(&other.text);
        self.cuts.extend_from_slice(&other.cuts);
    }

    /// Each piece behind the first `start` bytes, with the byte that it ends at. A piece that `start` falls into is told from there on.
    pub(crate) fn from(&self, start: usize) -> impl Iterator<Item = (&str, usize)> {
        let mut begin = 0;
        self.lengths().filter_map(move |length| {
            let end = begin + length;
            let shown = self.text.get(begin.max(start)..end).filter(|text| !text.is_empty());
            begin = end;
            shown.map(|text| (text, end))
        })
    }

    fn lengths(&self) -> impl Iterator<Item = usize> {
        let mut bytes = self.cuts.iter();
        std::iter::from_fn(move || {
            let (mut length, mut shift) = (0usize, 0u32);
            loop {
                let byte = *bytes.next()?;
                length |= usize::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
                if byte & 0x80 == 0 {
                    return Some(length);
                }
                shift += 7;
            }
        })
    }
}

// === impl Mark ===

impl Mark {
    /// A journal that is kept whole, as it was restored.
    pub(crate) fn of(entries: &[JournalEntry]) -> Self {
        Self(entries.iter().map(|entry| (entry.fingerprint, entry.seed, entry.log.n_tokens())).collect())
    }

    /// What `journal` has that is not kept yet; from now on it counts as kept. `None`: nothing.
    pub(crate) fn advance(&mut self, journal: &Journal) -> Option<Addition> {
        let entries = journal.entries();
        let mut grown = Vec::new();
        let mut now = Vec::with_capacity(entries.len());
        for (i, entry) in entries.iter().enumerate() {
            let n_kept = match self.0.get(i) {
                Some(&(fingerprint, seed, n)) if (fingerprint, seed) == (entry.fingerprint, entry.seed) => Some(n),
                _ => None,
            };
            let n_tokens = entry.log.n_tokens();
            let from = n_kept.filter(|n| *n <= n_tokens).unwrap_or(0);
            let tokens: Vec<u32> = entry.log.from(from, n_tokens - from).into_iter().map(|logged| logged.token).collect();
            now.push((entry.fingerprint, entry.seed, from + tokens.len()));
            if n_kept != Some(n_tokens) {
                grown.push(Grown { i, fingerprint: entry.fingerprint, seed: entry.seed, from, tokens });
            }
        }
        let is_same = grown.is_empty() && now.len() == self.0.len();
        self.0 = now;
        (!is_same).then_some(Addition { n: entries.len(), grown })
    }
}

// === impl Addition ===

/// The journal that additions make, in the order in which they were made.
pub(crate) fn restored(additions: impl IntoIterator<Item = Addition>) -> Vec<JournalEntry> {
    let mut kept: Vec<(u64, u64, Vec<u32>)> = Vec::new();
    for addition in additions {
        for Grown { i, fingerprint, seed, from, tokens } in addition.grown {
            if i > kept.len() {
                // an addition is missing: what follows cannot be used
                break;
            }
            if i == kept.len() {
                kept.push((fingerprint, seed, Vec::new()));
            }
            let entry = &mut kept[i];
            (entry.0, entry.1) = (fingerprint, seed);
            entry.2.truncate(from);
            entry.2.extend(tokens);
        }
        kept.truncate(addition.n);
    }
    let entry = |(fingerprint, seed, tokens): (u64, u64, Vec<u32>)| {
        let log = TokenLog::default();
        for token in tokens {
            log.push(Logged::bare(token));
        }
        JournalEntry { fingerprint, seed, log }
    };
    kept.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_told_again_from_any_byte() {
        let mut pieces = Pieces::default();
        let long = "x".repeat(300);
        for piece in ["ab", "", "cde", &long] {
            pieces.push(piece);
        }
        assert_eq!(pieces.from(0).collect::<Vec<_>>(), [("ab", 2), ("cde", 5), (long.as_str(), 305)]);
        assert_eq!(pieces.from(3).collect::<Vec<_>>(), [("de", 5), (long.as_str(), 305)]);
        assert_eq!(pieces.from(305).count(), 0);
        let mut twice = pieces.clone();
        twice.append(&pieces);
        assert_eq!(twice.from(305).map(|(text, end)| (text.len(), end)).collect::<Vec<_>>(), [(2, 307), (3, 310), (300, 610)]);
    }

    fn told(entries: &[JournalEntry]) -> Vec<(u64, u64, Vec<u32>)> {
        let tokens = |entry: &JournalEntry| entry.log.from(0, usize::MAX).iter().map(|logged| logged.token).collect();
        entries.iter().map(|entry| (entry.fingerprint, entry.seed, tokens(entry))).collect()
    }

    #[test]
    fn additions_make_the_journal_that_they_were_made_of() {
        let journal = Journal::default();
        let mut mark = Mark::default();
        let mut additions: Vec<Addition> = mark.advance(&journal).into_iter().collect();
        assert!(additions.is_empty(), "nothing was generated");
        let first = journal.begin(0, 7, 1);
        first.log.push(Logged::bare(1));
        additions.extend(mark.advance(&journal));
        assert_eq!(mark.advance(&journal), None, "nothing is new");
        first.log.push(Logged::bare(2));
        journal.begin(1, 8, 2).log.push(Logged::bare(9));
        additions.extend(mark.advance(&journal));
        assert_eq!(told(&restored(additions.clone())), told(&journal.entries()));
        assert_eq!(additions[1].grown[0].tokens, [2], "only what is new is written");
        journal.begin(0, 6, 3);
        additions.extend(mark.advance(&journal));
        assert_eq!(told(&restored(additions.clone())), [(6, 3, vec![])], "what was asked differently is forgotten");
        let again = Journal::restored(restored(additions.clone()));
        let mut mark = Mark::of(&again.entries());
        again.begin(0, 6, 4).log.push(Logged::bare(5));
        additions.extend(mark.advance(&again));
        assert_eq!(told(&restored(additions)), [(6, 3, vec![5])], "a later run adds to what an earlier one kept");
    }
}

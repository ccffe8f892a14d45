//! What a run makes, beside what earlier runs of the same task made. Pure.

use llambo_inference::Journal;

use crate::{
    kept::{Mark, Pieces},
    ledger::Update,
};

/// A run that says something else than an earlier one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contradiction;

#[derive(Debug)]
pub(crate) struct Draft {
    /// What earlier runs made and this one has not said again yet; text from the beginning.
    before: String,
    /// Bytes that this run has said.
    n_said: usize,
    /// Bytes that are kept, or on the way to it.
    n_kept: usize,
    fresh: Pieces,
    n_tokens: u32,
    node: Option<String>,
    mark: Mark,
}

// === impl Draft ===

impl Draft {
    pub(crate) fn new(kept: Pieces, mark: Mark) -> Self {
        let n_kept = kept.text.len();
        Self { before: kept.text, n_said: 0, n_kept, fresh: Pieces::default(), n_tokens: 0, node: None, mark }
    }

    pub(crate) fn served_by(&mut self, node: String) {
        self.node = Some(node);
    }

    /// The next piece of this run.
    pub(crate) fn push(&mut self, piece: &str, n_tokens: u32) -> Result<(), Contradiction> {
        let rest = self.before.as_bytes().get(self.n_said..).unwrap_or_default();
        let n_same = rest.len().min(piece.len());
        // an end within a character is no end of a piece, so that the bytes differ as well
        let Some(new) = piece.get(n_same..).filter(|_| piece.as_bytes()[..n_same] == rest[..n_same]) else {
            return Err(Contradiction);
        };
        self.fresh.push(new);
        self.n_said += piece.len();
        self.n_tokens = self.n_tokens.saturating_add(n_tokens);
        Ok(())
    }

    /// The run is over. It must have said all that the earlier ones did.
    pub(crate) fn finish(&self) -> Result<(), Contradiction> {
        if self.n_said < self.before.len() { Err(Contradiction) } else { Ok(()) }
    }

    /// What earlier runs made is forgotten: `piece`, which contradicted it, counts, and what this run said before.
    pub(crate) fn begin_anew(&mut self, piece: &str, n_tokens: u32) {
        let mut fresh = Pieces::default();
        fresh.push(self.before.get(..self.n_said.min(self.before.len())).unwrap_or_default());
        self.n_said += piece.len();
        fresh.push(piece);
        (self.before, self.n_kept, self.fresh) = (String::new(), 0, fresh);
        self.n_tokens = self.n_tokens.saturating_add(n_tokens);
        self.mark = Mark::default();
    }

    /// Whether there is something that a reader could be told.
    pub(crate) fn has_news(&self) -> bool {
        self.node.is_some() || !self.fresh.text.is_empty()
    }

    /// Tokens that this run made.
    pub(crate) fn n_tokens(&self) -> u32 {
        self.n_tokens
    }

    /// All that is not kept yet; from now on it counts as kept.
    pub(crate) fn take(&mut self, journal: &Journal) -> Update {
        let pieces = std::mem::take(&mut self.fresh);
        let at_byte = self.n_kept;
        self.n_kept += pieces.text.len();
        Update { node: self.node.take(), at_byte, pieces, addition: self.mark.advance(journal), n_tokens: self.n_tokens }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(kept: &str) -> Draft {
        let mut pieces = Pieces::default();
        pieces.push(kept);
        Draft::new(pieces, Mark::default())
    }

    fn fresh(draft: &mut Draft) -> (usize, String) {
        let update = draft.take(&Journal::default());
        (update.at_byte, update.pieces.text)
    }

    #[test]
    fn what_is_said_again_is_not_kept_again() {
        let mut draft = draft("one two");
        for piece in ["on", "e t", "wo three", " four"] {
            draft.push(piece, 1).unwrap();
        }
        assert_eq!(fresh(&mut draft), (7, " three four".into()));
        draft.push(" five", 1).unwrap();
        assert_eq!(fresh(&mut draft), (18, " five".into()));
        assert_eq!((draft.finish(), draft.n_tokens()), (Ok(()), 5));
    }

    #[test]
    fn what_differs_is_a_contradiction_wherever_it_does() {
        assert_eq!(draft("one").push("two", 1), Err(Contradiction));
        assert_eq!(draft("one").push("onto", 1), Err(Contradiction));
        let mut within = draft("é");
        assert_eq!(within.push("è", 1), Err(Contradiction));
        let mut short = draft("one two");
        short.push("one", 1).unwrap();
        assert_eq!(short.finish(), Err(Contradiction), "it ended before it had said all");
    }

    #[test]
    fn what_nobody_heard_is_replaced() {
        let mut draft = draft("one two three");
        draft.push("one", 1).unwrap();
        assert_eq!(draft.push(" 2", 1), Err(Contradiction));
        draft.begin_anew(" 2", 1);
        draft.push(" 3", 1).unwrap();
        assert_eq!(fresh(&mut draft), (0, "one 2 3".into()));
        assert_eq!((draft.finish(), draft.n_tokens()), (Ok(()), 3));
    }
}

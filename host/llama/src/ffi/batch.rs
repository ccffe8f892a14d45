//! What one call to decode is given.

use super::{Context, Token};
use crate::error::LlamaError;

/// Tokens of one call to decode. Capacity is kept between calls.
#[derive(Default)]
pub(crate) struct Batch {
    pub(super) tokens: Vec<Token>,
    pub(super) positions: Vec<i32>,
    pub(super) sequences: Vec<i32>,
    pub(super) outputs: Vec<i8>,
    pub(super) counts: Vec<i32>,
    pub(super) pointers: Vec<*mut i32>,
}

// === impl Batch ===

impl Batch {
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.outputs.clear();
        self.counts.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Adds one token and returns its place.
    pub(crate) fn push(&mut self, token: Token, position: usize, sequence: usize, wants_output: bool) -> usize {
        self.tokens.push(token);
        // out of range becomes -1, which `check` refuses
        self.positions.push(i32::try_from(position).unwrap_or(-1));
        self.sequences.push(i32::try_from(sequence).unwrap_or(-1));
        self.outputs.push(i8::from(wants_output));
        self.counts.push(1);
        self.tokens.len() - 1
    }

    /// Whose tokens are in it, by sequence id.
    pub(crate) fn sequences(&self) -> impl Iterator<Item = usize> {
        let mut ids: Vec<usize> = self.sequences.iter().filter_map(|&id| usize::try_from(id).ok()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter()
    }

    /// `(token, position, sequence, wants output)`, in order.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> Vec<(Token, usize, usize, bool)> {
        let place = |n: i32| usize::try_from(n).unwrap_or(usize::MAX);
        (0..self.len())
            .map(|i| (self.tokens[i], place(self.positions[i]), place(self.sequences[i]), self.outputs[i] != 0))
            .collect()
    }

    /// Everything that llama.cpp would abort over.
    pub(super) fn check(&self, context: &Context) -> Result<(), LlamaError> {
        let within = |value: i32, limit: usize| usize::try_from(value).is_ok_and(|v| v < limit);
        if self.tokens.is_empty() || self.tokens.len() > context.n_batch {
            return Err(LlamaError::BadBatch("its size is zero or over the limit"));
        }
        if !self.tokens.iter().all(|&t| context.model.has(t)) {
            return Err(LlamaError::BadBatch("a token is not in the vocabulary"));
        }
        if !self.positions.iter().all(|&p| within(p, context.n_positions)) {
            return Err(LlamaError::BadBatch("a position lies beyond the context"));
        }
        if !self.sequences.iter().all(|&s| within(s, context.n_sequences)) {
            return Err(LlamaError::BadBatch("a sequence id is out of range"));
        }
        Ok(())
    }
}

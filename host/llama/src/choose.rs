//! A sequence at its logits: it chooses the next token, several where these were guessed, or measures those that are there.

use llambo_inference::{InferenceError, Instant};

use crate::{error::LlamaError, load::LoadedModel, sampler::Candidate, sequence::Sequence};

/// A sequence taken out of its place, with its rows of the last call.
pub(crate) struct Choosing<'a> {
    pub(crate) id: usize,
    pub(crate) sequence: Box<Sequence>,
    pub(crate) logits: Option<&'a mut [f32]>,
    /// Further rows, of a measurement or of guesses.
    pub(crate) more: Vec<Option<&'a mut [f32]>>,
    /// Tokens that were chosen, or measured; the last one may be the end of the text.
    pub(crate) taken: Result<usize, InferenceError>,
}

impl Choosing<'_> {
    /// Takes row by row, as long as they are its own. `failed` says why there are none.
    pub(crate) fn choose(
        &mut self,
        failed: Option<&InferenceError>,
        candidates: &mut Vec<Candidate>,
        model: &LoadedModel,
        now: Instant,
    ) {
        let rows = std::iter::once(self.logits.take()).chain(self.more.drain(..));
        for (n, row) in rows.enumerate() {
            let chosen = match (failed, row) {
                (Some(error), _) => Err(error.clone()),
                (None, None) => Err(LlamaError::BadBatch("an output is missing").into()),
                (None, Some(logits)) => self.sequence.take_logits(logits, candidates, model, now).map_err(InferenceError::from),
            };
            self.taken = chosen.map(|()| n + 1);
            // behind a wrong guess nothing is the sequence's own
            if self.taken.is_err() || !(self.sequence.is_measured() || self.sequence.guessed_right(n)) {
                break;
            }
        }
    }
}

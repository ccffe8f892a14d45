//! Which tokens are computed next. Pure but for the sequences' own progress.

use crate::{ffi::Batch, step::admit::Slots};

/// Where in a batch the logits of a sequence's next token will be: `(sequence id, place)`.
pub(crate) type Outputs = Vec<(usize, usize)>;

/// Fills `batch` with prompt tokens, at most `budget`: shortest remainder first, so that many short prompts are not held up by one long
/// one, and whole prompts where they fit.
pub(crate) fn prefill(slots: &mut Slots, budget: usize, batch: &mut Batch, outputs: &mut Outputs) {
    batch.clear();
    outputs.clear();
    let mut order: Vec<(usize, usize)> =
        (0..).zip(slots.iter()).filter_map(|(id, slot)| Some((id, slot.as_ref()?.n_unfed()))).collect();
    order.retain(|&(_, n_unfed)| n_unfed > 0);
    order.sort_by_key(|&(id, n_unfed)| (n_unfed, id));
    for (id, _) in order {
        let left = budget - batch.len();
        let Some(sequence) = slots[id].as_mut().filter(|_| left > 0) else { break };
        let n = sequence.n_unfed().min(left);
        for _ in 0..n {
            let is_last = sequence.n_unfed() == 1;
            let place = batch.push(sequence.prompt[sequence.n_fed], sequence.n_fed, id, is_last);
            sequence.n_fed += 1;
            if is_last {
                outputs.push((id, place));
            }
        }
    }
}

/// Fills `batch` with the next token of every sequence that has one, and free ids between them with a token that is forgotten
/// afterwards (their ids go to `fillers`): llama.cpp computes only runs of consecutive ids as one batch.
pub(crate) fn decode(slots: &Slots, batch: &mut Batch, outputs: &mut Outputs, fillers: &mut Vec<usize>) {
    batch.clear();
    outputs.clear();
    fillers.clear();
    let ready = |id: usize| slots[id].as_ref().is_some_and(|s| s.can_decode());
    let Some(highest) = (0..slots.len()).rev().find(|&id| ready(id)) else { return };
    let n_ready = (0..=highest).filter(|&id| ready(id)).count();
    let n_free = (0..=highest).filter(|&id| slots[id].is_none()).count();
    // with more holes than work the holes cost more than they save
    let fill = n_free <= n_ready;
    for (id, slot) in slots.iter().enumerate().take(highest + 1) {
        match slot {
            Some(sequence) if sequence.can_decode() => {
                outputs.push((id, batch.push(sequence.last, sequence.n_cached(), id, true)));
            }
            None if fill && !outputs.is_empty() => {
                batch.push(0, 0, id, false);
                fillers.push(id);
            }
            _ => {}
        }
    }
}

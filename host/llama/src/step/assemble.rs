//! Which tokens are computed next. Pure but for the sequences' own progress.

use crate::{
    ffi::Batch,
    sequence::Sequence,
    step::{fair::Accounts, slots::Slots},
};

/// Where in a batch the logits of a sequence's next token will be: `(sequence id, place)`.
pub(crate) type Outputs = Vec<(usize, usize)>;

/// Logits that measurements are given in one call, all together: each are as many floats as the vocabulary has tokens, and llama.cpp never gives
/// back what it took for them.
const MOST_OUTPUTS: usize = 64;

/// A stream that is given a token only so that there is no hole in the batch, and the tokens it keeps of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filler {
    pub(crate) id: usize,
    pub(crate) n_kept: usize,
}

/// Fills `batch` with tokens of prompts, at most `budget`. Half of it goes to whoever's turn it is by its share of the batch, so that a
/// long prompt gets on however many short ones come; the rest to the shortest first, whole where they fit, so that these do not wait
/// for a long one.
pub(crate) fn prefill(slots: &mut Slots, turns: &Accounts, budget: usize, batch: &mut Batch, outputs: &mut Outputs) {
    batch.clear();
    outputs.clear();
    let unfed = |slots: &Slots, id: usize| slots[id].as_ref().map_or(0, |s| s.n_to_prefill());
    let mut order: Vec<usize> = (0..slots.len()).filter(|&id| unfed(slots, id) > 0).collect();
    let turn = order.iter().copied().filter_map(|id| Some((turns.turn(&slots[id].as_ref()?.share), id)));
    let Some((_, first)) = turn.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))) else { return };
    take(&mut slots[first], first, budget.div_ceil(2), batch, outputs);
    order.sort_by_key(|&id| (unfed(slots, id), id));
    for id in order {
        let left = budget - batch.len();
        if left == 0 {
            break;
        }
        if id != first {
            take(&mut slots[id], id, left, batch, outputs);
        }
    }
    // what nobody else needed
    let left = budget - batch.len();
    if left > 0 && unfed(slots, first) > 0 {
        take(&mut slots[first], first, left, batch, outputs);
    }
}

fn take(slot: &mut Option<Box<Sequence>>, id: usize, at_most: usize, batch: &mut Batch, outputs: &mut Outputs) {
    let Some(sequence) = slot else { return };
    for _ in 0..sequence.n_to_prefill().min(at_most) {
        if sequence.is_measured() && outputs.len() >= MOST_OUTPUTS {
            break;
        }
        let (token, position) = sequence.feed();
        let is_wanted = sequence.wants_logits(position);
        let place = batch.push(token, position, id, is_wanted);
        if is_wanted {
            outputs.push((id, place));
        }
    }
}

/// Fills `batch` with the next token of every sequence that has one. llama.cpp computes only runs of consecutive ids as one batch, so the holes
/// between them are filled: with a token of the prompt of whoever is not that far yet, and in free streams with a token that is forgotten
/// afterwards. `free` says what a free stream keeps; `None` that it has no room for one more.
pub(crate) fn decode(
    slots: &mut Slots,
    free: impl Fn(usize) -> Option<usize>,
    batch: &mut Batch,
    outputs: &mut Outputs,
    fillers: &mut Vec<Filler>,
) {
    batch.clear();
    outputs.clear();
    fillers.clear();
    let is_ready = |slots: &Slots, id: usize| slots[id].as_ref().is_some_and(|s| s.can_decode());
    let Some(highest) = (0..slots.len()).rev().find(|&id| is_ready(slots, id)) else { return };
    let n_ready = (0..=highest).filter(|&id| is_ready(slots, id)).count();
    let n_free = (0..=highest).filter(|&id| slots[id].is_none()).count();
    // with guesses the others have more than one token each, and are computed apart anyway
    let has_guesses = slots.iter().flatten().any(|sequence| sequence.has_guesses());
    // with more holes than work the holes cost more than they save
    let fill = n_free <= n_ready && !has_guesses;
    for (id, slot) in slots.iter_mut().enumerate().take(highest + 1) {
        match slot {
            Some(sequence) if sequence.can_decode() => {
                let (token, position) = sequence.feed();
                outputs.push((id, batch.push(token, position, id, true)));
                for (token, position) in sequence.feed_guesses() {
                    outputs.push((id, batch.push(token, position, id, true)));
                }
            }
            // from the first on, as free streams: what comes before it is no hole
            Some(_) if fill && !batch.is_empty() => take(slot, id, 1, batch, outputs),
            None if fill && !batch.is_empty() => {
                if let Some(n_kept) = free(id) {
                    batch.push(0, n_kept, id, false);
                    fillers.push(Filler { id, n_kept });
                }
            }
            _ => {}
        }
    }
}

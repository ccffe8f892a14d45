//! Who gets a sequence id: first come, first served, the lowest free id first.

use std::collections::VecDeque;

use crate::sequence::Sequence;

/// The sequences that have a place in the KV cache, by sequence id.
pub(crate) type Slots = Vec<Option<Box<Sequence>>>;

/// Moves waiting sequences to free ids and returns how many.
pub(crate) fn admit(waiting: &mut VecDeque<Box<Sequence>>, slots: &mut Slots) -> usize {
    let mut n = 0;
    for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
        // whoever went away while waiting needs no place; `retire` ends the others' waiting
        let Some(sequence) = std::iter::from_fn(|| waiting.pop_front()).find(|s| !s.events.is_cancelled()) else { break };
        *slot = Some(sequence);
        n += 1;
    }
    n
}

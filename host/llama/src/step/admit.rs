//! Who gets a sequence id, and who gives one up for it. Pure.

use std::collections::VecDeque;

use crate::{
    kv::{kept::WORTH_REUSING, radix::common},
    sequence::Sequence,
    step::{fair::Accounts, slots::Slots},
};

/// Tokens that a sequence generates before it may have to make room for one that waits: long enough that moving its keys and values
/// costs a few hundredths of it.
pub(crate) const QUANTUM_TOKENS: u32 = 256;

/// The waiting sequence whose turn it is, of those that `may_start`; among equals the one that waits longest.
pub(crate) fn next(
    waiting: &VecDeque<Box<Sequence>>,
    turns: &Accounts,
    mut may_start: impl FnMut(&Sequence) -> bool,
) -> Option<usize> {
    // one whose reader is behind would only hold its place; one whose reader is gone leaves with the next `retire`
    let is_ready = |sequence: &Sequence| sequence.paused_since.is_none() && !sequence.events.is_cancelled();
    let ready = waiting.iter().enumerate().filter(|(_, sequence)| is_ready(sequence));
    let mut order: Vec<_> = ready.map(|(i, sequence)| (turns.turn(&sequence.share), i)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    order.into_iter().map(|(_, i)| i).find(|&i| may_start(&waiting[i]))
}

/// Tokens that `sequence` will have in common with one of its tenant whose prompt is being computed: waiting for these is quicker
/// than computing them beside it.
pub(crate) fn soon_in_common(slots: &Slots, sequence: &Sequence) -> usize {
    let others = slots.iter().flatten().filter(|other| other.n_to_prefill() > 0 && other.share.tenant == sequence.share.tenant);
    let most = sequence.n_reusable();
    others.map(|other| common(&other.tokens, &sequence.tokens[..most])).filter(|n| *n >= WORTH_REUSING).max().unwrap_or(0)
}

/// Whether a waiting sequence could get a place at all.
pub(crate) fn has_room(slots: &Slots) -> bool {
    let may_go = |s: &Sequence| s.paused_since.is_some() || s.n_generated_since() >= QUANTUM_TOKENS;
    slots.iter().any(|slot| slot.as_deref().is_none_or(may_go))
}

/// The sequence that makes room for `waiting`: one whose reader is behind, or the one furthest past its turn of those that had
/// their quantum and more than `waiting` had.
pub(crate) fn displaced(slots: &Slots, turns: &Accounts, waiting: &Sequence) -> Option<usize> {
    let running = || (0..).zip(slots).filter_map(|(id, slot)| Some((id, slot.as_deref()?))).filter(|(_, s)| !s.ended);
    if let Some((id, _)) = running().find(|(_, s)| s.paused_since.is_some()) {
        return Some(id);
    }
    let turn = turns.turn(&waiting.share);
    running()
        .filter(|(_, s)| s.can_decode() && s.n_generated_since() >= QUANTUM_TOKENS)
        .map(|(id, s)| (turns.turn(&s.share), id))
        .filter(|(theirs, _)| theirs.total_cmp(&turn).is_gt())
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, id)| id)
}

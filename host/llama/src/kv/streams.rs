//! The streams of a context, and what is kept of them when their sequences are done.

use std::sync::Arc;

use llambo_inference::TenantName;

use super::{
    disk::{Disk, Done, Found as OnDisk},
    kept::{Budgets, Copy, Found, KeptIndex, Leaving, Place, WORTH_KEEPING, WORTH_REUSING},
};
use crate::{
    ffi::{Context, Token},
    sequence::Sequence,
    step::{admit::soon_in_common, slots::Slots},
};

/// Streams beyond the lowest free one that are as good: the batch computes at most so many fillers for them.
const NEAR: usize = 2;

/// The context with its streams, and the index of what is kept.
pub(crate) struct Streams {
    pub(crate) context: Context,
    pub(super) kept: KeptIndex,
    disk: Option<Disk>,
}

// === impl Streams ===

impl Streams {
    /// Streams with nothing in them, and an index of what is on disk.
    pub(crate) fn new(context: Context, kept: KeptIndex, disk: Option<(Disk, Vec<OnDisk>)>) -> Self {
        let mut streams = Self { context, kept, disk: None };
        let Some((mut disk, found)) = disk else { return streams };
        for file in found {
            let id = streams.kept.put_disk(&file.tenant, &file.tokens, file.n_bytes);
            disk.adopt(id, file);
        }
        streams.disk = Some(disk);
        // what is over the budget now goes
        streams.settle();
        streams
    }

    /// Bytes kept outside of streams.
    pub(crate) fn kept(&self) -> Budgets {
        self.kept.used()
    }

    /// Takes note of what the disk has done.
    pub(crate) fn settle(&mut self) {
        while let Some(done) = self.disk.as_ref().and_then(Disk::done) {
            match done {
                Done::Wrote { id, is_written } => self.kept.end_write(id, is_written),
                Done::Read { id, copy } => {
                    let leaving = self.kept.end_read(id, copy);
                    self.write_out(leaving);
                }
            }
        }
        if let Some(disk) = &mut self.disk {
            self.kept.unwanted_files().for_each(|id| disk.delete(id));
        }
    }

    /// Whether more of `sequence` will soon be there than is now: another one computes it, or it comes from disk.
    pub(crate) fn is_worth_waiting(&mut self, slots: &Slots, sequence: &Sequence) -> bool {
        let most = sequence.n_reusable();
        let mut n_now = 0;
        if let Some(found) = self.kept.find(&sequence.share.tenant, &sequence.tokens[..most]) {
            match found.place {
                Place::Reading { .. } => return true,
                Place::Disk { .. } if self.read_in(&found) => return true,
                Place::Disk { .. } => {}
                Place::Stream(_) | Place::Memory(_) | Place::Writing(_) => n_now = found.n_common,
            }
        }
        soon_in_common(slots, sequence) >= n_now + WORTH_REUSING
    }

    /// Gives `sequence` a free stream, with as much in it as is kept of its tokens. Returns the stream and how many tokens those are;
    /// `None` when no stream is free.
    pub(crate) fn start(&mut self, slots: &Slots, sequence: &Sequence) -> Option<(usize, usize)> {
        let lowest = slots.iter().position(Option::is_none)?;
        let most = sequence.n_reusable();
        let Some(found) = self.kept.find(&sequence.share.tenant, &sequence.tokens[..most]) else {
            self.clear(lowest);
            return Some((lowest, 0));
        };
        let copy = match found.place {
            Place::Stream(id) if slots[id].is_none() && id <= lowest + NEAR => {
                if found.tokens.len() - found.n_common >= WORTH_KEEPING {
                    self.copy_out(id);
                }
                self.kept.forget_stream(id);
                let n = if self.context.truncate(id, found.n_common) { found.n_common } else { 0 };
                return Some((id, n));
            }
            Place::Stream(id) => {
                let copy = self.copy_of(id, slots).map(|(_, copy)| copy);
                if slots[id].is_none() {
                    self.forget(id);
                }
                copy
            }
            Place::Memory(copy) | Place::Writing(copy) => Some(copy),
            Place::Disk { .. } | Place::Reading { .. } => None,
        };
        self.clear(lowest);
        let is_there = copy.is_some_and(|copy| self.context.restore(lowest, &copy));
        let n = if is_there && self.context.truncate(lowest, found.n_common) { found.n_common } else { 0 };
        Some((lowest, n))
    }

    /// Others may start from what this sequence has computed.
    pub(crate) fn computed(&mut self, id: usize, sequence: &Sequence) {
        if sequence.n_fed >= WORTH_REUSING {
            self.kept.put_stream(id, &sequence.share.tenant, &sequence.tokens[..sequence.n_fed]);
        }
    }

    /// The sequence leaves its stream. What it computed stays there until the stream is needed.
    pub(crate) fn leave(&mut self, id: usize, sequence: &Sequence) {
        if sequence.n_fed >= WORTH_REUSING {
            self.computed(id, sequence);
        } else {
            self.forget(id);
        }
    }

    /// The stream holds nothing that can be used.
    pub(crate) fn forget(&mut self, id: usize) {
        self.kept.forget_stream(id);
        self.context.forget(id);
    }

    /// Tokens that a free stream keeps; `None` when it has no room for one more.
    pub(crate) fn n_kept(&self, id: usize) -> Option<usize> {
        let n = self.kept.stream(id).map_or(0, |(_, tokens)| tokens.len());
        (n < self.context.n_positions()).then_some(n)
    }

    /// Takes back what came after the first `n` tokens of a free stream.
    pub(crate) fn truncate(&mut self, id: usize, n: usize) {
        if n == 0 {
            self.context.forget(id);
        } else if !self.context.truncate(id, n) {
            self.kept.forget_stream(id);
        }
    }

    /// Takes back what came after the first `n` tokens of a stream in use.
    pub(crate) fn take_back(&mut self, id: usize, n: usize) {
        self.context.truncate(id, n);
    }

    /// Copies one free stream that has no copy yet, so that it can be emptied at once when it is needed. False when there is none.
    pub(crate) fn copy_ahead(&mut self, slots: &Slots) -> bool {
        (0..slots.len()).filter(|&id| slots[id].is_none()).any(|id| self.copy_out(id))
    }

    /// Empties a stream for somebody else, and keeps a copy if it is worth it.
    fn clear(&mut self, id: usize) {
        self.copy_out(id);
        self.forget(id);
    }

    /// Keeps a copy of a stream that is worth it and has none. Whether it did.
    fn copy_out(&mut self, id: usize) -> bool {
        let Some((tenant, tokens)) = self.kept.stream(id).map(|(t, k)| (t.clone(), Arc::clone(k))) else { return false };
        let is_worth_it = tokens.len() >= WORTH_KEEPING && !self.kept.has_copy(&tenant, &tokens);
        is_worth_it && self.kept.has_memory_for(self.context.saved_bytes(id) as u64) && self.save(id, &tenant, &tokens).is_some()
    }

    /// A copy of what a stream holds and the tokens that is, whether its sequence still computes or not.
    pub(super) fn copy_of(&mut self, id: usize, slots: &Slots) -> Option<(Arc<[Token]>, Copy)> {
        let (tenant, tokens) = match &slots[id] {
            Some(sequence) => (sequence.share.tenant.clone(), Arc::from(&sequence.tokens[..sequence.n_fed])),
            None => self.kept.stream(id).map(|(tenant, tokens)| (tenant.clone(), Arc::clone(tokens)))?,
        };
        let copy = self.save(id, &tenant, &tokens)?;
        Some((tokens, copy))
    }

    fn save(&mut self, id: usize, tenant: &TenantName, tokens: &[Token]) -> Option<Copy> {
        let copy = Arc::new(self.context.save(id)?);
        let leaving = self.kept.put_copy(tenant, tokens, Arc::clone(&copy));
        self.write_out(leaving);
        Some(copy)
    }

    pub(super) fn write_out(&mut self, leaving: Vec<Leaving>) {
        for leaving in leaving {
            let id = leaving.id;
            if !self.disk.as_mut().is_some_and(|disk| disk.write(leaving)) {
                self.kept.end_write(id, false);
            }
        }
    }

    /// False when it will not come.
    pub(super) fn read_in(&mut self, found: &Found) -> bool {
        let is_asked = self.kept.start_read(found.id) && self.disk.as_mut().is_some_and(|disk| disk.read(found.id));
        if !is_asked {
            self.kept.end_read(found.id, None);
        }
        is_asked
    }
}

//! The index of what is kept, with its budgets. Pure: it holds bytes, and never asks llama.cpp or a disk for them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use llambo_inference::TenantName;

use super::{
    allowance::Allowances,
    radix::{Radix, common},
};
use crate::ffi::Token;

/// Tokens that are worth a copy; computing fewer takes about as long.
pub(crate) const WORTH_KEEPING: usize = 32;
/// Tokens in common that are worth starting from.
pub(crate) const WORTH_REUSING: usize = 16;

/// Names one kept beginning.
pub(crate) type KeptId = u64;

/// A copy of a sequence's KV cache.
pub(crate) type Copy = Arc<Vec<u8>>;

/// Where a beginning is kept.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In the stream of this sequence id, which a sequence may still be using.
    Stream(usize),
    Memory(Copy),
    /// In memory until it is written.
    Writing(Copy),
    Disk {
        n_bytes: u64,
    },
    /// On disk, and asked for.
    Reading {
        n_bytes: u64,
    },
}

/// A beginning that a sequence can start from.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) id: KeptId,
    /// Tokens in common.
    pub(crate) n_common: usize,
    /// What it has.
    pub(crate) tokens: Arc<[Token]>,
    pub(crate) place: Place,
}

/// A beginning that has to leave memory.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) id: KeptId,
    pub(crate) tenant: TenantName,
    pub(crate) tokens: Arc<[Token]>,
    pub(crate) copy: Copy,
}

/// Bytes that copies may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Budgets {
    pub(crate) memory: u64,
    pub(crate) disk: u64,
}

#[derive(Debug)]
struct Entry {
    tenant: TenantName,
    tokens: Arc<[Token]>,
    place: Place,
    /// Of one in memory that was read from disk: bytes of its file, which is still there. Else 0.
    file_bytes: u64,
    /// When it was last used: its key in `in_memory` or `on_disk`.
    used: u64,
}

/// All that is kept for one model.
pub(crate) struct KeptIndex {
    budgets: Budgets,
    trees: HashMap<TenantName, Radix<KeptId>>,
    entries: HashMap<KeptId, Entry>,
    streams: Vec<Option<KeptId>>,
    /// By last use, what could leave memory, and what could leave the disk.
    in_memory: BTreeMap<u64, KeptId>,
    on_disk: BTreeMap<u64, KeptId>,
    clock: u64,
    used: Budgets,
    allowances: Allowances,
    /// Bytes on their way to disk.
    writing: u64,
    /// Whose files are to be deleted.
    unwanted: Vec<KeptId>,
}

// === impl KeptIndex ===

impl KeptIndex {
    pub(crate) fn new(n_streams: usize, budgets: Budgets, allowances: Allowances) -> Self {
        Self {
            budgets,
            allowances,
            trees: HashMap::new(),
            entries: HashMap::new(),
            streams: vec![None; n_streams],
            in_memory: BTreeMap::new(),
            on_disk: BTreeMap::new(),
            clock: 0,
            used: Budgets::default(),
            writing: 0,
            unwanted: Vec::new(),
        }
    }

    /// Bytes in memory and on disk.
    pub(crate) fn used(&self) -> Budgets {
        Budgets { memory: self.used.memory + self.writing, disk: self.used.disk }
    }

    /// Whether a copy of that many bytes could be kept at all.
    pub(crate) fn has_memory_for(&self, n_bytes: u64) -> bool {
        n_bytes <= self.budgets.memory
    }

    /// The best to start `tokens` from. What is at hand goes before what has to be copied, and that before what has to be read.
    pub(crate) fn find(&mut self, tenant: &TenantName, tokens: &[Token]) -> Option<Found> {
        let cost = |place: &Place| match place {
            Place::Memory(_) | Place::Writing(_) => 0,
            Place::Stream(_) => 1,
            Place::Reading { .. } => 2,
            Place::Disk { .. } => 3,
        };
        let (n_common, id) = self
            .trees
            .get(tenant)?
            .longest(tokens)
            .into_iter()
            .filter(|(n, _)| *n >= WORTH_REUSING)
            .min_by_key(|(n, id)| (std::cmp::Reverse(*n), self.entries.get(id).map(|e| (cost(&e.place), e.tokens.len()))))?;
        self.touch(id);
        let entry = self.entries.get(&id)?;
        Some(Found { id, n_common, tokens: Arc::clone(&entry.tokens), place: entry.place.clone() })
    }

    /// What the stream of that sequence id holds: its tokens.
    pub(crate) fn stream(&self, stream: usize) -> Option<(&TenantName, &Arc<[Token]>)> {
        let id = (*self.streams.get(stream)?)?;
        self.entries.get(&id).map(|e| (&e.tenant, &e.tokens))
    }

    /// Notes what a stream holds, in place of what it held before.
    pub(crate) fn put_stream(&mut self, stream: usize, tenant: &TenantName, tokens: &[Token]) {
        self.forget_stream(stream);
        let id = self.add(tenant, tokens.into(), Place::Stream(stream));
        self.streams[stream] = Some(id);
    }

    /// The stream is used for something else.
    pub(crate) fn forget_stream(&mut self, stream: usize) {
        if let Some(id) = self.streams[stream].take() {
            self.remove(id);
        }
    }

    /// Whether a copy of all these tokens, or of more, is kept outside of streams.
    pub(crate) fn has_copy(&self, tenant: &TenantName, tokens: &[Token]) -> bool {
        let Some(tree) = self.trees.get(tenant) else { return false };
        let is_copy = |id| self.entries.get(id).is_some_and(|e| !matches!(e.place, Place::Stream(_)));
        tree.longest(tokens).iter().any(|(n, id)| *n == tokens.len() && is_copy(id))
    }

    /// Keeps a copy, and says what has to leave memory for it. A copy that is larger than all memory, or than what its tenant may hold, is not kept.
    pub(crate) fn put_copy(&mut self, tenant: &TenantName, tokens: &[Token], copy: Copy) -> Vec<Leaving> {
        let n_bytes = copy.len() as u64;
        if !self.has_memory_for(n_bytes) || !self.allowances.permit(tenant, n_bytes) || self.has_copy(tenant, tokens) {
            return Vec::new();
        }
        self.remove_beginnings_of(tenant, tokens);
        self.add(tenant, tokens.into(), Place::Memory(copy));
        self.hold_to_allowance(tenant);
        self.make_room()
    }

    /// A copy is asked for from disk. False when it need not be.
    pub(crate) fn start_read(&mut self, id: KeptId) -> bool {
        let Some(Place::Disk { n_bytes }) = self.entries.get(&id).map(|e| &e.place) else { return false };
        let n_bytes = *n_bytes;
        self.change(id, |entry| entry.place = Place::Reading { n_bytes });
        true
    }

    /// A copy came from disk, or did not. Says what has to leave memory for it.
    pub(crate) fn end_read(&mut self, id: KeptId, copy: Option<Copy>) -> Vec<Leaving> {
        match copy {
            Some(copy) if self.has_memory_for(copy.len() as u64) && self.entries.contains_key(&id) => {
                let file_bytes = copy.len() as u64;
                self.change(id, |entry| (entry.place, entry.file_bytes) = (Place::Memory(copy), file_bytes));
                self.make_room()
            }
            _ => {
                self.unwanted.push(id);
                self.remove(id);
                Vec::new()
            }
        }
    }

    /// A copy was written to disk, or could not be.
    pub(crate) fn end_write(&mut self, id: KeptId, written: bool) {
        match self.entries.get(&id).map(|e| &e.place) {
            Some(Place::Writing(copy)) if written => {
                let n_bytes = copy.len() as u64;
                self.change(id, |entry| entry.place = Place::Disk { n_bytes });
                self.trim_disk();
            }
            Some(Place::Writing(_)) => self.remove(id),
            _ => {}
        }
    }

    /// Keeps what an earlier run left on disk.
    pub(crate) fn put_disk(&mut self, tenant: &TenantName, tokens: &[Token], n_bytes: u64) -> KeptId {
        let id = self.add(tenant, tokens.into(), Place::Disk { n_bytes });
        self.hold_to_allowance(tenant);
        self.trim_disk();
        id
    }

    /// Whose files are not wanted any more. Each is told once.
    pub(crate) fn unwanted_files(&mut self) -> impl Iterator<Item = KeptId> {
        self.unwanted.drain(..)
    }

    fn add(&mut self, tenant: &TenantName, tokens: Arc<[Token]>, place: Place) -> KeptId {
        self.clock += 1;
        let id = self.clock;
        self.trees.entry(tenant.clone()).or_default().insert(&tokens, id);
        self.entries.insert(id, Entry { tenant: tenant.clone(), tokens, place, file_bytes: 0, used: id });
        self.count(id, true);
        id
    }

    fn remove(&mut self, id: KeptId) {
        self.count(id, false);
        let Some(entry) = self.entries.remove(&id) else { return };
        match entry.place {
            Place::Stream(stream) => self.streams[stream] = None,
            Place::Memory(_) if entry.file_bytes > 0 => self.unwanted.push(id),
            _ => {}
        }
        if let Some(tree) = self.trees.get_mut(&entry.tenant) {
            tree.remove(&entry.tokens, id);
            if tree.is_empty() {
                self.trees.remove(&entry.tenant);
            }
        }
    }

    fn touch(&mut self, id: KeptId) {
        self.clock += 1;
        let clock = self.clock;
        self.change(id, |entry| entry.used = clock);
    }

    /// Changes an entry, and the sums and orders that it is in with it.
    fn change(&mut self, id: KeptId, change: impl FnOnce(&mut Entry)) {
        self.count(id, false);
        self.entries.get_mut(&id).map(change);
        self.count(id, true);
    }

    /// Adds an entry to the sums and orders of its place, or takes it out of them.
    fn count(&mut self, id: KeptId, is_there: bool) {
        let Some(Entry { tenant, place, file_bytes, used, .. }) = self.entries.get(&id) else { return };
        let add = |sum: &mut u64, n: u64| *sum = if is_there { *sum + n } else { *sum - n };
        let list = |order: &mut BTreeMap<u64, KeptId>| {
            if is_there {
                order.insert(*used, id)
            } else {
                order.remove(used)
            };
        };
        let n_bytes = match place {
            Place::Stream(_) => return,
            Place::Memory(copy) => {
                add(&mut self.used.memory, copy.len() as u64);
                list(&mut self.in_memory);
                if *file_bytes > 0 {
                    add(&mut self.used.disk, *file_bytes);
                    list(&mut self.on_disk);
                }
                // one beginning, although it is in two places
                copy.len() as u64
            }
            Place::Writing(copy) => {
                add(&mut self.writing, copy.len() as u64);
                copy.len() as u64
            }
            Place::Disk { n_bytes } => {
                add(&mut self.used.disk, *n_bytes);
                list(&mut self.on_disk);
                *n_bytes
            }
            Place::Reading { n_bytes } => {
                add(&mut self.used.disk, *n_bytes);
                *n_bytes
            }
        };
        self.allowances.count(tenant, n_bytes, is_there);
    }

    /// Forgets what a tenant used longest ago while it holds more than it may.
    fn hold_to_allowance(&mut self, tenant: &TenantName) {
        let is_its = |id: &KeptId| self.entries.get(id).is_some_and(|entry| entry.tenant == *tenant);
        let mut going: Vec<(u64, KeptId)> = Vec::new();
        if self.allowances.is_passed(tenant) {
            going = self.in_memory.iter().chain(&self.on_disk).filter(|(_, id)| is_its(id)).map(|(at, id)| (*at, *id)).collect();
            going.sort_unstable();
            going.dedup();
        }
        for (_, id) in going {
            if !self.allowances.is_passed(tenant) {
                return;
            }
            if matches!(self.entries.get(&id).map(|entry| &entry.place), Some(Place::Disk { .. })) {
                self.unwanted.push(id);
            }
            self.remove(id);
        }
    }

    /// A longer copy makes those of its beginnings worthless that are not much quicker to restore.
    fn remove_beginnings_of(&mut self, tenant: &TenantName, tokens: &[Token]) {
        let Some(tree) = self.trees.get(tenant) else { return };
        for (_, id) in tree.longest(tokens) {
            let is_replaced = self.entries.get(&id).is_some_and(|e| {
                let n = e.tokens.len();
                matches!(e.place, Place::Memory(_)) && 2 * n >= tokens.len() && common(&e.tokens, tokens) == n
            });
            if is_replaced {
                self.remove(id);
            }
        }
    }

    fn make_room(&mut self) -> Vec<Leaving> {
        let mut leaving = Vec::new();
        while self.used.memory > self.budgets.memory
            && let Some((_, &id)) = self.in_memory.first_key_value()
        {
            match self.entries.get(&id) {
                // its file is still there
                Some(&Entry { file_bytes: n_bytes @ 1.., .. }) => {
                    self.change(id, |entry| (entry.place, entry.file_bytes) = (Place::Disk { n_bytes }, 0));
                }
                Some(Entry { tenant, tokens, place: Place::Memory(copy), .. }) if copy.len() as u64 <= self.budgets.disk => {
                    let (tenant, tokens, copy) = (tenant.clone(), Arc::clone(tokens), Arc::clone(copy));
                    self.change(id, |entry| entry.place = Place::Writing(Arc::clone(&copy)));
                    leaving.push(Leaving { id, tenant, tokens, copy });
                }
                _ => self.remove(id),
            }
        }
        leaving
    }

    fn trim_disk(&mut self) {
        while self.used.disk > self.budgets.disk
            && let Some((_, &id)) = self.on_disk.first_key_value()
        {
            self.unwanted.push(id);
            match self.entries.get(&id).map(|entry| &entry.place) {
                // of this one only the file goes
                Some(Place::Memory(_)) => self.change(id, |entry| entry.file_bytes = 0),
                _ => self.remove(id),
            }
        }
    }
}

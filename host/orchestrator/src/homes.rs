//! Who has probably computed which beginning of a prompt.
//!
//! A prompt is a chain of blocks of 128 bytes. The hash of a block takes in all blocks before it, and so stands for a whole beginning: prompts that
//! begin alike have their first hashes in common, and what follows changes none of them. For each hash the nodes are kept that computed it last.
//!
//! It is a guess: nodes drop what they have no room for, and texts are compared by their hashes alone. A wrong guess costs one prefill.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
    mem,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use llambo_inference::{ModelName, Prompt, Role, TenantName};

/// About 32 tokens: what is lost at the end of a beginning is less than what a prefill call computes along with the rest.
const BLOCK_BYTES: usize = 128;
/// The first 64 KiB of a prompt, about 16,000 tokens: who has these has what follows, or computes it as others would.
const MAX_BLOCKS: usize = 512;
/// Blocks of a generation. A table of 2^17 places holds as many before it grows: 6.4 MB, which makes 13 MB in all, for 14 MB of text at least.
const GENERATION: usize = (1 << 17) / 8 * 7;
/// Nodes kept for a beginning. One more is only needed when these are all busy, and then any is as good as another.
const HOMES: usize = 4;
/// Nodes found for a prompt.
const MAX_FOUND: usize = 8;

/// Keys of all hashes. New in each process, so that nobody can find texts that meet.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Node numbers by beginning. All calls may be made at the same time; each holds a lock of its own for about 50 ns for each block.
#[derive(Default)]
pub(crate) struct Homes {
    kept: Mutex<Kept>,
}

/// The beginnings of a prompt. Clones are cheap.
#[derive(Clone, Debug)]
pub(crate) struct Prefix(Arc<[Block]>);

/// A beginning that ends with a block.
#[derive(Clone, Copy, Debug)]
struct Block {
    hash: u64,
    /// UTF-8 bytes of the prompt in it.
    n_bytes: u32,
}

/// Two generations. What is noted goes into the young one; when that is full it becomes the old one, and what was old is forgotten.
#[derive(Default)]
struct Kept {
    young: Generation,
    old: Generation,
}

type Generation = HashMap<u64, Nodes, BuildHasherDefault<Hashed>>;

/// The first `n` of `numbers`, the last noted first.
#[derive(Clone, Copy, Default)]
struct Nodes {
    numbers: [u64; HOMES],
    n: usize,
}

/// Passes on what is a hash already.
#[derive(Default)]
struct Hashed(u64);

/// A prompt on its way to a [`Prefix`].
struct Chain {
    hash: u64,
    key: u64,
    block: [u8; BLOCK_BYTES],
    n_filled: usize,
    n_bytes: u32,
    blocks: Vec<Block>,
}

// === impl Homes ===

impl Homes {
    /// Nodes that have a beginning of the prompt and how many bytes of it: the longest first, among equals the last noted; each once, at most eight.
    /// They may be gone.
    pub(crate) fn find(&self, prefix: &Prefix) -> Vec<(u64, u32)> {
        let kept = self.lock();
        let known: Vec<_> = prefix.0.iter().map_while(|block| Some((*kept.get(block.hash)?, block.n_bytes))).collect();
        drop(kept);
        let mut found = Vec::new();
        for (nodes, n_bytes) in known.iter().rev() {
            for node in nodes.as_slice() {
                if found.len() == MAX_FOUND {
                    return found;
                }
                if found.iter().all(|(other, _)| other != node) {
                    found.push((*node, *n_bytes));
                }
            }
        }
        found
    }

    /// A node has the prompt, or is about to.
    pub(crate) fn note(&self, prefix: &Prefix, node: u64) {
        let mut kept = self.lock();
        kept.make_room(prefix.0.len());
        for block in &*prefix.0 {
            kept.refresh(block.hash).push(node);
        }
    }

    /// A node had nothing of the prompt.
    pub(crate) fn forget(&self, prefix: &Prefix, node: u64) {
        let mut kept = self.lock();
        for block in &*prefix.0 {
            let Some(nodes) = kept.get_mut(block.hash) else { return };
            nodes.remove(node);
            if nodes.n == 0 {
                kept.remove(block.hash);
            }
        }
    }

    /// Nothing can fail halfway under the lock, so a poisoned one guards a sound state.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Prefix ===

impl Prefix {
    /// Hashes the first 64 KiB of a prompt; what does not fill a block at its end is left out. Tenants and models have no beginnings in common.
    ///
    /// A conversation is hashed as its messages, not as its model's template writes them: two that begin alike are written alike.
    pub(crate) fn of(tenant: &TenantName, model: &ModelName, prompt: &Prompt) -> Self {
        let mut chain = Chain::new(KEYS.hash_one((tenant.as_str(), model.as_str())), KEYS.hash_one("blocks"));
        match prompt {
            Prompt::Text(text) => chain.text(text),
            Prompt::Chat(messages) => {
                for message in messages {
                    chain.role(message.role);
                    chain.text(&message.content);
                }
            }
        }
        Self(chain.blocks.into())
    }
}

// === impl Kept ===

impl Kept {
    fn get(&self, hash: u64) -> Option<&Nodes> {
        self.young.get(&hash).or_else(|| self.old.get(&hash))
    }

    fn get_mut(&mut self, hash: u64) -> Option<&mut Nodes> {
        self.young.get_mut(&hash).or_else(|| self.old.get_mut(&hash))
    }

    fn remove(&mut self, hash: u64) {
        self.young.remove(&hash);
        self.old.remove(&hash);
    }

    /// The nodes of a block, in the young generation from now on.
    fn refresh(&mut self, hash: u64) -> &mut Nodes {
        let old = &mut self.old;
        self.young.entry(hash).or_insert_with(|| old.remove(&hash).unwrap_or_default())
    }

    /// All blocks of a prompt get into one generation: none outlives those before it, without which it is not found.
    fn make_room(&mut self, n_blocks: usize) {
        if self.young.len() + n_blocks > GENERATION {
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        // whole from the start: memory is used as it fills, and nobody waits for a millisecond because it grows
        if self.young.capacity() == 0 {
            self.young.reserve(GENERATION);
        }
    }
}

// === impl Nodes ===

impl Nodes {
    fn as_slice(&self) -> &[u64] {
        &self.numbers[..self.n]
    }

    /// Puts a node first. The last one makes room, if there are four others.
    fn push(&mut self, node: u64) {
        let place = self.as_slice().iter().position(|other| *other == node).unwrap_or_else(|| {
            self.n = (self.n + 1).min(HOMES);
            self.n - 1
        });
        self.numbers[..=place].rotate_right(1);
        self.numbers[0] = node;
    }

    fn remove(&mut self, node: u64) {
        if let Some(place) = self.as_slice().iter().position(|other| *other == node) {
            self.numbers[place..self.n].rotate_left(1);
            self.n -= 1;
        }
    }
}

// === impl Hashed ===

impl Hasher for Hashed {
    fn write(&mut self, _: &[u8]) {
        unreachable!("all keys are hashes, which are written as one u64");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

// === impl Chain ===

impl Chain {
    fn new(hash: u64, key: u64) -> Self {
        Self { hash, key, block: [0; BLOCK_BYTES], n_filled: 0, n_bytes: 0, blocks: Vec::new() }
    }

    fn text(&mut self, text: &str) {
        self.push(text.as_bytes(), 1);
    }

    /// Begins a message, with two bytes that are in no text: where one ends is as much a part of a conversation as what it says.
    fn role(&mut self, role: Role) {
        let role = match role {
            Role::System => 0xfc,
            Role::User => 0xfd,
            Role::Assistant => 0xfe,
        };
        self.push(&[0xff, role], 0);
    }

    /// `weight` is 1 for bytes that are the prompt's own, and 0 for others.
    fn push(&mut self, mut bytes: &[u8], weight: u32) {
        while !bytes.is_empty() && self.blocks.len() < MAX_BLOCKS {
            let (part, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.n_filled));
            self.block[self.n_filled..][..part.len()].copy_from_slice(part);
            self.n_filled += part.len();
            self.n_bytes += weight * u32::try_from(part.len()).expect("not longer than a block");
            bytes = rest;
            if self.n_filled == BLOCK_BYTES {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        let (words, _) = self.block.as_chunks::<8>();
        for pair in words.chunks_exact(2) {
            let [a, b] = [pair[0], pair[1]].map(u64::from_le_bytes);
            self.hash = fold(self.hash ^ a, self.key ^ b);
        }
        self.n_filled = 0;
        self.blocks.push(Block { hash: self.hash, n_bytes: self.n_bytes });
    }
}

/// Both halves of a product, as wyhash (Wang Yi 2019) mixes: 16 bytes in about a nanosecond.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let [high, low] = [product >> 64, product & u128::from(u64::MAX)].map(u64::try_from);
    high.expect("the high half has 64 bits") ^ low.expect("masked to 64 bits")
}

#[cfg(test)]
mod tests;

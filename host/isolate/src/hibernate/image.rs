//! A guest's state outside of a guest: taken out of one that is idle, and put into a fresh one.

use llambo_inference::{KeptState, ModelName, TokenId};
use wasmtime::{
    Store,
    component::{ComponentNamedList, Instance, Lift, Lower},
};

use super::{
    Doors, HibernateError,
    accessor::{AIM, GROW, PEEK, POKE, READ, SCRATCH, SIZE, WRITE, getter, setter},
};
use crate::state::GuestState;

/// Memory is kept in blocks of this size, those that are not zero.
pub(crate) const BLOCK_BYTES: usize = 4096;
pub(crate) const BLOCKS_PER_PAGE: u32 = 16;
pub(crate) const MAX_PAGES: u32 = 65_536;
const PAGE_BYTES: u32 = 64 << 10;
const BLOCK: u32 = PAGE_BYTES / BLOCKS_PER_PAGE;
/// Moved at a time.
const CHUNK_BYTES: u32 = 1 << 20;
/// Accessors need next to none, and nothing of the guest's runs: more than they take.
const SLICES: u64 = 1 << 40;

/// What a guest has.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Image {
    pub(crate) memory_pages: u32,
    /// In order, apart from each other.
    pub(crate) runs: Vec<Run>,
    /// As bits.
    pub(crate) globals: Vec<u64>,
    pub(crate) branches: Vec<Named>,
}

/// Blocks of memory that are not zero.
#[derive(Debug, PartialEq)]
pub(crate) struct Run {
    /// The first one's number.
    pub(crate) at: u32,
    /// Whole blocks.
    pub(crate) bytes: Vec<u8>,
}

/// A branch that the guest keeps by name.
#[derive(Debug, PartialEq)]
pub(crate) struct Named {
    pub(crate) name: String,
    /// `None` is the type's own.
    pub(crate) model: Option<ModelName>,
    /// Of the model, in hex.
    pub(crate) sha256: String,
    pub(crate) tokens: Vec<TokenId>,
    /// What was computed for it.
    pub(crate) kept: Option<KeptState>,
}

/// A guest's memory and globals, by way of its accessors.
pub(crate) struct Access<'a> {
    pub(crate) store: &'a mut Store<GuestState>,
    pub(crate) instance: &'a Instance,
    pub(crate) doors: &'a Doors,
}

fn failed(error: &wasmtime::Error) -> HibernateError {
    HibernateError::Failed(format!("{error:#}"))
}

impl Access<'_> {
    async fn call<P, R>(&mut self, name: &str, params: P) -> Result<R, HibernateError>
    where
        P: ComponentNamedList + Lower + Send + Sync + 'static,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        self.store.set_epoch_deadline(SLICES);
        let function = self.instance.get_typed_func::<P, R>(&mut *self.store, name).map_err(|e| failed(&e))?;
        function.call_async(&mut *self.store, params).await.map_err(|e| failed(&e))
    }

    async fn write(&mut self, at: u32, bytes: Vec<u8>) -> Result<(), HibernateError> {
        self.call::<_, ()>(AIM, (at,)).await?;
        self.call::<_, ()>(WRITE, (bytes,)).await
    }

    /// Memory from `at` on. What the reading itself needs is as it was, in what is returned and in the memory.
    async fn read(&mut self, at: u32, length: u32) -> Result<Vec<u8>, HibernateError> {
        let (before,) = self.call::<_, (u64,)>(PEEK, (SCRATCH,)).await?;
        let (mut bytes,) = self.call::<_, (Vec<u8>,)>(READ, (SCRATCH, at, length)).await?;
        self.call::<_, ()>(POKE, (SCRATCH, before)).await?;
        if at <= SCRATCH
            && let Some(read) = bytes.get_mut((SCRATCH - at) as usize..).and_then(|rest| rest.get_mut(..8))
        {
            read.copy_from_slice(&before.to_le_bytes());
        }
        Ok(bytes)
    }

    async fn pages(&mut self) -> Result<u32, HibernateError> {
        if self.doors.has_memory { Ok(self.call::<_, (u32,)>(SIZE, ()).await?.0) } else { Ok(0) }
    }

    /// Memory and globals. The guest can go on as if nothing had been.
    pub(crate) async fn take(&mut self) -> Result<Image, HibernateError> {
        let mut image = Image { memory_pages: self.pages().await?, ..Image::default() };
        for n in 0..self.doors.globals.len() {
            image.globals.push(self.call::<_, (u64,)>(&getter(n), ()).await?.0);
        }
        let end = u64::from(image.memory_pages) * u64::from(PAGE_BYTES);
        for at in (0..end).step_by(CHUNK_BYTES as usize) {
            let (at, length) = (narrow(at), narrow((end - at).min(CHUNK_BYTES.into())));
            let bytes = self.read(at, length).await?;
            for (block, n) in bytes.chunks(BLOCK_BYTES).zip(at / BLOCK..) {
                image.note(n, block);
            }
        }
        Ok(image)
    }

    /// Puts an image into a fresh guest. One that failed must not be used.
    pub(crate) async fn put(&mut self, image: &Image) -> Result<(), HibernateError> {
        if image.globals.len() != self.doors.globals.len() {
            let (found, expected) = (self.doors.globals.len(), image.globals.len());
            return Err(HibernateError::Failed(format!("it has {found} globals, and {expected} were kept")));
        }
        let fresh = self.pages().await?;
        let Some(more) = image.memory_pages.checked_sub(fresh) else {
            return Err(HibernateError::Failed(format!(
                "it begins with {fresh} pages of memory, and had {}",
                image.memory_pages
            )));
        };
        if more > 0 && self.call::<_, (u32,)>(GROW, (more,)).await?.0 == u32::MAX {
            return Err(HibernateError::Failed(format!("its memory cannot grow to {} pages", image.memory_pages)));
        }
        let begun = self.begun_blocks(fresh).await?;
        for block in begun.into_iter().filter(|block| !image.has(*block)) {
            self.write(block * BLOCK, vec![0; BLOCK_BYTES]).await?;
        }
        for run in &image.runs {
            for (chunk, n) in run.bytes.chunks(CHUNK_BYTES as usize).zip(0u32..) {
                self.write(run.at * BLOCK + n * CHUNK_BYTES, chunk.to_vec()).await?;
            }
        }
        for (n, value) in image.globals.iter().enumerate() {
            self.call::<_, ()>(&setter(n), (*value,)).await?;
        }
        Ok(())
    }

    /// Blocks that a fresh guest has something in.
    async fn begun_blocks(&mut self, pages: u32) -> Result<Vec<u32>, HibernateError> {
        let mut begun = Vec::new();
        for page in 0..pages {
            let bytes = self.read(page * PAGE_BYTES, PAGE_BYTES).await?;
            let blocks = bytes.chunks(BLOCK_BYTES).zip(page * BLOCKS_PER_PAGE..);
            begun.extend(blocks.filter(|(block, _)| !is_zero(block)).map(|(_, n)| n));
        }
        Ok(begun)
    }
}

// === impl Image ===

impl Image {
    /// Notes a block, unless it is zero.
    fn note(&mut self, n: u32, block: &[u8]) {
        if is_zero(block) {
            return;
        }
        match self.runs.last_mut() {
            Some(run) if run.end() == n => run.bytes.extend_from_slice(block),
            _ => self.runs.push(Run { at: n, bytes: block.to_vec() }),
        }
    }

    fn has(&self, n: u32) -> bool {
        let before = self.runs.partition_point(|run| run.at <= n);
        before.checked_sub(1).is_some_and(|at| self.runs[at].end() > n)
    }
}

impl Run {
    fn end(&self) -> u32 {
        self.at + u32::try_from(self.bytes.len() / BLOCK_BYTES).unwrap_or(u32::MAX)
    }
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

/// A memory has at most 4 GiB, and places in it are below that.
fn narrow(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

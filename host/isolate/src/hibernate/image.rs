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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use llambo_inference::Models;
    use wasmtime::component::{Component, Linker};

    use super::*;
    use crate::{
        hibernate::{Instrumented, instrument},
        limits::Limits,
        pool::{Layout, Pools},
    };

    /// Counts in each kind of global and in memory, which grows; what was in it at the start is gone after the first time.
    const COUNTER: &str = r#"(component
        (core module $m
            (memory 1)
            (data (i32.const 9000) "was here")
            (global $a (mut i32) (i32.const 1))
            (global $b (mut i64) (i64.const -1))
            (global $c (mut f32) (f32.const 0.5))
            (global $d (mut f64) (f64.const -0.25))
            (func (export "count") (result i32)
                (global.set $a (i32.add (global.get $a) (i32.const 1)))
                (global.set $b (i64.mul (global.get $b) (i64.const 3)))
                (global.set $c (f32.mul (global.get $c) (f32.const 2)))
                (global.set $d (f64.mul (global.get $d) (f64.const 2)))
                (memory.fill (i32.const 9000) (i32.const 0) (i32.const 8))
                (i64.store (i32.const 8) (i64.add (i64.load (i32.const 8)) (i64.const 7)))
                (i32.store (i32.add (i32.const 70000) (memory.grow (i32.const 1))) (i32.const 5))
                (i32.add (i32.add (global.get $a) (i32.wrap_i64 (global.get $b)))
                    (i32.add (i32.trunc_f32_s (global.get $c)) (i32.trunc_f64_s (global.get $d)))))
            (func (export "sum") (result i32) (local $at i32) (local $sum i32)
                (loop $more
                    (local.set $sum (i32.add (i32.mul (local.get $sum) (i32.const 31)) (i32.load8_u (local.get $at))))
                    (local.set $at (i32.add (local.get $at) (i32.const 1)))
                    (br_if $more (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
                (local.get $sum)))
        (core instance $i (instantiate $m))
        (func (export "count") (result s32) (canon lift (core func $i "count")))
        (func (export "sum") (result s32) (canon lift (core func $i "sum"))))"#;

    struct Counter {
        store: Store<GuestState>,
        instance: Instance,
        doors: Doors,
    }

    impl Counter {
        async fn new(layout: Layout) -> Self {
            let limits = Limits::default();
            let pool = Pools::new(None, layout).unwrap().pool(&limits, 2, 0).unwrap();
            let Instrumented { bytes, has_memory, globals } = instrument(&wat::parse_str(COUNTER).unwrap()).unwrap();
            let component = Component::new(&pool.engine, bytes).unwrap();
            let mut store = Store::new(&pool.engine, GuestState::new(Arc::new(limits), Models::default(), false));
            store.limiter(|state| &mut state.budget);
            store.set_epoch_deadline(SLICES);
            let instance = Linker::new(&pool.engine).instantiate_async(&mut store, &component).await.unwrap();
            Self { store, instance, doors: Doors { has_memory, globals } }
        }

        async fn call(&mut self, name: &str) -> i32 {
            let call = self.instance.get_typed_func::<(), (i32,)>(&mut self.store, name).unwrap();
            call.call_async(&mut self.store, ()).await.unwrap().0
        }

        fn access(&mut self) -> Access<'_> {
            Access { store: &mut self.store, instance: &self.instance, doors: &self.doors }
        }
    }

    #[tokio::test]
    async fn a_guest_that_put_on_an_image_goes_on_as_the_other_one_does() {
        for layout in [Layout::Slab, Layout::Mapped] {
            let (mut old, mut new) = (Counter::new(layout).await, Counter::new(layout).await);
            for _ in 0..3 {
                old.call("count").await;
            }
            let image = old.access().take().await.unwrap();
            assert_eq!((image.memory_pages, image.globals.len(), image.runs.len()), (4, 4, 2), "{layout:?}");
            new.access().put(&image).await.unwrap();
            assert_eq!(new.store.data().budget.memory_bytes(), 4 << 16);
            // reading left no trace, and writing left nothing out
            assert_eq!(old.call("sum").await, new.call("sum").await, "{layout:?}");
            assert_eq!(new.access().take().await.unwrap(), image);
            for _ in 0..3 {
                assert_eq!(old.call("count").await, new.call("count").await, "{layout:?}");
                assert_eq!(old.call("sum").await, new.call("sum").await, "{layout:?}");
            }
        }
    }

    #[tokio::test]
    async fn an_image_that_does_not_fit_is_refused() {
        let mut counter = Counter::new(Layout::detect()).await;
        let globals = vec![0; 4];
        for image in [
            Image { globals: vec![0; 3], ..Image::default() },
            Image { globals: globals.clone(), ..Image::default() },
            // more than the limit of 128 MiB
            Image { memory_pages: 2049, globals, ..Image::default() },
        ] {
            assert!(matches!(counter.access().put(&image).await, Err(HibernateError::Failed(_))), "{image:?}");
        }
    }
}

//! Room for isolates: wasmtime engines with places for memories and stacks, one for each size class.
//!
//! A pool reserves addresses for all its isolates at once and memory for none. There are two ways to lay it out, and the system decides which
//! ([`Layout`]): memories and stacks in one mapping each, where only memory limits how many there are; or wasmtime's own pool, where it is
//! the number of mappings that a process may have (`vm.max_map_count`). Such pools start with what the configuration asks for and grow,
//! doubling, until mappings or addresses run out.

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use wasmtime::{Cache, CacheConfig, Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::{
    SandboxError,
    lane::HeavyLane,
    limits::Limits,
    slab::{self, Memories, Stacks},
    ticker::Ticker,
};

/// How the places of a pool are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All memories in one mapping and all stacks in another. Needs Linux 6.13 or newer.
    Slab,
    /// Mappings for each isolate.
    Mapped,
}

/// Memory of the size classes: tiny, medium, large. A linear memory of a wasm32 guest ends at the last one, where its addresses do.
const CLASS_BYTES: [u64; 3] = [128 << 20, 1 << 30, 4 << 30];
/// Places of a slab at most: more than the isolates that a host may have.
const SLAB_PLACES: u64 = 1 << 18;
/// Mappings of one isolate: its memory's used and unused part, its stack and the stack's guard.
pub(crate) const MAPS_PER_ISOLATE: u64 = 4;
/// Mappings left to everything else: threads, libraries, models, the allocator.
pub(crate) const MAPS_RESERVED: u64 = 4096;
/// Addresses pools may reserve together: half of what a 64-bit process has.
pub(crate) const ADDRESS_BYTES: u64 = 64 << 40;
/// Isolates in the first pool of a type that starts with none.
pub(crate) const SMALLEST_POOL: u32 = 16;
/// Stack of the host's own functions, below the guest's: options are JSON of up to 128 levels, at about 1 KiB each, and only
/// what is touched takes memory.
const HOST_STACK_BYTES: u64 = 1 << 20;
/// A freed memory keeps this much in place for the next guest.
const KEEP_RESIDENT_BYTES: usize = 64 << 10;
const PAGE_BYTES: u64 = 64 << 10;
/// Linux's own default, where it cannot be asked.
const DEFAULT_MAX_MAP_COUNT: u64 = 65530;

/// What all pools of a host share.
pub(crate) struct Pools {
    pub(crate) ticker: Ticker,
    layout: Layout,
    pub(crate) lane: HeavyLane,
    cache: Option<Cache>,
    left: Arc<Mutex<Left>>,
    /// Slabs, which types of one size class share.
    shared: Mutex<Vec<Weak<Pool>>>,
}

/// Mappings and addresses: what is left for pools that are still to come, or what one took.
struct Left {
    maps: u64,
    address_bytes: u64,
}

/// One wasmtime engine with room for `capacity` isolates.
pub(crate) struct Pool {
    pub(crate) engine: Engine,
    size: Size,
    capacity: u32,
    used: AtomicU32,
    /// What it took of `left`, and where it gives that back.
    taken: Left,
    left: Arc<Mutex<Left>>,
}

/// The right to one isolate's place in a pool.
pub(crate) struct Place(Arc<Pool>);

/// What the places of a pool hold at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    memory_bytes: u64,
    wasm_stack_bytes: u64,
    /// 0 where tables are no part of the place.
    table_elements: u32,
}

impl Layout {
    /// What this system can do.
    pub fn detect() -> Self {
        if slab::is_supported() { Self::Slab } else { Self::Mapped }
    }
}

/// Addresses one isolate of these limits takes.
pub(crate) fn address_bytes(layout: Layout, limits: &Limits) -> u64 {
    Size::of(layout, limits).address_bytes()
}

/// How many mappings this process may have.
pub(crate) fn max_map_count() -> u64 {
    let read = fs::read_to_string("/proc/sys/vm/max_map_count").ok();
    read.and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT_MAX_MAP_COUNT)
}

/// Linear memories of one guest: more would take the places of others.
pub(crate) const MEMORIES_PER_ISOLATE: u32 = 1;
/// Tables and core instances of one component; tool chains make up to a dozen of each.
pub(crate) const TABLES_PER_ISOLATE: u32 = 4;
pub(crate) const CORE_INSTANCES_PER_ISOLATE: u32 = 20;

// === impl Size ===

impl Size {
    fn of(layout: Layout, limits: &Limits) -> Self {
        let largest = CLASS_BYTES[CLASS_BYTES.len() - 1];
        match layout {
            Layout::Slab => Self {
                memory_bytes: CLASS_BYTES.into_iter().find(|n| limits.memory_bytes <= *n).unwrap_or(largest),
                wasm_stack_bytes: limits.stack_bytes,
                table_elements: 0,
            },
            Layout::Mapped => Self {
                memory_bytes: limits.memory_bytes.next_multiple_of(PAGE_BYTES).min(largest),
                wasm_stack_bytes: limits.stack_bytes,
                table_elements: limits.table_elements,
            },
        }
    }

    fn stack_bytes(&self) -> u64 {
        self.wasm_stack_bytes + HOST_STACK_BYTES
    }

    fn address_bytes(&self) -> u64 {
        self.memory_bytes + self.stack_bytes() + u64::from(self.table_elements) * 8 * u64::from(TABLES_PER_ISOLATE)
    }
}

// === impl Pools ===

impl Pools {
    pub(crate) fn new(cache_folder: Option<PathBuf>, layout: Layout) -> Result<Self, SandboxError> {
        let ticker = Ticker::start()
            .map_err(|e| SandboxError::System { what: "the thread of epochs cannot start", detail: e.to_string() })?;
        let lane = HeavyLane::start()
            .map_err(|e| SandboxError::System { what: "the threads of the heavy lane cannot start", detail: e.to_string() })?;
        let cache = match cache_folder {
            None => None,
            Some(folder) => {
                let mut config = CacheConfig::new();
                config.with_directory(folder);
                let cache = Cache::new(config).map_err(|e| SandboxError::System {
                    what: "the folder for compiled modules cannot be used",
                    detail: format!("{e:#}"),
                })?;
                Some(cache)
            }
        };
        let left = Left { maps: max_map_count().saturating_sub(MAPS_RESERVED), address_bytes: ADDRESS_BYTES };
        Ok(Self { ticker, layout, lane, cache, left: Arc::new(Mutex::new(left)), shared: Mutex::default() })
    }

    /// A pool with room for isolates of these limits: for `wanted` of them and some more, or one that other types use too and that has room at
    /// all. `spare` are the places that the type's other pools have.
    pub(crate) fn pool(&self, limits: &Limits, wanted: u32, spare: u32) -> Result<Arc<Pool>, SandboxError> {
        let size = Size::of(self.layout, limits);
        if self.layout == Layout::Mapped {
            return self.mapped(size, wanted, spare);
        }
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|pool| pool.strong_count() > 0);
        let mut fitting = shared.iter().filter_map(Weak::upgrade).filter(|pool| pool.size == size);
        if let Some(pool) = fitting.find(|pool| pool.free() > 0 || wanted == 0) {
            return Ok(pool);
        }
        let pool = self.slab(size, wanted)?;
        shared.push(Arc::downgrade(&pool));
        Ok(pool)
    }

    /// Half of the addresses that are left, or less where the system gives less.
    fn slab(&self, size: Size, wanted: u32) -> Result<Arc<Pool>, SandboxError> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let room = left.address_bytes / size.address_bytes();
        if room < u64::from(wanted) {
            let room = u32::try_from(room).unwrap_or(u32::MAX);
            return Err(no_addresses(size, wanted, room));
        }
        let mut n = (room / 2).max(u64::from(wanted)).clamp(1, SLAB_PLACES);
        let (memories, stacks) = loop {
            match map(size, n) {
                Ok(mapped) => break mapped,
                Err(_) if n / 2 >= u64::from(wanted.max(SMALLEST_POOL)) => n /= 2,
                Err(error) => return Err(unreserved(&error.to_string())),
            }
        };
        let mut config = config(size, self.cache.clone()).map_err(|e| unreserved(&format!("{e:#}")))?;
        config
            .allocation_strategy(InstanceAllocationStrategy::OnDemand)
            // code must check every bound itself: behind a memory lies the next one
            .memory_reservation(0)
            .memory_reservation_for_growth(0)
            .memory_guard_size(0)
            .guard_before_linear_memory(false)
            .memory_may_move(true)
            .with_host_memory(Arc::new(memories))
            .with_host_stack(Arc::new(stacks));
        let capacity = u32::try_from(n).unwrap_or(u32::MAX);
        let taken = Left { maps: 0, address_bytes: n * size.address_bytes() };
        left.address_bytes -= taken.address_bytes;
        drop(left);
        self.open(&config, size, capacity, taken)
    }

    /// wasmtime's own pool with room for `wanted` isolates, and for up to `spare` more out of a quarter of what is left after them.
    fn mapped(&self, size: Size, wanted: u32, spare: u32) -> Result<Arc<Pool>, SandboxError> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let by_maps = left.maps / MAPS_PER_ISOLATE;
        let by_addresses = left.address_bytes / size.address_bytes();
        let room = u32::try_from(by_maps.min(by_addresses)).unwrap_or(u32::MAX);
        if room < wanted {
            if by_maps > by_addresses {
                return Err(no_addresses(size, wanted, room));
            }
            let count = max_map_count();
            let detail = format!(
                "vm.max_map_count is {count} and an isolate takes {MAPS_PER_ISOLATE} mappings; raise it with \
                 `sysctl -w vm.max_map_count={}`, or use Linux 6.13 or newer, where it takes none",
                count + u64::from(wanted - room) * MAPS_PER_ISOLATE
            );
            return Err(SandboxError::Full { wanted, room, memory_mib: size.memory_bytes >> 20, detail });
        }
        let capacity = wanted.saturating_add(spare.min((room - wanted) / 4)).max(SMALLEST_POOL).min(room);
        let config = pooling_config(size, capacity, self.cache.clone()).map_err(|e| unreserved(&format!("{e:#}")))?;
        let n = u64::from(capacity);
        let taken = Left { maps: n * MAPS_PER_ISOLATE, address_bytes: n * size.address_bytes() };
        left.maps -= taken.maps;
        left.address_bytes -= taken.address_bytes;
        drop(left);
        self.open(&config, size, capacity, taken)
    }

    fn open(&self, config: &Config, size: Size, capacity: u32, taken: Left) -> Result<Arc<Pool>, SandboxError> {
        let left = Arc::clone(&self.left);
        let engine = Engine::new(config).map_err(|e| {
            left.lock().unwrap_or_else(PoisonError::into_inner).give_back(&taken);
            unreserved(&format!("{e:#}"))
        })?;
        self.ticker.watch(&engine);
        Ok(Arc::new(Pool { engine, size, capacity, used: AtomicU32::new(0), taken, left }))
    }
}

fn map(size: Size, n: u64) -> io::Result<(Memories, Stacks)> {
    let narrow = |n: u64| usize::try_from(n).map_err(|_| io::ErrorKind::OutOfMemory);
    Ok((Memories::map(narrow(size.memory_bytes)?, narrow(n)?)?, Stacks::map(narrow(size.stack_bytes())?, narrow(n)?)?))
}

fn no_addresses(size: Size, wanted: u32, room: u32) -> SandboxError {
    let detail = "a process has no more addresses; give the type a smaller `memory`".to_owned();
    SandboxError::Full { wanted, room, memory_mib: size.memory_bytes >> 20, detail }
}

fn unreserved(detail: &str) -> SandboxError {
    SandboxError::System {
        what: "the addresses for isolates cannot be reserved (look at `ulimit -v` and vm.overcommit_memory)",
        detail: detail.to_owned(),
    }
}

fn pooling_config(size: Size, capacity: u32, cache: Option<Cache>) -> wasmtime::Result<Config> {
    let mut pooling = PoolingAllocationConfig::default();
    pooling
        .total_component_instances(capacity)
        .total_core_instances(capacity.saturating_mul(CORE_INSTANCES_PER_ISOLATE))
        .max_core_instances_per_component(CORE_INSTANCES_PER_ISOLATE)
        .total_memories(capacity)
        .max_memories_per_component(MEMORIES_PER_ISOLATE)
        .total_tables(capacity.saturating_mul(TABLES_PER_ISOLATE))
        .max_tables_per_component(TABLES_PER_ISOLATE)
        .total_stacks(capacity)
        .max_memory_size(usize::try_from(size.memory_bytes)?)
        .table_elements(size.table_elements as usize)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .pagemap_scan(Enabled::Auto);
    let mut config = config(size, cache)?;
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pooling))
        // bounds are checked in code against the slot, so that slots stand side by side without guards
        .memory_reservation(size.memory_bytes)
        .memory_guard_size(0)
        .memory_may_move(false);
    Ok(config)
}

/// What both layouts have in common.
fn config(size: Size, cache: Option<Cache>) -> wasmtime::Result<Config> {
    let mut config = Config::new();
    config
        .memory_init_cow(false)
        .max_wasm_stack(usize::try_from(size.wasm_stack_bytes)?)
        .async_stack_size(usize::try_from(size.stack_bytes())?)
        .epoch_interruption(true)
        .concurrency_support(false)
        .gc_support(false)
        .cranelift_opt_level(OptLevel::Speed)
        .cache(cache);
    Ok(config)
}

// === impl Left ===

impl Left {
    fn give_back(&mut self, taken: &Self) {
        self.maps += taken.maps;
        self.address_bytes += taken.address_bytes;
    }
}

// === impl Pool ===

impl Pool {
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    fn free(&self) -> u32 {
        self.capacity.saturating_sub(self.used.load(Ordering::Acquire))
    }

    pub(crate) fn claim(self: &Arc<Self>) -> Option<Place> {
        let more = |used| (used < self.capacity).then_some(used + 1);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Place(Arc::clone(self)))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).give_back(&self.taken);
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::{Instance, Module, Store, Trap, TypedFunc};

    use super::*;

    const LAYOUTS: [Layout; 2] = [Layout::Slab, Layout::Mapped];
    const GUEST: &str = r#"(module
        (memory (export "memory") 1)
        (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
        (func (export "read") (param i32) (result i32) (i32.load (local.get 0)))
        (func (export "far") (param i32) (result i32) (i32.load offset=4294967292 (local.get 0)))
        (func (export "fill") (param i32) (memory.fill (i32.const 0) (i32.const 7) (local.get 0)))
        (func $sink (export "sink") (param i32) (result i32) (i32.add (i32.const 1) (call $sink (local.get 0)))))"#;

    struct Running {
        store: Store<()>,
        instance: Instance,
    }

    impl Running {
        async fn new(pool: &Pool) -> Self {
            let module = Module::new(&pool.engine, GUEST).unwrap();
            let mut store = Store::new(&pool.engine, ());
            store.set_epoch_deadline(1_000_000);
            let instance = Instance::new_async(&mut store, &module, &[]).await.unwrap();
            Self { store, instance }
        }

        async fn call(&mut self, name: &str, with: u32) -> Result<u32, Trap> {
            let call: TypedFunc<u32, u32> = self.instance.get_typed_func(&mut self.store, name).unwrap();
            call.call_async(&mut self.store, with).await.map_err(|e| e.downcast().unwrap())
        }

        async fn grow_to(&mut self, pages: u32) {
            let memory = self.instance.get_memory(&mut self.store, "memory").unwrap();
            let now = u32::try_from(memory.size(&self.store)).unwrap();
            assert_eq!(self.call("grow", pages - now).await, Ok(now));
        }

        async fn fill(&mut self, n_bytes: u32) {
            let call: TypedFunc<u32, ()> = self.instance.get_typed_func(&mut self.store, "fill").unwrap();
            call.call_async(&mut self.store, n_bytes).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_read_behind_the_present_size_traps_though_a_neighbour_lies_there() {
        for layout in LAYOUTS {
            let limits = Limits { memory_bytes: 1 << 20, ..Limits::default() };
            let pool = Pools::new(None, layout).unwrap().pool(&limits, 2, 0).unwrap();
            let (mut one, mut other) = (Running::new(&pool).await, Running::new(&pool).await);
            for pages in [1u32, 4, 16] {
                let size = pages << 16;
                other.grow_to(pages).await;
                other.fill(size).await;
                one.grow_to(pages).await;
                assert_eq!(one.call("read", size - 4).await, Ok(0), "{layout:?}");
                for at in [size - 3, size, size + 1, 1 << 20, 128 << 20, u32::MAX - 3, u32::MAX] {
                    assert_eq!(one.call("read", at).await, Err(Trap::MemoryOutOfBounds), "{layout:?} at {at} of {size}");
                }
                assert_eq!(one.call("far", 8).await, Err(Trap::MemoryOutOfBounds), "{layout:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_memory_is_zero_whatever_the_guest_before_left_in_it() {
        for layout in LAYOUTS {
            let pool = Pools::new(None, layout).unwrap().pool(&Limits::default(), 1, 0).unwrap();
            for _ in 0..3 {
                let mut guest = Running::new(&pool).await;
                guest.call("grow", 15).await.unwrap();
                for at in (0..1 << 20).step_by(4096) {
                    assert_eq!(guest.call("read", at).await, Ok(0), "{layout:?} at {at}");
                }
                guest.fill(1 << 20).await;
            }
        }
    }

    #[tokio::test]
    async fn a_stack_that_is_too_deep_ends_its_guest_alone() {
        for layout in LAYOUTS {
            let pool = Pools::new(None, layout).unwrap().pool(&Limits::default(), 2, 0).unwrap();
            let (mut deep, mut other) = (Running::new(&pool).await, Running::new(&pool).await);
            assert_eq!(deep.call("sink", 0).await, Err(Trap::StackOverflow), "{layout:?}");
            assert_eq!(other.call("read", 0).await, Ok(0));
        }
    }

    #[test]
    fn types_of_one_size_class_share_a_slab() {
        let pools = Pools::new(None, Layout::Slab).unwrap();
        let pool = |memory_mib: u64| {
            let limits = Limits { memory_bytes: memory_mib << 20, ..Limits::default() };
            pools.pool(&limits, 10, 0).unwrap()
        };
        let (tiny, small, medium, large) = (pool(128), pool(4), pool(129), pool(8192));
        assert!(Arc::ptr_eq(&tiny, &small) && !Arc::ptr_eq(&tiny, &medium) && !Arc::ptr_eq(&medium, &large));
        assert!(tiny.capacity() >= 200_000 && medium.capacity() >= 1000 && large.capacity() >= 500);
        let before = pools.left.lock().unwrap().address_bytes;
        drop((tiny, small, medium, large));
        assert!(pools.left.lock().unwrap().address_bytes == ADDRESS_BYTES && before < ADDRESS_BYTES);
    }
}

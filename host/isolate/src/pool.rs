//! Room for isolates: wasmtime engines with pooled memories, tables and stacks, one row of pools for each size class.
//!
//! A pool reserves addresses for all its isolates at once and memory for none. What runs out first is the number of mappings a
//! process may have (`vm.max_map_count`): a stack and a memory take two each. So pools start with what the configuration
//! asks for and grow, doubling, until mappings or addresses run out.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use wasmtime::{Cache, CacheConfig, Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::{SandboxError, limits::Limits, ticker::Ticker};

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
    cache: Option<Cache>,
    left: Arc<Mutex<Left>>,
}

/// Mappings and addresses: what is left for pools that are still to come, or what one took.
struct Left {
    maps: u64,
    address_bytes: u64,
}

/// One wasmtime engine with room for `capacity` isolates.
pub(crate) struct Pool {
    pub(crate) engine: Engine,
    capacity: u32,
    used: AtomicU32,
    /// What it took of `left`, and where it gives that back.
    taken: Left,
    left: Arc<Mutex<Left>>,
}

/// The right to one isolate's place in a pool.
pub(crate) struct Place(Arc<Pool>);

/// Addresses one isolate of these limits takes.
pub(crate) fn address_bytes(limits: &Limits) -> u64 {
    slot_bytes(limits) + stack_bytes(limits) + u64::from(limits.table_elements) * 8 * u64::from(TABLES_PER_ISOLATE)
}

/// How many mappings this process may have.
pub(crate) fn max_map_count() -> u64 {
    let read = fs::read_to_string("/proc/sys/vm/max_map_count").ok();
    read.and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT_MAX_MAP_COUNT)
}

fn slot_bytes(limits: &Limits) -> u64 {
    // one linear memory of a wasm32 guest ends where its addresses do
    limits.memory_bytes.next_multiple_of(PAGE_BYTES).min(4 << 30)
}

fn stack_bytes(limits: &Limits) -> u64 {
    limits.stack_bytes + HOST_STACK_BYTES
}

/// Tables and core instances of one component; tool chains make up to a dozen of each.
const TABLES_PER_ISOLATE: u32 = 4;
const CORE_INSTANCES_PER_ISOLATE: u32 = 20;

// === impl Pools ===

impl Pools {
    pub(crate) fn new(cache_folder: Option<PathBuf>) -> Result<Self, SandboxError> {
        let ticker = Ticker::start()
            .map_err(|e| SandboxError::System { what: "the thread of epochs cannot start", detail: e.to_string() })?;
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
        Ok(Self { ticker, cache, left: Arc::new(Mutex::new(left)) })
    }

    /// A pool with room for `wanted` isolates, and for up to `spare` more out of a quarter of what is left after them.
    pub(crate) fn pool(&self, limits: &Limits, wanted: u32, spare: u32) -> Result<Arc<Pool>, SandboxError> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let by_maps = left.maps / MAPS_PER_ISOLATE;
        let by_addresses = left.address_bytes / address_bytes(limits);
        let room = u32::try_from(by_maps.min(by_addresses)).unwrap_or(u32::MAX);
        if room < wanted {
            let detail = if by_maps <= by_addresses {
                let count = max_map_count();
                format!(
                    "vm.max_map_count is {count} and an isolate takes {MAPS_PER_ISOLATE} mappings; raise it with \
                     `sysctl -w vm.max_map_count={}`",
                    count + u64::from(wanted - room) * MAPS_PER_ISOLATE
                )
            } else {
                "a process has no more addresses; give the type a smaller `memory`".to_owned()
            };
            return Err(SandboxError::Full { wanted, room, memory_mib: limits.memory_bytes >> 20, detail });
        }
        let capacity = wanted.saturating_add(spare.min((room - wanted) / 4)).max(SMALLEST_POOL).min(room);
        let engine = engine(limits, capacity, self.cache.clone()).map_err(|e| SandboxError::System {
            what: "the addresses for isolates cannot be reserved (look at `ulimit -v` and vm.overcommit_memory)",
            detail: format!("{e:#}"),
        })?;
        let n = u64::from(capacity);
        let taken = Left { maps: n * MAPS_PER_ISOLATE, address_bytes: n * address_bytes(limits) };
        left.maps -= taken.maps;
        left.address_bytes -= taken.address_bytes;
        drop(left);
        self.ticker.watch(&engine);
        Ok(Arc::new(Pool { engine, capacity, used: AtomicU32::new(0), taken, left: Arc::clone(&self.left) }))
    }
}

fn engine(limits: &Limits, capacity: u32, cache: Option<Cache>) -> wasmtime::Result<Engine> {
    let (slot, stack) = (usize::try_from(slot_bytes(limits))?, usize::try_from(stack_bytes(limits))?);
    let mut pooling = PoolingAllocationConfig::default();
    pooling
        .total_component_instances(capacity)
        .total_core_instances(capacity.saturating_mul(CORE_INSTANCES_PER_ISOLATE))
        .max_core_instances_per_component(CORE_INSTANCES_PER_ISOLATE)
        .total_memories(capacity)
        .max_memories_per_component(1)
        .total_tables(capacity.saturating_mul(TABLES_PER_ISOLATE))
        .max_tables_per_component(TABLES_PER_ISOLATE)
        .total_stacks(capacity)
        .max_memory_size(slot)
        .table_elements(limits.table_elements as usize)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pooling))
        // bounds are checked in code against the slot, so that slots stand side by side without guards
        .memory_reservation(slot as u64)
        .memory_guard_size(0)
        .memory_may_move(false)
        .memory_init_cow(false)
        .max_wasm_stack(usize::try_from(limits.stack_bytes)?)
        .async_stack_size(stack)
        .epoch_interruption(true)
        .concurrency_support(false)
        .gc_support(false)
        .cranelift_opt_level(OptLevel::Speed)
        .cache(cache);
    Engine::new(&config)
}

// === impl Pool ===

impl Pool {
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(crate) fn claim(self: &Arc<Self>) -> Option<Place> {
        let more = |used| (used < self.capacity).then_some(used + 1);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Place(Arc::clone(self)))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.maps += self.taken.maps;
        left.address_bytes += self.taken.address_bytes;
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::AcqRel);
    }
}

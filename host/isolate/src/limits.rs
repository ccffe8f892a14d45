//! What a guest may use, and the counting of it. Each limit that is passed ends the guest with its own reason.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use wasmtime::{ResourceLimiter, ResourcesRequired};

use crate::pool::{CORE_INSTANCES_PER_ISOLATE, MEMORIES_PER_ISOLATE, TABLES_PER_ISOLATE};

/// What a guest may hand over in one call, however much memory it may use: prompts are far below.
const CALL_BYTES: usize = 64 << 20;

/// What one isolate may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Linear memory, and bytes that the host keeps for the guest in tensors, together.
    pub memory_bytes: u64,
    /// Elements of all tables.
    pub table_elements: u32,
    /// Wasm stack.
    pub stack_bytes: u64,
    /// Share of one core over the time of a request, beyond its first 100 ms of CPU time; above 0.
    pub cpu_share: f64,
    /// CPU time for one request.
    pub cpu_time: Duration,
    /// Calls into the host, averaged; a whole second's worth may come at once.
    pub host_calls_per_second: u32,
    /// Text sent for one request.
    pub output_bytes: u64,
    /// Text sent in a second, averaged; what is faster waits. A whole second's worth may come at once. Above 0.
    pub output_bytes_per_second: u64,
    /// Tokens generated for one request, by all models together.
    pub tokens: Option<u32>,
    /// Keys and values that the generations of one request may hold at a time, in all models together.
    pub kv_bytes: Option<u64>,
    /// Time for one request, where its own deadline is not earlier.
    pub time: Option<Duration>,
}

/// A limit was passed. Travels as a trap from where it was noticed to where the guest's end is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct Exhausted {
    /// Stable upper-case name.
    pub(crate) reason: &'static str,
    /// Which limit, with its number.
    pub(crate) detail: String,
}

/// What an isolate has used of its limits so far. Memory, tables and handles last as long as the guest.
pub(crate) struct Budget {
    limits: Arc<Limits>,
    memory_bytes: u64,
    held_bytes: u64,
    table_elements: u64,
    calls: TokenBucket,
}

/// Allows `rate` per second on average and one second's worth at once.
struct TokenBucket {
    left: f64,
    filled: Instant,
}

// === impl Limits ===

impl Default for Limits {
    /// Those of the type `tiny` in the shipped configuration.
    fn default() -> Self {
        Self {
            memory_bytes: 128 << 20,
            table_elements: 10_000,
            stack_bytes: 128 << 10,
            cpu_share: 1.0,
            cpu_time: Duration::from_secs(10),
            host_calls_per_second: 20_000,
            output_bytes: 8 << 20,
            output_bytes_per_second: 256 << 10,
            tokens: None,
            kv_bytes: None,
            time: None,
        }
    }
}

impl Limits {
    /// What a guest may hand over in one call.
    pub(crate) fn call_bytes(&self) -> usize {
        usize::try_from(self.memory_bytes).unwrap_or(usize::MAX).min(CALL_BYTES)
    }

    /// Whether a module may begin with what it begins with.
    ///
    /// # Errors
    /// What is too much, with both numbers.
    pub(crate) fn admit(&self, needs: &ResourcesRequired) -> Result<(), String> {
        // counted in pages
        let memory = needs.max_initial_memory_size.unwrap_or(0).saturating_mul(64 << 10);
        let elements = needs.max_initial_table_size.unwrap_or(0);
        if needs.num_memories > MEMORIES_PER_ISOLATE {
            return Err(format!("it has {} memories, and {MEMORIES_PER_ISOLATE} is allowed", needs.num_memories));
        }
        if needs.num_tables > TABLES_PER_ISOLATE {
            return Err(format!("it has {} tables, and {TABLES_PER_ISOLATE} are allowed", needs.num_tables));
        }
        if memory > self.memory_bytes {
            return Err(format!("it begins with {memory} bytes of memory, and its limit is {}", self.memory_bytes));
        }
        if elements > u64::from(self.table_elements) {
            return Err(format!("it begins with a table of {elements} elements, and its limit is {}", self.table_elements));
        }
        Ok(())
    }
}

// === impl Exhausted ===

impl Exhausted {
    pub(crate) fn cpu(limit: Duration) -> Self {
        let detail = format!("used its {} ms of CPU time for one request", limit.as_millis());
        Self { reason: "CPU_EXHAUSTED", detail }
    }

    pub(crate) fn output(limit: u64) -> Self {
        Self { reason: "OUTPUT_EXHAUSTED", detail: format!("sent more than {limit} bytes for one request") }
    }

    pub(crate) fn tokens(limit: u32) -> Self {
        Self { reason: "TOKENS_EXHAUSTED", detail: format!("generated more than {limit} tokens for one request") }
    }

    pub(crate) fn kv(limit: u64, held: u64) -> Self {
        let detail = format!("its generations hold {held} bytes of keys and values at a time, and its limit is {limit}");
        Self { reason: "KV_EXHAUSTED", detail }
    }

    pub(crate) fn stack(limit: u64) -> Self {
        Self { reason: "STACK_EXHAUSTED", detail: format!("needed more than its {limit} bytes of stack") }
    }
}

// === impl Budget ===

impl Budget {
    pub(crate) fn new(limits: Arc<Limits>) -> Self {
        let calls = TokenBucket { left: f64::from(limits.host_calls_per_second), filled: Instant::now() };
        Self { limits, memory_bytes: 0, held_bytes: 0, table_elements: 0, calls }
    }

    /// Tokens that may be generated for one request.
    pub(crate) fn tokens(&self) -> Option<u32> {
        self.limits.tokens
    }

    /// Keys and values that one request may hold at a time.
    pub(crate) fn kv_bytes(&self) -> Option<u64> {
        self.limits.kv_bytes
    }

    /// Linear memory now.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Notes one call from the guest into the host.
    pub(crate) fn charge_call(&mut self) -> Result<(), Exhausted> {
        let rate = self.limits.host_calls_per_second;
        if self.calls.take(f64::from(rate), Instant::now()) {
            return Ok(());
        }
        Err(Exhausted { reason: "HOST_CALLS_EXHAUSTED", detail: format!("called the host more than {rate} times a second") })
    }

    /// Notes bytes that the host keeps because the guest holds a handle to them.
    pub(crate) fn hold(&mut self, n_bytes: usize) -> Result<(), Exhausted> {
        let held = self.held_bytes + n_bytes as u64;
        self.check_memory(self.memory_bytes, held)?;
        self.held_bytes = held;
        Ok(())
    }

    /// Gives back what `hold` took.
    pub(crate) fn release(&mut self, n_bytes: usize) {
        self.held_bytes = self.held_bytes.saturating_sub(n_bytes as u64);
    }

    fn check_memory(&self, linear: u64, held: u64) -> Result<(), Exhausted> {
        let limit = self.limits.memory_bytes;
        if linear.saturating_add(held) <= limit {
            return Ok(());
        }
        let tensors = if held == 0 { String::new() } else { format!(", {held} of them in tensors") };
        let detail = format!("asked for {} bytes of memory{tensors}, and its limit is {limit}", linear.saturating_add(held));
        Err(Exhausted { reason: "MEMORY_EXHAUSTED", detail })
    }
}

impl ResourceLimiter for Budget {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let grown = self.memory_bytes - (current as u64).min(self.memory_bytes) + desired as u64;
        self.check_memory(grown, self.held_bytes)?;
        if maximum.is_some_and(|most| desired > most) {
            return Ok(false);
        }
        self.memory_bytes = grown;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let grown = self.table_elements - (current as u64).min(self.table_elements) + desired as u64;
        let limit = self.limits.table_elements;
        if grown > u64::from(limit) {
            let detail = format!("asked for {grown} table elements, and its limit is {limit}");
            return Err(Exhausted { reason: "TABLE_EXHAUSTED", detail }.into());
        }
        if maximum.is_some_and(|most| desired > most) {
            return Ok(false);
        }
        self.table_elements = grown;
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_PER_ISOLATE as usize
    }

    fn tables(&self) -> usize {
        TABLES_PER_ISOLATE as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_PER_ISOLATE as usize
    }
}

// === impl TokenBucket ===

impl TokenBucket {
    fn take(&mut self, rate: f64, now: Instant) -> bool {
        if self.left < 1.0 {
            let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
            self.left = (self.left + elapsed * rate).min(rate);
            self.filled = now;
        }
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limits: Limits) -> Budget {
        Budget::new(Arc::new(limits))
    }

    #[test]
    fn tensors_and_linear_memory_share_one_limit() {
        let mut budget = budget(Limits { memory_bytes: 1000, ..Limits::default() });
        assert!(budget.memory_growing(0, 600, None).unwrap());
        budget.hold(400).unwrap();
        assert_eq!(budget.hold(1).unwrap_err().reason, "MEMORY_EXHAUSTED");
        budget.release(400);
        assert!(budget.memory_growing(600, 1000, None).unwrap());
        let refused = budget.memory_growing(1000, 1001, None).unwrap_err();
        assert_eq!(refused.downcast_ref::<Exhausted>().unwrap().reason, "MEMORY_EXHAUSTED");
        assert_eq!(budget.memory_bytes(), 1000);
    }

    #[test]
    fn tables_have_a_limit_of_their_own() {
        let mut budget = budget(Limits { table_elements: 10, ..Limits::default() });
        assert!(budget.table_growing(0, 6, None).unwrap());
        assert!(budget.table_growing(0, 4, None).unwrap());
        let refused = budget.table_growing(4, 5, None).unwrap_err();
        assert_eq!(refused.downcast_ref::<Exhausted>().unwrap().reason, "TABLE_EXHAUSTED");
    }

    #[test]
    fn calls_refill_with_time() {
        let mut bucket = TokenBucket { left: 2.0, filled: Instant::now() };
        let start = bucket.filled;
        assert!(bucket.take(2.0, start) && bucket.take(2.0, start));
        assert!(!bucket.take(2.0, start));
        assert!(bucket.take(2.0, start + Duration::from_millis(500)));
        assert!(!bucket.take(2.0, start + Duration::from_millis(501)));
    }
}

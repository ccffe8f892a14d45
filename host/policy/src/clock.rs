//! The clock that ends calls: one thread that counts epochs up while policies are called, and sleeps otherwise.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::EngineWeak;

/// Between two epochs: a call may go on for two of these beyond its limit.
pub(crate) const TICK: Duration = Duration::from_micros(250);
/// Ticks without a call before the thread sleeps: waking it costs more than a call does.
const IDLE_TICKS: u32 = 400;
/// A call that the system hardly lets run is ended after so many of its limits.
const PATIENCE: u32 = 50;

/// Counts epochs.
pub(crate) struct Clock {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    handle: Thread,
}

#[derive(Default)]
struct Shared {
    /// A call began since the last tick.
    called: AtomicBool,
    asleep: AtomicBool,
    ended: AtomicBool,
}

/// How long a call has been computing.
///
/// Time that the system gave to others does not count. Asking for a thread's own time costs as much as a decision, so it is asked only from the first tick
/// on: a call is never ended before its limit, and at most two ticks after it.
#[derive(Default)]
pub(crate) struct Stopwatch {
    since: Option<(Duration, Instant)>,
}

// === impl Clock ===

impl Clock {
    pub(crate) fn start(engine: EngineWeak) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let thread = thread::Builder::new().name("llambo-policies".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(&engine)
        })?;
        let handle = thread.thread().clone();
        Ok(Self { shared, thread: Some(thread), handle })
    }

    /// Epochs count on from here.
    pub(crate) fn call_begins(&self) {
        self.shared.called.store(true, SeqCst);
        if self.shared.asleep.load(SeqCst) {
            self.handle.unpark();
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        self.handle.unpark();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// === impl Shared ===

impl Shared {
    fn run(&self, engine: &EngineWeak) {
        let mut idle = 0;
        while !self.ended.load(SeqCst) {
            if idle >= IDLE_TICKS {
                self.asleep.store(true, SeqCst);
                // whoever called before it saw that this sleeps is seen here
                while !self.called.load(SeqCst) && !self.ended.load(SeqCst) {
                    thread::park();
                }
                self.asleep.store(false, SeqCst);
            }
            idle = if self.called.swap(false, SeqCst) { 0 } else { idle + 1 };
            thread::park_timeout(TICK);
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    }
}

// === impl Stopwatch ===

impl Stopwatch {
    pub(crate) fn reset(&mut self) {
        self.since = None;
    }

    /// At each tick: whether the call is over its limit.
    pub(crate) fn is_over(&mut self, limit: Duration) -> bool {
        let cpu = thread_cpu();
        let (began, wall) = *self.since.get_or_insert_with(|| (cpu, Instant::now()));
        cpu.saturating_sub(began) >= limit || wall.elapsed() >= limit * PATIENCE
    }
}

fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

//! The clock of epoch slices: one thread for all engines, asleep while no guest runs.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::Duration,
};

use wasmtime::{Engine, EngineWeak};

/// Length of a slice: long enough that its end costs nothing, short enough that a loop holds a thread for no time that a
/// person would notice.
pub(crate) const SLICE: Duration = Duration::from_millis(10);

/// Counts the epochs of its engines up while something runs.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    n_running: AtomicU32,
    /// The thread waits to be woken. Else it looks by itself within a slice.
    is_asleep: AtomicBool,
    short_slices: AtomicU32,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    engines: Vec<EngineWeak>,
    ended: bool,
}

/// Slices without anything that runs before the thread goes to sleep: waking it for every request would cost more than they do.
const IDLE_SLICES: u32 = 10;

/// Slices while somebody computes without a wait, and how many of them after that was last seen.
const SHORT_SLICE: Duration = Duration::from_millis(1);
const SHORT_SLICES: u32 = 1000;

/// Makes slices short for a while.
#[derive(Clone)]
pub(crate) struct Hurry(Arc<Shared>);

/// Something runs as long as this lives.
pub(crate) struct Ticking(Arc<Shared>);

// === impl Ticker ===

impl Ticker {
    pub(crate) fn start() -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let thread = std::thread::Builder::new().name("llambo-epochs".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run()
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn watch(&self, engine: &Engine) {
        self.shared.lock().engines.push(engine.weak());
    }

    pub(crate) fn hurry(&self) -> Hurry {
        Hurry(Arc::clone(&self.shared))
    }

    pub(crate) fn running(&self) -> Ticking {
        self.shared.n_running.fetch_add(1, SeqCst);
        // whoever sees it asleep wakes it; it looks once more before it sleeps
        if self.shared.is_asleep.swap(false, SeqCst) {
            let _state = self.shared.lock();
            self.shared.changed.notify_one();
        }
        Ticking(Arc::clone(&self.shared))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let (mut state, mut idle) = (self.lock(), 0);
        while !state.ended {
            if idle == IDLE_SLICES {
                self.is_asleep.store(true, SeqCst);
                while self.is_asleep.load(SeqCst) && self.n_running.load(SeqCst) == 0 && !state.ended {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                self.is_asleep.store(false, SeqCst);
                idle = 0;
                continue;
            }
            let short = self.short_slices.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1));
            let slice = if short.is_ok() { SHORT_SLICE } else { SLICE };
            state = self.changed.wait_timeout(state, slice).unwrap_or_else(PoisonError::into_inner).0;
            state.engines.retain(|engine| engine.upgrade().inspect(Engine::increment_epoch).is_some());
            idle = if self.n_running.load(SeqCst) == 0 { idle + 1 } else { 0 };
        }
    }
}

// === impl Hurry ===

impl Hurry {
    pub(crate) fn hurry(&self) {
        self.0.short_slices.store(SHORT_SLICES, SeqCst);
    }
}

// === impl Ticking ===

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.n_running.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_for(what: &str, is_so: impl Fn() -> bool) {
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while !is_so() {
            assert!(std::time::Instant::now() < until, "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn it_sleeps_when_nothing_runs_and_wakes_when_something_does() {
        let ticker = Ticker::start().unwrap();
        let asleep = || ticker.shared.is_asleep.load(SeqCst);
        for _ in 0..3 {
            wait_for("it falls asleep", asleep);
            let running = ticker.running();
            assert!(!asleep());
            std::thread::park_timeout(SLICE * (IDLE_SLICES + 5));
            assert!(!asleep(), "it sleeps while something runs");
            drop(running);
        }
    }
}

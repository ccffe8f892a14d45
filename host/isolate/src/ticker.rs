//! The clock of epoch slices: one thread for all engines, asleep while no guest runs.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
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
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    engines: Vec<EngineWeak>,
    n_running: usize,
    ended: bool,
}

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

    pub(crate) fn running(&self) -> Ticking {
        let mut state = self.shared.lock();
        state.n_running += 1;
        if state.n_running == 1 {
            self.shared.changed.notify_one();
        }
        drop(state);
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
        let mut state = self.lock();
        while !state.ended {
            if state.n_running == 0 {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state = self.changed.wait_timeout(state, SLICE).unwrap_or_else(PoisonError::into_inner).0;
            state.engines.retain(|engine| engine.upgrade().inspect(Engine::increment_epoch).is_some());
        }
    }
}

// === impl Ticking ===

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.lock().n_running -= 1;
    }
}

//! Where guests go on that compute without a wait: threads of their own, fewer than there are cores, which give way to all others.
//!
//! Most guests use microseconds between two waits for a model, and run wherever their answer is read. One that used [`HEAVY`] without a wait is moved
//! here, to its end, and runs for another [`HEAVY`] at a time, in turns: however many compute without end, connections and models find their cores.

use std::{io, num::NonZero, thread};

use rustix::{process, thread as own};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

/// CPU time without a wait that makes a guest a heavy one, and that it gets at a time from then on.
pub(crate) const HEAVY: std::time::Duration = std::time::Duration::from_millis(2);
/// Of the lane's threads: a tenth of what others get, as long as there are others.
const NICE: i32 = 10;

/// The threads. `None` only while it is dropped.
pub(crate) struct HeavyLane(Option<Runtime>);

// === impl HeavyLane ===

impl HeavyLane {
    pub(crate) fn start() -> io::Result<Self> {
        let n_cores = thread::available_parallelism().map_or(1, NonZero::get);
        let runtime = Builder::new_multi_thread()
            .worker_threads((n_cores / 2).max(1))
            .thread_name("llambo-heavy")
            .on_thread_start(|| {
                // a system that refuses has them run like all others
                let _ = process::setpriority_process(Some(own::gettid()), NICE);
            })
            .enable_time()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Goes on with `work` there.
    pub(crate) fn take<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<JoinHandle<T>> {
        self.0.as_ref().map(|runtime| runtime.spawn(work))
    }
}

impl Drop for HeavyLane {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

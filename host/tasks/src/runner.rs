//! Takes tasks from the queue, as many at once as may run, and has each of them run on a tokio task of its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::sleep,
};

use crate::{TaskError, ledger::Run, run::Bench, store::now_ms, task::Outcome};

/// Between two attempts to take from a store that fails.
const STORE_WAIT: Duration = Duration::from_secs(1);

/// Runs under way, by the keys of their tasks. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs(Arc<Mutex<HashMap<i64, AbortHandle>>>);

/// Ends when the bench is stopped and all runs have given their tasks back.
pub(crate) async fn serve(bench: Bench, runs: Runs, max_running: usize) {
    let mut serving = JoinSet::new();
    let mut known: HashMap<Id, Run> = HashMap::new();
    let ended = |done: Result<(Id, ()), JoinError>, known: &mut HashMap<Id, Run>| {
        let id = done.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let run = known.remove(&id)?;
        runs.forget(run.key, id);
        done.err().filter(JoinError::is_panic).map(|_| run)
    };
    loop {
        let n_free = max_running.saturating_sub(serving.len());
        let mut again = None;
        if n_free > 0 {
            match bench.store.have(move |ledger| ledger.take(n_free, now_ms())).await {
                Ok((taken, due)) => {
                    again = due;
                    for task in taken {
                        let (run, bench) = (task.run, bench.clone());
                        let handle = serving.spawn(async move { bench.run(task).await });
                        known.insert(handle.id(), run);
                        runs.lock().insert(run.key, handle);
                    }
                }
                Err(TaskError::Closed) => break,
                Err(_) => again = Some(STORE_WAIT),
            }
        }
        let is_full = serving.len() >= max_running;
        tokio::select! {
            () = bench.store.more.notified(), if !is_full => {}
            () = sleep(again.unwrap_or_default()), if again.is_some() && !is_full => {}
            Some(done) = serving.join_next_with_id() => {
                if let Some(run) = ended(done, &mut known) {
                    panicked(&bench, run).await;
                }
            }
            () = bench.stopped() => break,
        }
    }
    while let Some(done) = serving.join_next_with_id().await {
        ended(done, &mut known);
    }
}

async fn panicked(bench: &Bench, run: Run) {
    tracing::error!(task = run.key, "running a task failed by a fault of the host");
    let outcome = Outcome::failed("BACKEND_FAILED", "a fault of the host; see its log");
    bench.surely(move |ledger| ledger.end(run, &crate::ledger::Update::default(), &outcome, now_ms())).await;
}

// === impl Runs ===

impl Runs {
    /// Stops the run of a task that was called off.
    pub(crate) fn stop(&self, key: i64) {
        if let Some(handle) = self.lock().get(&key) {
            handle.abort();
        }
    }

    /// A later run of the same task stays.
    fn forget(&self, key: i64, id: Id) {
        let mut runs = self.lock();
        if runs.get(&key).is_some_and(|handle| handle.id() == id) {
            runs.remove(&key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, AbortHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

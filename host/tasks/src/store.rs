//! The thread that owns the tables. Whoever wants something done sends it a step; all steps that wait are done in one transaction,
//! so that many tasks share one write to the disk, and each hears of its own once that is done.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
    thread,
    time::{Instant, SystemTime},
};

use rusqlite::Connection;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::{
    OpenError, TaskError,
    counts::Limits,
    ledger::{Ledger, Sql},
    metrics, schema,
    watchers::Watchers,
};

/// Steps that wait: as many as the disk does in a second or two. Who comes then is told to try again.
const WAITING_STEPS: usize = 4096;
/// Steps of one transaction: what comes after them should not wait for more than a few milliseconds of work.
const STEPS_AT_ONCE: usize = 512;

/// The way to the thread. Clones are the same; it ends with the last of them, when all that waits is done.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    steps: mpsc::Sender<Box<dyn Step>>,
    pub(crate) watchers: Watchers,
    /// Told when there is more to take.
    pub(crate) more: Arc<Notify>,
}

/// Something to be done within a transaction.
trait Step: Send {
    fn run(&mut self, ledger: &mut Ledger) -> Sql<()>;

    /// The transaction is done, or has failed.
    fn tell(self: Box<Self>, failed: Option<&TaskError>);
}

struct Asked<F, T> {
    work: Option<F>,
    done: Option<T>,
    reply: oneshot::Sender<Result<T, TaskError>>,
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

// === impl Store ===

impl Store {
    /// Opens the tables in `folder`, or in memory, and starts their thread.
    pub(crate) fn open(folder: Option<&Path>, limits: Limits) -> Result<(Self, thread::JoinHandle<()>), OpenError> {
        let (connection, lock) = match folder {
            None => (Connection::open_in_memory()?, None),
            Some(folder) => {
                let lock = lock(folder)?;
                (Connection::open(folder.join("tasks.sqlite"))?, Some(lock))
            }
        };
        schema::prepare(&connection)?;
        let ledger = Ledger::new(connection, limits)?;
        let (sender, steps) = mpsc::channel(WAITING_STEPS);
        let store = Self { steps: sender, watchers: Watchers::default(), more: Arc::new(Notify::new()) };
        let (watchers, more) = (store.watchers.clone(), Arc::clone(&store.more));
        let serve = move || {
            serve(ledger, steps, &watchers, &more);
            drop(lock);
        };
        let thread = thread::Builder::new().name("llambo-tasks".into()).spawn(serve).map_err(OpenError::Thread)?;
        Ok((store, thread))
    }

    /// Has something done for a client; it is refused when too much waits.
    pub(crate) async fn ask<T, F>(&self, work: F) -> Result<T, TaskError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Ledger) -> Sql<T> + Send + 'static,
    {
        let (reply, done) = oneshot::channel();
        let step = Box::new(Asked { work: Some(work), done: None, reply });
        self.steps.try_send(step).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => TaskError::Busy,
            mpsc::error::TrySendError::Closed(_) => TaskError::Closed,
        })?;
        done.await.unwrap_or(Err(TaskError::Closed))
    }

    /// The same for those who run tasks: they wait.
    pub(crate) async fn have<T, F>(&self, work: F) -> Result<T, TaskError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Ledger) -> Sql<T> + Send + 'static,
    {
        let (reply, done) = oneshot::channel();
        let step = Box::new(Asked { work: Some(work), done: None, reply });
        self.steps.send(step).await.map_err(|_| TaskError::Closed)?;
        done.await.unwrap_or(Err(TaskError::Closed))
    }
}

/// A folder that only this host's user can look into, and that no other host uses.
fn lock(folder: &Path) -> Result<fs::File, OpenError> {
    let failed = |source| OpenError::Folder { folder: folder.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let lock = fs::File::create(folder.join("lock")).map_err(failed)?;
    lock.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => OpenError::Locked { folder: folder.to_owned() },
        fs::TryLockError::Error(source) => failed(source),
    })?;
    Ok(lock)
}

fn serve(mut ledger: Ledger, mut steps: mpsc::Receiver<Box<dyn Step>>, watchers: &Watchers, more: &Notify) {
    metrics::counts(&ledger.counts);
    if ledger.counts.queued > 0 {
        more.notify_one();
    }
    while let Some(first) = steps.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < STEPS_AT_ONCE
            && let Ok(step) = steps.try_recv()
        {
            batch.push(step);
        }
        let failed = transact(&mut ledger, &mut batch).err().map(TaskError::from);
        if let Some(error) = &failed {
            tracing::error!(%error, n_steps = batch.len(), "the task store failed; nothing of this was kept");
            (ledger.changed, ledger.ended) = (Vec::new(), Vec::new());
            if let Err(error) = ledger.reload() {
                tracing::error!(%error, "the task store cannot be read");
            }
        }
        metrics::counts(&ledger.counts);
        metrics::ended(ledger.ended.drain(..));
        watchers.changed(ledger.changed.drain(..));
        for step in batch {
            step.tell(failed.as_ref());
        }
        if std::mem::take(&mut ledger.has_more) {
            more.notify_one();
        }
    }
}

fn transact(ledger: &mut Ledger, batch: &mut [Box<dyn Step>]) -> Sql<()> {
    let (began, n_before) = (Instant::now(), ledger.connection.total_changes());
    ledger.connection.execute_batch("BEGIN")?;
    let done = batch.iter_mut().try_for_each(|step| step.run(ledger)).and_then(|()| ledger.connection.execute_batch("COMMIT"));
    if done.is_err() && !ledger.connection.is_autocommit() {
        // if that fails too, the next `BEGIN` says so
        let _ = ledger.connection.execute_batch("ROLLBACK");
    }
    if ledger.connection.total_changes() != n_before {
        metrics::committed(began.elapsed());
    }
    done
}

// === impl Asked ===

impl<T: Send, F: FnOnce(&mut Ledger) -> Sql<T> + Send> Step for Asked<F, T> {
    fn run(&mut self, ledger: &mut Ledger) -> Sql<()> {
        if let Some(work) = self.work.take() {
            self.done = Some(work(ledger)?);
        }
        Ok(())
    }

    fn tell(self: Box<Self>, failed: Option<&TaskError>) {
        let told = match (failed, self.done) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(done)) => Ok(done),
            (None, None) => Err(TaskError::Closed),
        };
        // who asked may be gone
        let _ = self.reply.send(told);
    }
}

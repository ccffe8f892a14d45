use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use futures::Stream;
use llambo_orchestrator::Dispatcher;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};

use crate::{
    Filter, NewTask, OpenError, Settings, Task, TaskError, TaskEvent,
    counts::Limits,
    events,
    run::Bench,
    runner::{self, Runs},
    store::{Store, now_ms},
};

/// How often it is looked for tasks whose time is over, and for those that were kept long enough.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The tasks of a host. Clones are the same.
#[derive(Clone)]
pub struct Tasks(Arc<Inner>);

struct Inner {
    /// Gone once it is closed.
    store: Mutex<Option<Store>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
    runner: Mutex<Option<JoinHandle<()>>>,
    runs: Runs,
    stop: watch::Sender<bool>,
    is_durable: bool,
    max_running: usize,
}

// === impl Tasks ===

impl Tasks {
    /// Opens what is kept. Nothing runs before [`Self::start`]. Blocks while it reads.
    ///
    /// # Errors
    /// The folder cannot be used, or another host uses it; what lies there cannot be read.
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        let Settings { folder, max_running, max_queued, max_bytes, attempts, keep } = settings;
        let (store, thread) = Store::open(folder.as_deref(), Limits { max_queued, max_bytes, attempts, keep })?;
        Ok(Self(Arc::new(Inner {
            store: Mutex::new(Some(store)),
            thread: Mutex::new(Some(thread)),
            runner: Mutex::default(),
            runs: Runs::default(),
            stop: watch::channel(false).0,
            is_durable: folder.is_some(),
            max_running,
        })))
    }

    /// Begins to run tasks, those first that an earlier host left. To be called once, within a tokio runtime.
    pub fn start(&self, dispatcher: Dispatcher) {
        let Ok(store) = self.store() else { return };
        let bench = Bench { store: store.clone(), dispatcher, stopping: self.0.stop.subscribe() };
        let (runs, max_running) = (self.0.runs.clone(), self.0.max_running);
        // joined by `pause`
        let runner = tokio::spawn(async move {
            let mut sweeping = JoinSet::new();
            sweeping.spawn(sweep(store));
            runner::serve(bench, runs, max_running).await;
        });
        *self.0.runner.lock().unwrap_or_else(PoisonError::into_inner) = Some(runner);
    }

    /// Whether tasks outlive the host.
    pub fn is_durable(&self) -> bool {
        self.0.is_durable
    }

    /// Accepts a task, or tells the one that was accepted before under the same id or key. False for that one.
    ///
    /// # Errors
    /// [`TaskError::Conflict`], [`TaskError::Full`], [`TaskError::NoRoom`], and as everywhere here [`TaskError::Busy`],
    /// [`TaskError::Storage`] and [`TaskError::Closed`].
    pub async fn submit(&self, task: NewTask) -> Result<(Task, bool), TaskError> {
        if *self.0.stop.borrow() {
            return Err(TaskError::Closed);
        }
        self.store()?.ask(move |ledger| ledger.submit(&task, now_ms())).await?
    }

    /// A task with the text that it has so far.
    ///
    /// # Errors
    /// [`TaskError::Unknown`].
    pub async fn show(&self, tenant: &str, id: &str) -> Result<Task, TaskError> {
        let (of, name) = (tenant.to_owned(), id.to_owned());
        let found = self.store()?.ask(move |ledger| ledger.show(&of, &name)).await?;
        found.ok_or_else(|| TaskError::Unknown { id: id.to_owned() })
    }

    /// Tasks without their texts, newest first.
    ///
    /// # Errors
    /// [`TaskError::Unknown`] for the one that others come after.
    pub async fn list(&self, tenant: &str, filter: Filter) -> Result<Vec<Task>, TaskError> {
        let tenant = tenant.to_owned();
        self.store()?.ask(move |ledger| ledger.list(&tenant, &filter)).await?
    }

    /// Calls a task off, and tells how it ended. One that has ended stays as it is.
    ///
    /// # Errors
    /// [`TaskError::Unknown`].
    pub async fn cancel(&self, tenant: &str, id: &str) -> Result<Task, TaskError> {
        let (of, name) = (tenant.to_owned(), id.to_owned());
        let found = self.store()?.ask(move |ledger| ledger.cancel(&of, &name, now_ms())).await?;
        let (task, ran) = found.ok_or_else(|| TaskError::Unknown { id: id.to_owned() })?;
        if let Some(key) = ran {
            self.0.runs.stop(key);
        }
        Ok(task)
    }

    /// Forgets a task that has ended.
    ///
    /// # Errors
    /// [`TaskError::Unknown`], [`TaskError::NotEnded`].
    pub async fn delete(&self, tenant: &str, id: &str) -> Result<(), TaskError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.store()?.ask(move |ledger| ledger.delete(&tenant, &id)).await?
    }

    /// What happens to a task, from the byte `from` of its text on, or from its start. Ends with its end.
    ///
    /// # Errors
    /// [`TaskError::Unknown`], [`TaskError::NoEvent`].
    pub async fn follow(
        &self,
        tenant: &str,
        id: &str,
        from: Option<u64>,
    ) -> Result<impl Stream<Item = Result<TaskEvent, TaskError>> + Send + use<>, TaskError> {
        let store = self.store()?;
        events::follow(&store, tenant, id, from).await
    }

    /// Stops what runs, and keeps what it has made: it goes on with the next start. No more tasks are accepted; all else is answered.
    pub async fn pause(&self) {
        self.0.stop.send_replace(true);
        let runner = self.0.runner.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runner) = runner
            && let Err(error) = runner.await
        {
            tracing::error!(%error, "running tasks failed by a fault of the host");
        }
    }

    /// After [`Self::pause`]: closes the store. Blocks until all that it was asked for is written, and whoever follows a task is gone.
    pub fn close(&self) {
        drop(self.0.store.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the task store ended by a fault of the host");
        }
    }

    fn store(&self) -> Result<Store, TaskError> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(TaskError::Closed)
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("is_durable", &self.0.is_durable).finish_non_exhaustive()
    }
}

async fn sweep(store: Store) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // what fails is logged by the store, and tried again
        while let Ok(true) = store.have(|ledger| ledger.sweep(now_ms())).await {}
    }
}

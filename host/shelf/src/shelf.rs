//! All models of a host, the room there is for them, and the one turn in which they come and go.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use llambo_inference::{InferenceEngine, ModelName};
use tokio::sync::{Notify, OwnedMutexGuard, oneshot};

use crate::{
    Model, ShelfError, Stage,
    choice::{Candidate, who_goes},
};

/// Loads models.
pub trait Loader: Send + Sync + 'static {
    /// Brings a model into memory. Blocks for as long as that takes.
    ///
    /// # Errors
    /// Why that cannot be, for people.
    fn load(&self, model: &ModelName) -> Result<Arc<dyn InferenceEngine>, String>;

    /// Memory that a new model may take now; `None`: nobody knows.
    fn available_bytes(&self) -> Option<u64>;
}

/// What a host permits.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Memory of all models together; `None`: what the machine has.
    pub memory_bytes: Option<u64>,
    /// How long a request waits for its model.
    pub wait: Duration,
}

/// A model as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its name.
    pub name: ModelName,
    /// Where it is.
    pub stage: Stage,
    /// Whether it stays when room is needed.
    pub is_pinned: bool,
    /// What it takes, or would take.
    pub bytes: u64,
    /// Requests that use it now.
    pub n_users: u32,
}

/// What it took to have a model in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Woken {
    /// Whether it was there already.
    pub was_awake: bool,
    /// Who went to make room.
    pub gone: Vec<ModelName>,
    /// How long it took.
    pub took: Duration,
}

/// The models of a host. Clones are the same shelf.
#[derive(Clone)]
pub struct Shelf {
    inner: Arc<Inner>,
}

/// What a model itself needs of its shelf.
pub(crate) struct Core {
    pub(crate) settings: Settings,
    /// Something came, went or became idle.
    pub(crate) changed: Notify,
    clock: AtomicU64,
}

pub(crate) struct Inner {
    core: Arc<Core>,
    loader: Arc<dyn Loader>,
    models: Mutex<BTreeMap<ModelName, Arc<Model>>>,
    /// One that comes, with those that go for it, at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A model that is leaving comes back if whoever sent it away is gone before it is.
struct Sending<'a>(&'a Model);

// === impl Shelf ===

impl Shelf {
    /// An empty one.
    pub fn new(settings: Settings, loader: Arc<dyn Loader>) -> Self {
        let core = Core { settings, changed: Notify::new(), clock: AtomicU64::default() };
        let inner = Inner { core: Arc::new(core), loader, models: Mutex::default(), turn: Arc::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Takes a model in that is loaded already, and gives its stand-in.
    pub fn insert(&self, engine: Arc<dyn InferenceEngine>, bytes: u64) -> Arc<Model> {
        let name = engine.info().name.clone();
        let model = Model::new((Arc::clone(&self.inner.core), Arc::downgrade(&self.inner)), engine, bytes);
        self.inner.models().insert(name, Arc::clone(&model));
        self.inner.tell();
        model
    }

    /// Loads a model that was not there before, and gives its stand-in. It comes onto the shelf also when nobody waits for this any more.
    ///
    /// # Errors
    /// [`ShelfError::NoRoom`] at once, when nothing can go now; [`ShelfError::Unloadable`].
    pub async fn add(&self, name: &ModelName, bytes: u64) -> Result<(Arc<Model>, Woken), ShelfError> {
        let began = Instant::now();
        let turn = Arc::clone(&self.inner.turn).lock_owned().await;
        let gone = self.inner.make_room(name, bytes, false).await?;
        // on the shelf before the next one has its turn, so that its bytes are counted
        let owner = self.clone();
        let settle = move |engine: Option<Arc<dyn InferenceEngine>>| engine.map(|engine| owner.insert(engine, bytes));
        let model = self.inner.load(name.clone(), turn, settle).await?;
        let vanished = || ShelfError::Unloadable { model: name.clone(), why: "whoever loaded it went away".into() };
        Ok((model.ok_or_else(vanished)?, Woken { was_awake: false, gone, took: began.elapsed() }))
    }

    /// Brings a model back into memory.
    ///
    /// # Errors
    /// As for [`Self::add`]; [`ShelfError::Unknown`].
    pub async fn wake(&self, name: &ModelName) -> Result<Woken, ShelfError> {
        let model = self.inner.get(name)?;
        self.inner.wake(&model, false).await
    }

    /// Takes a model out of memory once nobody uses it; whoever asks for it then wakes it. Answers how many bytes are free by that. Dropping
    /// the future before it is done leaves the model where it is.
    ///
    /// # Errors
    /// [`ShelfError::Unknown`], [`ShelfError::Pinned`].
    pub async fn put_aside(&self, name: &ModelName) -> Result<u64, ShelfError> {
        let model = self.inner.get(name)?;
        if model.is_pinned() {
            return Err(ShelfError::Pinned { model: name.clone() });
        }
        let freed = self.inner.put_aside(&model).await;
        if freed > 0 {
            metrics::counter!("llambo_model_unloads_total", "model" => name.to_string(), "cause" => "asked").increment(1);
        }
        Ok(freed)
    }

    /// Whether a model stays in memory when room is needed.
    ///
    /// # Errors
    /// [`ShelfError::Unknown`].
    pub fn pin(&self, name: &ModelName, is_pinned: bool) -> Result<(), ShelfError> {
        self.inner.get(name).map(|model| model.pin(is_pinned))
    }

    /// Forgets a model that was put aside: whoever still has its stand-in is told that it is not there.
    pub fn remove(&self, name: &ModelName) {
        let model = self.inner.models().remove(name);
        if let Some(model) = model {
            model.step(Stage::Asleep, Stage::Gone);
        }
        self.inner.tell();
    }

    /// Takes all models away: the last step of a host that ends. Waits for their threads, as far as no answer holds them.
    pub fn close(&self) {
        let models = std::mem::take(&mut *self.inner.models());
        for model in models.into_values() {
            model.end();
        }
    }

    /// All models, by name.
    pub fn list(&self) -> Vec<Status> {
        let models = self.inner.models();
        let status = |(name, model): (&ModelName, &Arc<Model>)| Status {
            name: name.clone(),
            stage: model.stage(),
            is_pinned: model.is_pinned(),
            bytes: model.bytes,
            n_users: model.n_users(),
        };
        models.iter().map(status).collect()
    }

    /// One of them.
    pub fn status(&self, name: &ModelName) -> Option<Status> {
        self.list().into_iter().find(|status| status.name == *name)
    }
}

// === impl Core ===

impl Core {
    pub(crate) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }
}

// === impl Inner ===

impl Inner {
    fn models(&self) -> MutexGuard<'_, BTreeMap<ModelName, Arc<Model>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, name: &ModelName) -> Result<Arc<Model>, ShelfError> {
        let models = self.models();
        let unknown = || ShelfError::Unknown { model: name.clone(), known: models.keys().cloned().collect() };
        models.get(name).cloned().ok_or_else(unknown)
    }

    /// Has a model in memory. `is_patient`: waits until there is room.
    pub(crate) async fn wake(self: &Arc<Self>, model: &Arc<Model>, is_patient: bool) -> Result<Woken, ShelfError> {
        let began = Instant::now();
        let turn = Arc::clone(&self.turn).lock_owned().await;
        loop {
            let mut changed = std::pin::pin!(self.core.changed.notified());
            changed.as_mut().enable();
            match model.stage() {
                // somebody else woke it meanwhile
                Stage::Awake => return Ok(Woken { was_awake: true, ..Woken::default() }),
                // whoever sends it away finds that it stayed; unless it is on its way already
                Stage::Leaving if model.call_back() => return Ok(Woken { was_awake: true, ..Woken::default() }),
                Stage::Leaving => changed.await,
                _ => break,
            }
        }
        let name = llambo_inference::InferenceEngine::info(model.as_ref()).name.clone();
        let gone = self.make_room(&name, model.bytes, is_patient).await?;
        if !model.step(Stage::Asleep, Stage::Waking) {
            return Err(ShelfError::Unknown { model: name, known: Vec::new() });
        }
        let settled = Arc::clone(model);
        let loaded = self.load(name, turn, move |engine| settled.settle(engine)).await;
        // where not even a thread could be made, nobody else says so
        loaded.inspect_err(|_| {
            model.step(Stage::Waking, Stage::Asleep);
        })?;
        self.tell();
        Ok(Woken { was_awake: false, gone, took: began.elapsed() })
    }

    /// On a thread of its own, to its end also when nobody waits for it any more; it keeps its turn as long. What was loaded goes to `settle`
    /// and nowhere else: a second hand on it would keep the memory of a model that the shelf takes for gone.
    async fn load<T: Send + 'static>(
        self: &Arc<Self>,
        name: ModelName,
        turn: OwnedMutexGuard<()>,
        settle: impl FnOnce(Option<Arc<dyn InferenceEngine>>) -> T + Send + 'static,
    ) -> Result<T, ShelfError> {
        let (done, outcome) = oneshot::channel();
        let (loader, model) = (Arc::clone(&self.loader), name.clone());
        let spawned = thread::Builder::new().name("model loader".into()).spawn(move || {
            let began = Instant::now();
            let engine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| loader.load(&model)));
            let engine = engine.unwrap_or_else(|_| Err("loading it failed by a fault of the host; see its log".into()));
            let outcome = if engine.is_ok() { "done" } else { "failed" };
            metrics::counter!("llambo_model_loads_total", "model" => model.to_string(), "outcome" => outcome).increment(1);
            match &engine {
                Ok(_) => tracing::info!(%model, load_ms = began.elapsed().as_millis(), "model in memory"),
                Err(error) => tracing::error!(%model, error, "a model cannot be loaded"),
            }
            let (engine, failed) = match engine {
                Ok(engine) => (Some(engine), None),
                Err(error) => (None, Some(error)),
            };
            let settled = settle(engine);
            drop(turn);
            let _ = done.send(failed.map_or(Ok(settled), Err));
        });
        let unloadable = |why: String| ShelfError::Unloadable { model: name.clone(), why };
        spawned.map_err(|e| unloadable(format!("no thread for it: {e}")))?;
        outcome.await.map_err(|_| unloadable("whoever loaded it went away".into()))?.map_err(unloadable)
    }

    /// Room for so many bytes: who was used longest ago goes. Answers who went.
    async fn make_room(&self, name: &ModelName, needed: u64, is_patient: bool) -> Result<Vec<ModelName>, ShelfError> {
        let mut gone = Vec::new();
        loop {
            let mut changed = std::pin::pin!(self.core.changed.notified());
            changed.as_mut().enable();
            let (candidates, free, movable) = self.room(name);
            let Some(going) = who_goes(&candidates, needed, free) else {
                if is_patient && free.saturating_add(movable) >= needed {
                    // those that are in use may become idle; whoever waits here has a deadline
                    changed.await;
                    continue;
                }
                metrics::counter!("llambo_model_loads_total", "model" => name.to_string(), "outcome" => "no_room").increment(1);
                return Err(ShelfError::NoRoom { model: name.clone(), needed_bytes: needed, free_bytes: free });
            };
            if going.is_empty() {
                return Ok(gone);
            }
            for other in going {
                // one that somebody began to use since stays, and the choice is made anew
                let Some(model) = self.models().get(&other).cloned().filter(|model| model.begin_to_go()) else { break };
                if !self.part(&model).await {
                    break;
                }
                metrics::counter!("llambo_model_unloads_total", "model" => other.to_string(), "cause" => "room").increment(1);
                tracing::info!(model = %other, for_model = %name, bytes = model.bytes, "model taken out of memory to make room");
                gone.push(other);
            }
        }
    }

    /// Models in memory beside that one, the bytes that are free, and those that would be if all went that are not pinned.
    fn room(&self, name: &ModelName) -> (Vec<Candidate>, u64, u64) {
        let models = self.models();
        let is_in_memory = |model: &Model| !matches!(model.stage(), Stage::Asleep | Stage::Gone);
        let in_memory: Vec<_> = models.iter().filter(|(other, model)| *other != name && is_in_memory(model)).collect();
        let movable = in_memory.iter().filter(|(_, model)| !model.is_pinned()).map(|(_, model)| model.bytes).sum();
        let candidates: Vec<_> = in_memory
            .into_iter()
            .map(|(name, model)| Candidate {
                name: name.clone(),
                bytes: model.bytes,
                used: model.used(),
                may_go: model.stage() == Stage::Awake && model.n_users() == 0 && !model.is_pinned(),
            })
            .collect();
        drop(models);
        let taken: u64 = candidates.iter().map(|candidate| candidate.bytes).sum();
        let free = match self.core.settings.memory_bytes {
            Some(limit) => limit.saturating_sub(taken),
            None => self.loader.available_bytes().unwrap_or(u64::MAX),
        };
        (candidates, free, movable)
    }

    /// Out of memory once nobody uses it.
    async fn put_aside(&self, model: &Arc<Model>) -> u64 {
        if !model.step(Stage::Awake, Stage::Leaving) {
            return 0;
        }
        let freed = self.part(model).await;
        if freed { model.bytes } else { 0 }
    }

    /// Waits until nobody uses a model that is leaving, and frees its memory. False: it was called back.
    async fn part(&self, model: &Arc<Model>) -> bool {
        let sending = Sending(model);
        let engine = loop {
            let mut changed = std::pin::pin!(self.core.changed.notified());
            changed.as_mut().enable();
            if let Some(engine) = model.leave() {
                break engine;
            }
            if model.stage() != Stage::Leaving {
                return false;
            }
            changed.await;
        };
        std::mem::forget(sending);
        let (done, freed) = oneshot::channel();
        let left = Arc::clone(model);
        // its thread is waited for, which a task must not do
        let spawned = thread::Builder::new().name("model unloader".into()).spawn(move || {
            drop(engine);
            left.settle(None);
            let _ = done.send(());
        });
        match spawned {
            Ok(_) => drop(freed.await),
            Err(_) => model.settle(None),
        }
        self.tell();
        true
    }

    fn tell(&self) {
        let models = self.models();
        let in_memory = models.values().filter(|model| !matches!(model.stage(), Stage::Asleep | Stage::Gone));
        metrics::gauge!("llambo_models_memory_bytes").set(in_memory.map(|model| model.bytes).sum::<u64>() as f64);
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.call_back();
    }
}

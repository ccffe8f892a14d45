//! A model's stand-in: its engine to everybody, whether it is in memory or not.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    thread,
};

use futures::{FutureExt, Stream, StreamExt, TryFutureExt, TryStreamExt, future::BoxFuture};
use llambo_inference::{
    AnswerStream, EmbedFuture, EngineLoad, ExportFuture, ExtendRequest, GenerateRequest, ImportFuture, InferenceEngine,
    InferenceError, KeptState, MeasureFuture, MeasureRequest, ModelInfo, Prompt, TenantName, TokenId,
};

use crate::{
    ShelfError,
    shelf::{Core, Inner},
};

/// Where a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// In memory.
    Awake,
    /// It goes as soon as nobody uses it; whoever asks waits until it has gone, and wakes it.
    Leaving,
    /// Out of memory.
    Asleep,
    /// It is being loaded.
    Waking,
    /// It was taken away for good.
    Gone,
}

/// The stand-in.
pub struct Model {
    info: ModelInfo,
    /// What it is counted with.
    pub(crate) bytes: u64,
    core: Arc<Core>,
    shelf: Weak<Inner>,
    slot: Mutex<Slot>,
    is_pinned: AtomicBool,
    me: Weak<Self>,
}

struct Slot {
    stage: Stage,
    engine: Option<Arc<dyn InferenceEngine>>,
    n_users: u32,
    used: u64,
    /// What earlier loads counted.
    past: EngineLoad,
}

/// The right to a model that stays in memory as long as this is there.
pub(crate) struct Use {
    model: Arc<Model>,
    engine: Option<Arc<dyn InferenceEngine>>,
}

/// An answer, and the right to its model.
struct Held {
    events: AnswerStream,
    _right: Use,
}

impl Stage {
    /// As it is told to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Awake => "loaded",
            Self::Leaving => "unloading",
            Self::Asleep => "unloaded",
            Self::Waking => "loading",
            Self::Gone => "gone",
        }
    }
}

// === impl Model ===

impl Model {
    pub(crate) fn new((core, shelf): (Arc<Core>, Weak<Inner>), engine: Arc<dyn InferenceEngine>, bytes: u64) -> Arc<Self> {
        let (info, used) = (engine.info().clone(), core.tick());
        let slot = Slot { stage: Stage::Awake, engine: Some(engine), n_users: 0, used, past: EngineLoad::default() };
        Arc::new_cyclic(|me| Self {
            info,
            bytes,
            core,
            shelf,
            slot: Mutex::new(slot),
            is_pinned: AtomicBool::new(false),
            me: Weak::clone(me),
        })
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stage(&self) -> Stage {
        self.slot().stage
    }

    pub(crate) fn n_users(&self) -> u32 {
        self.slot().n_users
    }

    pub(crate) fn used(&self) -> u64 {
        self.slot().used
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.is_pinned.load(Ordering::Acquire)
    }

    pub(crate) fn pin(&self, is_pinned: bool) {
        self.is_pinned.store(is_pinned, Ordering::Release);
        self.core.changed.notify_waiters();
    }

    /// From one stage into another; false if it is in a third.
    pub(crate) fn step(&self, from: Stage, to: Stage) -> bool {
        let mut slot = self.slot();
        let is_there = slot.stage == from;
        if is_there {
            slot.stage = to;
        }
        drop(slot);
        self.core.changed.notify_waiters();
        is_there
    }

    /// Out of memory from now on, if it is leaving and nobody uses it: then its engine, whose end frees the memory.
    pub(crate) fn leave(&self) -> Option<Arc<dyn InferenceEngine>> {
        let mut slot = self.slot();
        if slot.stage != Stage::Leaving || slot.n_users > 0 {
            return None;
        }
        let engine = slot.engine.take()?;
        let load = engine.load();
        slot.past.n_prompt_tokens += load.n_prompt_tokens;
        slot.past.n_generated_tokens += load.n_generated_tokens;
        slot.past.n_cached_tokens += load.n_cached_tokens;
        Some(engine)
    }

    /// Marks it as going if it is idle and may be taken away unasked.
    pub(crate) fn begin_to_go(&self) -> bool {
        let mut slot = self.slot();
        let goes = slot.stage == Stage::Awake && slot.n_users == 0 && !self.is_pinned();
        if goes {
            slot.stage = Stage::Leaving;
        }
        goes
    }

    /// Gone, whatever it was doing; answers under way keep its engine until they end.
    pub(crate) fn end(&self) {
        let engine = {
            let mut slot = self.slot();
            slot.stage = Stage::Gone;
            slot.engine.take()
        };
        self.core.changed.notify_waiters();
        drop(engine);
    }

    /// In memory again, if it was about to leave and still is there.
    pub(crate) fn call_back(&self) -> bool {
        let mut slot = self.slot();
        let stays = slot.stage == Stage::Leaving && slot.engine.is_some();
        if stays {
            slot.stage = Stage::Awake;
        }
        drop(slot);
        self.core.changed.notify_waiters();
        stays
    }

    /// What came of a load, or that it is out of memory.
    pub(crate) fn settle(&self, engine: Option<Arc<dyn InferenceEngine>>) {
        let mut slot = self.slot();
        if slot.stage == Stage::Gone {
            return;
        }
        slot.stage = if engine.is_some() { Stage::Awake } else { Stage::Asleep };
        slot.used = self.core.tick();
        slot.engine = engine;
        drop(slot);
        self.core.changed.notify_waiters();
    }

    /// The right to use it, if it is in memory.
    pub(crate) fn use_now(&self) -> Option<Use> {
        let model = self.me.upgrade()?;
        let mut slot = self.slot();
        if slot.stage != Stage::Awake {
            return None;
        }
        slot.n_users += 1;
        slot.used = self.core.tick();
        let engine = slot.engine.clone();
        drop(slot);
        Some(Use { model, engine })
    }

    fn gone(&self) -> InferenceError {
        InferenceError::UnknownModel { model: self.info.name.clone(), loaded: Vec::new() }
    }

    /// The right to use it; wakes it if it is not in memory.
    fn used_by(&self) -> BoxFuture<'static, Result<Use, InferenceError>> {
        let (me, owner) = (self.me.upgrade(), self.shelf.upgrade());
        let gone = self.gone();
        async move {
            let (Some(model), Some(owner)) = (me, owner) else { return Err(gone) };
            let wait = model.core.settings.wait;
            let woken = async {
                loop {
                    let mut changed = std::pin::pin!(model.core.changed.notified());
                    // listening before looking: a change between the two is not missed
                    changed.as_mut().enable();
                    if let Some(right) = model.use_now() {
                        return Ok(right);
                    }
                    match model.stage() {
                        Stage::Gone => return Err(gone),
                        Stage::Leaving => changed.await,
                        _ => match owner.wake(&model, true).await {
                            Ok(_) => {}
                            Err(error) => return Err(error.into()),
                        },
                    }
                }
            };
            let late = || ShelfError::Slow { model: model.info.name.clone(), waited: wait }.into();
            tokio::time::timeout(wait, woken).await.unwrap_or_else(|_| Err(late()))
        }
        .boxed()
    }

    /// The same for whoever cannot wait as a task does. Rare: a request has its model in memory before it counts tokens, as a rule.
    fn used_blocking(&self) -> Result<Use, InferenceError> {
        if let Some(right) = self.use_now() {
            return Ok(right);
        }
        let waiting = self.used_by();
        let failed = |what: String| InferenceError::Backend(what);
        // on a thread of its own: the present one may belong to a runtime, which cannot be waited for from within
        let waiter = thread::Builder::new().name("model waiter".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.map_err(|e| failed(e.to_string()))?.block_on(waiting)
        });
        let ended = waiter.map_err(|e| failed(e.to_string()))?.join();
        ended.unwrap_or_else(|_| Err(failed("waiting for a model failed by a fault of the host".into())))
    }

    /// Hands work to the engine that answers as a stream, at once or once it is awake.
    fn stream(
        &self,
        ask: impl FnOnce(&dyn InferenceEngine) -> Result<AnswerStream, InferenceError> + Send + 'static,
    ) -> Result<AnswerStream, InferenceError> {
        if let Some(right) = self.use_now() {
            return Ok(Box::pin(Held { events: ask(right.engine()?)?, _right: right }));
        }
        let waiting = self.used_by();
        let events = async move {
            let right = waiting.await?;
            Ok::<_, InferenceError>(Held { events: ask(right.engine()?)?, _right: right })
        };
        Ok(events.try_flatten_stream().boxed())
    }

    /// The same for work that answers once.
    fn once<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn InferenceEngine) -> BoxFuture<'static, Result<T, InferenceError>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, InferenceError>> {
        let right = self.use_now();
        let waiting = right.is_none().then(|| self.used_by());
        async move {
            let right = match (right, waiting) {
                (Some(right), _) => right,
                (None, Some(waiting)) => waiting.await?,
                (None, None) => return Err(InferenceError::Backend("a model is neither there nor waited for".into())),
            };
            let work = ask(right.engine()?);
            work.await
        }
        .boxed()
    }
}

impl InferenceEngine for Model {
    fn submit(&self, request: GenerateRequest) -> Result<AnswerStream, InferenceError> {
        self.stream(move |engine| engine.submit(request))
    }

    fn embed(&self, text: String) -> EmbedFuture {
        self.once(move |engine| engine.embed(text))
    }

    fn tokens(&self, prompt: &Prompt) -> Result<Vec<TokenId>, InferenceError> {
        self.used_blocking()?.engine()?.tokens(prompt)
    }

    fn tokens_within(&self, text: &str) -> Result<Vec<TokenId>, InferenceError> {
        self.used_blocking()?.engine()?.tokens_within(text)
    }

    fn bytes_of(&self, tokens: &[TokenId]) -> Vec<u8> {
        self.used_blocking().and_then(|right| Ok(right.engine()?.bytes_of(tokens))).unwrap_or_default()
    }

    fn extend(&self, request: ExtendRequest) -> Result<AnswerStream, InferenceError> {
        self.stream(move |engine| engine.extend(request))
    }

    fn measure(&self, request: MeasureRequest) -> MeasureFuture {
        self.once(move |engine| engine.measure(request))
    }

    /// What is kept is lost with the memory: nobody wakes a model for it.
    fn export(&self, tenant: TenantName, tokens: Vec<TokenId>) -> ExportFuture {
        match self.use_now() {
            None => async { Ok(None) }.boxed(),
            Some(right) => async move { right.engine()?.export(tenant, tokens).await }.boxed(),
        }
    }

    fn import(&self, tenant: TenantName, state: KeptState) -> ImportFuture {
        match self.use_now() {
            None => async { Ok(false) }.boxed(),
            Some(right) => async move { right.engine()?.import(tenant, state).await }.boxed(),
        }
    }

    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn load(&self) -> EngineLoad {
        let slot = self.slot();
        let (engine, past) = (slot.engine.clone(), slot.past);
        drop(slot);
        let now = engine.map_or_else(EngineLoad::default, |engine| engine.load());
        EngineLoad {
            n_prompt_tokens: now.n_prompt_tokens + past.n_prompt_tokens,
            n_generated_tokens: now.n_generated_tokens + past.n_generated_tokens,
            n_cached_tokens: now.n_cached_tokens + past.n_cached_tokens,
            ..now
        }
    }
}

// === impl Use ===

impl Use {
    fn engine(&self) -> Result<&dyn InferenceEngine, InferenceError> {
        self.engine.as_deref().ok_or_else(|| self.model.gone())
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        // the engine first: whoever frees it must be the shelf, on a thread that may wait
        self.engine = None;
        let mut slot = self.model.slot();
        slot.n_users -= 1;
        let is_idle = slot.n_users == 0;
        drop(slot);
        if is_idle {
            self.model.core.changed.notify_waiters();
        }
    }
}

impl Stream for Held {
    type Item = Result<llambo_inference::AnswerEvent, InferenceError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.try_poll_next_unpin(cx)
    }
}

//! What the host keeps for one guest: its handles, its budget, and the request it is at.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use llambo_inference::{
    FinishReason, GenerateRequest, InferenceError, Journal, ModelName, Models, RequestId, Sampling, Share, TraceContext, Usage,
};
use wasmtime::{
    Result,
    component::{Resource, ResourceTable},
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::{
    bindings::llambo::guest::{output, types},
    branch::Branch,
    journal::Place,
    limits::{Budget, Exhausted, Limits},
    nn::{ExecutionContext, Graph, MAX_SESSIONS, NnError, Session, Tensor},
    output::Voice,
};

/// Handles a guest may hold at once, of all kinds.
const MAX_HANDLES: usize = 4096;

/// Random bytes in one call of WASI's: made one by one, while the thread is held.
pub(crate) const MAX_RANDOM_BYTES: u64 = 64 << 10;

/// The data of a guest's store.
pub(crate) struct GuestState {
    pub(crate) budget: Budget,
    pub(crate) table: ResourceTable,
    pub(crate) models: Models,
    /// Branches by the names that the guest gave them.
    pub(crate) snapshots: BTreeMap<String, Branch>,
    /// The request at hand.
    pub(crate) call: Option<Box<Call>>,
    /// Only for modules that import WASI: nothing is preopened, no network, output goes nowhere.
    wasi: Option<Box<WasiCtx>>,
}

/// One request, as long as the guest is at it.
pub(crate) struct Call {
    pub(crate) id: RequestId,
    pub(crate) model: ModelName,
    pub(crate) share: Share,
    /// What the client asked for.
    pub(crate) sampling: Sampling,
    pub(crate) deadline: Option<Instant>,
    /// The trace that it is part of.
    pub(crate) trace: Option<TraceContext>,
    pub(crate) voice: Voice,
    /// Generations under way, by the handle of the execution context or the branch that they belong to.
    pub(crate) sessions: HashMap<u32, Session>,
    pub(crate) usage: Usage,
    journal: Option<Journal>,
    n_generations: usize,
    /// Tokens generated so far, whoever they were for.
    pub(crate) n_tokens: u32,
    /// How the last generation ended.
    pub(crate) finish_reason: FinishReason,
    pub(crate) last_error: Option<InferenceError>,
}

/// What a handle costs the host.
pub(crate) trait Held: Send + 'static {
    fn n_bytes(&self) -> usize {
        size_of_val(self)
    }
}

impl Held for Graph {}
impl Held for ExecutionContext {}

impl Held for NnError {
    fn n_bytes(&self) -> usize {
        size_of_val(self) + self.data.len()
    }
}

impl Held for Branch {
    fn n_bytes(&self) -> usize {
        Branch::n_bytes(self)
    }
}

impl Held for Tensor {
    fn n_bytes(&self) -> usize {
        Tensor::n_bytes(self)
    }
}

// === impl Call ===

impl Call {
    pub(crate) fn new(request: GenerateRequest, voice: Voice) -> Self {
        let GenerateRequest { id, model, share, deadline, sampling, routing, journal, .. } = request;
        Self {
            id,
            model,
            share,
            sampling,
            deadline,
            trace: routing.trace,
            voice,
            sessions: HashMap::new(),
            usage: Usage::default(),
            journal,
            n_generations: 0,
            n_tokens: 0,
            finish_reason: FinishReason::Stop,
            last_error: None,
        }
    }

    /// Where the next generation is written down.
    pub(crate) fn next_place(&mut self) -> Place {
        self.n_generations += 1;
        Place::new(self.journal.clone(), self.n_generations - 1)
    }

    /// Whether one more generation may be started.
    pub(crate) fn may_start(&self) -> std::result::Result<(), InferenceError> {
        if self.sessions.len() < MAX_SESSIONS {
            return Ok(());
        }
        let what = format!("{MAX_SESSIONS} generations are under way for this request, the most there may be");
        Err(InferenceError::InvalidRequest(what))
    }
}

// === impl GuestState ===

impl GuestState {
    pub(crate) fn new(limits: Arc<Limits>, models: Models, needs_wasi: bool) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let wasi = needs_wasi.then(|| Box::new(wasi()));
        Self { budget: Budget::new(limits), table, models, snapshots: BTreeMap::new(), call: None, wasi }
    }

    /// The request at hand.
    ///
    /// # Errors
    /// A trap when there is none: a module's own start code called.
    pub(crate) fn call(&mut self) -> Result<&mut Call> {
        match self.call.as_deref_mut() {
            Some(call) => Ok(call),
            None => Err(wasmtime::format_err!("called before there was a request")),
        }
    }

    /// The request is over: what still runs for it ends, and is counted. `None` when there was none.
    pub(crate) fn end_call(&mut self) -> Option<Box<Call>> {
        let mut call = self.call.take()?;
        for session in std::mem::take(&mut call.sessions).into_values() {
            call.usage += session.usage_so_far();
        }
        Some(call)
    }

    /// Tokens were generated for the guest.
    pub(crate) fn note_tokens(&mut self, n: u32) -> Result<()> {
        let limit = self.budget.tokens();
        let call = self.call()?;
        call.voice.note(n);
        call.n_tokens = call.n_tokens.saturating_add(n);
        match limit {
            Some(limit) if call.n_tokens > limit => Err(Exhausted::tokens(limit).into()),
            _ => self.check_kv(0),
        }
    }

    /// A generation begins for the handle that it belongs to.
    pub(crate) fn begin_session(&mut self, handle: u32, session: Session) -> Result<()> {
        self.call()?.sessions.insert(handle, session);
        self.check_kv(0)
    }

    /// Whether the request may hold what it holds of keys and values, and `more`.
    pub(crate) fn check_kv(&mut self, more: u64) -> Result<()> {
        let Some(limit) = self.budget.kv_bytes() else { return Ok(()) };
        let held = self.call()?.sessions.values().map(Session::kv_bytes).fold(more, u64::saturating_add);
        if held > limit { Err(Exhausted::kv(limit, held).into()) } else { Ok(()) }
    }

    /// A handle for the guest, charged to its memory.
    pub(crate) fn hold<T: Held>(&mut self, value: T) -> Result<Resource<T>> {
        self.budget.hold(value.n_bytes())?;
        self.table.push(value).map_err(|_| {
            let detail = format!("holds {MAX_HANDLES} handles of tensors, graphs, contexts and branches, the most there may be");
            Exhausted { reason: "MEMORY_EXHAUSTED", detail }.into()
        })
    }

    /// What is behind a handle that the guest gave away.
    pub(crate) fn take<T: Held>(&mut self, handle: Resource<T>) -> Result<T> {
        let value = self.table.delete(handle)?;
        self.budget.release(value.n_bytes());
        Ok(value)
    }
}

fn wasi() -> WasiCtx {
    WasiCtx::builder().max_random_size(MAX_RANDOM_BYTES).build()
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| Box::new(wasi()));
        WasiCtxView { ctx, table: &mut self.table }
    }
}

impl types::Host for GuestState {}

impl output::Host for GuestState {
    async fn emit(&mut self, piece: Vec<u8>) -> Result<bool> {
        self.budget.charge_call()?;
        Ok(self.call()?.voice.say(&piece).await?)
    }
}

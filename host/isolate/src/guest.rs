//! A guest: one instance of a module in its store. Lives until it ends badly or its isolate does.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
};

use llambo_inference::{FinishReason, Finished, GenerateRequest, InferenceError, Message, Prompt, Role, TenantName, shortened};
use wasmtime::{Store, Trap, component};

use crate::{
    NodeType,
    bindings::{
        Engine as Instance, EnginePre,
        llambo::guest::types::{self, Failure},
    },
    branch::Branch,
    command::Command,
    cpu::{CpuMeter, Metered},
    hibernate::{Access, Doors, HibernateError, Image, Named},
    limits::{Exhausted, Limits},
    module::Template,
    nn,
    node_type::Berth,
    output::Voice,
    share::CpuShare,
    slab::{OnStack, Parked},
    state::{Call, GuestState},
};

/// A slice that a guest's first epoch may be cut short by is not counted.
pub(crate) const FIRST_SLICES: u64 = 2;

/// What is told of a guest's own words about its failure: they travel in headers.
pub(crate) const FAILURE_BYTES: usize = 1024;

/// What runs in an isolate.
pub(crate) enum Guest {
    /// An instance that answers one request after the other.
    Component(Box<Component>),
    /// A program that is started for each request.
    Command { command: Command, engine: wasmtime::Engine, share: Arc<CpuShare> },
}

/// An instance and its store.
pub(crate) struct Component {
    store: Store<GuestState>,
    instance: Instance,
    /// Where it can be hibernated.
    doors: Option<Box<(component::Instance, Doors)>>,
    /// The store's stack, whose memory is given back while no call is on it.
    parked: Option<Parked>,
    share: Arc<CpuShare>,
    /// Whose request it was at last.
    tenant: Option<TenantName>,
}

/// How a guest's request ended.
pub(crate) struct Ended {
    pub(crate) result: Result<Finished, InferenceError>,
    /// The guest can take another request.
    pub(crate) usable: bool,
}

// === impl Guest ===

impl Guest {
    /// Instantiates a component; what its start code does is charged like a request.
    pub(crate) async fn start(node_type: &NodeType, berth: &Berth) -> Result<Self, InferenceError> {
        match berth.template.as_ref() {
            Template::Component { pre, needs_wasi, doors } => {
                Component::start(node_type, berth, pre, *needs_wasi, doors.as_ref())
                    .await
                    .map(|component| Self::Component(Box::new(component)))
            }
            Template::Command(command) => {
                Ok(Self::Command { command: command.clone(), engine: berth.engine.clone(), share: Arc::clone(&berth.share) })
            }
        }
    }

    /// What it has, while no request is at it; `None` for a command, which has nothing then.
    pub(crate) async fn image(&mut self, node_type: &NodeType) -> Result<Option<Image>, HibernateError> {
        match self {
            Self::Component(component) => component.image(node_type).await.map(Some),
            Self::Command { .. } => Ok(None),
        }
    }

    /// A fresh one with what another one had.
    pub(crate) async fn woken(node_type: &NodeType, berth: &Berth, image: Option<Image>) -> Result<Self, HibernateError> {
        let mut guest = Self::start(node_type, berth).await.map_err(|e| HibernateError::Failed(e.to_string()))?;
        if let (Self::Component(component), Some(image)) = (&mut guest, image) {
            component.put_on(node_type, image).await?;
        }
        Ok(guest)
    }

    /// Whether it knows nothing but what this tenant may know.
    pub(crate) fn may_serve(&self, tenant: &TenantName) -> bool {
        match self {
            Self::Component(component) => component.tenant.as_ref().is_none_or(|served| served == tenant),
            Self::Command { .. } => true,
        }
    }

    /// Linear memory in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        match self {
            Self::Component(component) => component.store.data().budget.memory_bytes(),
            Self::Command { .. } => 0,
        }
    }

    /// Answers one request; what it says goes to `voice`. Tells when it computes without a wait. A future that is dropped leaves a guest
    /// that must be dropped too.
    pub(crate) async fn answer(
        &mut self,
        node_type: &NodeType,
        request: GenerateRequest,
        voice: Voice,
        is_heavy: Arc<AtomicBool>,
    ) -> Ended {
        let meter = |share: &Arc<CpuShare>| Arc::new(CpuMeter::start(&node_type.pools, Arc::clone(share), is_heavy));
        match self {
            Self::Component(component) => {
                let meter = meter(&component.share);
                component.answer(node_type, meter, request, voice).await
            }
            Self::Command { command, engine, share } => command.answer(engine, node_type, meter(share), request, voice).await,
        }
    }
}

// === impl Component ===

impl Component {
    async fn start(
        node_type: &NodeType,
        berth: &Berth,
        pre: &EnginePre<GuestState>,
        needs_wasi: bool,
        doors: Option<&Doors>,
    ) -> Result<Self, InferenceError> {
        let state = GuestState::new(Arc::clone(&node_type.limits), node_type.models.clone(), needs_wasi);
        let mut store = Store::new(&berth.engine, state);
        store.limiter(|state| &mut state.budget);
        store.set_hostcall_fuel(node_type.limits.call_bytes());
        let meter = Arc::new(CpuMeter::start(&node_type.pools, Arc::clone(&berth.share), Arc::default()));
        node_type.slice(&mut store, Arc::clone(&meter));
        let _ticking = node_type.pools.ticker.running();
        let mut parked = None;
        let instantiate = async {
            let Some(doors) = doors else { return Ok((pre.instantiate_async(&mut store).await?, None)) };
            let raw = pre.instance_pre().instantiate_async(&mut store).await?;
            Ok((Instance::new(&mut store, &raw)?, Some(Box::new((raw, doors.clone())))))
        };
        let started = OnStack::new(instantiate, &mut parked);
        match Metered::new(started, meter).await {
            Ok((instance, doors)) => Ok(Self { store, instance, doors, parked, share: Arc::clone(&berth.share), tenant: None }),
            Err(error) => Err(why(&error, &node_type.limits)),
        }
    }

    /// What it has, while no request is at it. It can go on afterwards.
    async fn image(&mut self, node_type: &NodeType) -> Result<Image, HibernateError> {
        let Some(doors) = &self.doors else {
            let name = &node_type.settings().name;
            return Err(HibernateError::Unfit(format!(
                "isolates of type `{name}` are not hibernated; set its `hibernate: true`"
            )));
        };
        if !self.store.data().table.is_empty() {
            let what = "its guest holds branches, graphs or tensors from one request to the next, and handles cannot be kept; it should \
                        `save` branches by a name and drop the rest";
            return Err(HibernateError::Unfit(what.into()));
        }
        self.store.set_hostcall_fuel(usize::MAX);
        let mut access = Access { store: &mut self.store, instance: &doors.0, doors: &doors.1 };
        let image = OnStack::new(access.take(), &mut self.parked).await;
        self.store.set_hostcall_fuel(node_type.limits.call_bytes());
        let mut image = image?;
        image.branches = named(node_type, &self.store.data().snapshots).await?;
        Ok(image)
    }

    /// Puts on what another one had. One that failed must not be used.
    async fn put_on(&mut self, node_type: &NodeType, image: Image) -> Result<(), HibernateError> {
        let Some(doors) = &self.doors else { return Err(HibernateError::Unfit("it has no doors to its state".into())) };
        self.store.set_hostcall_fuel(usize::MAX);
        let mut access = Access { store: &mut self.store, instance: &doors.0, doors: &doors.1 };
        OnStack::new(access.put(&image), &mut self.parked).await?;
        self.store.set_hostcall_fuel(node_type.limits.call_bytes());
        self.tenant = Some(node_type.settings().tenant.clone());
        for Named { name, model, tokens, kept, .. } in image.branches {
            if let Some(kept) = kept {
                let imported = match node_type.engine(model.as_ref()) {
                    Ok(engine) => engine.import(node_type.settings().tenant.clone(), kept).await,
                    Err(error) => Err(error),
                };
                if !matches!(imported, Ok(true)) {
                    tracing::debug!(branch = name, ?imported, "what was computed for a branch is computed again");
                }
            }
            let (branch, state) = (Branch::new(model, tokens), self.store.data_mut());
            state.budget.hold(branch.n_bytes() + name.len()).map_err(|e| HibernateError::Failed(e.to_string()))?;
            state.snapshots.insert(name, branch);
        }
        Ok(())
    }

    async fn answer(&mut self, node_type: &NodeType, meter: Arc<CpuMeter>, request: GenerateRequest, voice: Voice) -> Ended {
        let _ticking = node_type.pools.ticker.running();
        node_type.slice(&mut self.store, Arc::clone(&meter));
        let asked = asked(&request);
        let deadline = request.deadline;
        self.tenant = Some(request.share.tenant.clone());
        self.store.data_mut().call = Some(Box::new(Call::new(request, voice)));
        let call = OnStack::new(self.instance.call_handle(&mut self.store, &asked), &mut self.parked);
        let returned = meter.run(call, deadline).await;
        let Some(call) = self.store.data_mut().end_call() else {
            return Ended { result: Err(InferenceError::Cancelled), usable: false };
        };
        let (result, usable) = match returned {
            None => (Err(InferenceError::DeadlineExceeded { n_generated: call.usage.output_tokens }), false),
            Some(Err(trap)) => (Err(why(&trap, &node_type.limits)), false),
            Some(Ok(Err(failure))) => (Err(told(failure, call.last_error)), true),
            Some(Ok(Ok(reason))) => {
                let reason = match reason {
                    types::FinishReason::Stop => FinishReason::Stop,
                    types::FinishReason::Length => FinishReason::Length,
                };
                call.voice.finish().await;
                (Ok(Finished { reason, usage: call.usage }), true)
            }
        };
        Ended { result, usable }
    }
}

/// Branches by their names, with what their models computed for them.
async fn named(node_type: &NodeType, branches: &BTreeMap<String, Branch>) -> Result<Vec<Named>, HibernateError> {
    let mut all = Vec::new();
    for (name, branch) in branches {
        let failed = |e: InferenceError| HibernateError::Failed(e.to_string());
        let engine = node_type.engine(branch.model.as_ref()).map_err(failed)?;
        let (tenant, tokens) = (node_type.settings().tenant.clone(), branch.tokens.clone());
        let kept = engine.export(tenant, tokens.clone()).await.map_err(failed)?;
        all.push(Named { name: name.clone(), model: branch.model.clone(), sha256: engine.info().digest.clone(), tokens, kept });
    }
    Ok(all)
}

/// The request as the guest sees it.
fn asked(request: &GenerateRequest) -> types::Request {
    let role = |role| match role {
        Role::System => types::Role::System,
        Role::User => types::Role::User,
        Role::Assistant => types::Role::Assistant,
    };
    let message = |m: &Message| types::Message { role: role(m.role), content: m.content.clone() };
    types::Request {
        id: request.id.to_string(),
        model: request.model.to_string(),
        prompt: match &request.prompt {
            Prompt::Text(text) => types::Prompt::Text(text.clone()),
            Prompt::Chat(messages) => types::Prompt::Chat(messages.iter().map(message).collect()),
        },
        options: nn::to_json(&request.sampling),
    }
}

/// What a guest's own account of its failure means. The cause that the host saw says more than the guest can.
fn told(failure: Failure, cause: Option<InferenceError>) -> InferenceError {
    match (failure, cause) {
        (Failure::InvalidRequest(what), _) => InferenceError::InvalidRequest(shortened(what, FAILURE_BYTES)),
        (Failure::Inference(_), Some(cause)) => cause,
        (Failure::Inference(detail) | Failure::Other(detail), _) => {
            InferenceError::Guest { reason: "GUEST_ERROR", detail: format!("it gave up: {}", shortened(detail, FAILURE_BYTES)) }
        }
    }
}

/// What a trap means.
pub(crate) fn why(trap: &wasmtime::Error, limits: &Limits) -> InferenceError {
    let guest = |Exhausted { reason, detail }| InferenceError::Guest { reason, detail };
    if let Some(exhausted) = trap.downcast_ref::<Exhausted>() {
        guest(exhausted.clone())
    } else if let Some(error) = trap.downcast_ref::<InferenceError>() {
        error.clone()
    } else if let Some(Trap::StackOverflow) = trap.downcast_ref::<Trap>() {
        guest(Exhausted::stack(limits.stack_bytes))
    } else {
        guest(Exhausted { reason: "GUEST_TRAP", detail: trap.root_cause().to_string() })
    }
}

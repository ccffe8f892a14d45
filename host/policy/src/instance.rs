//! One instance of a policy, and a call of it.

use std::sync::Arc;

use llambo_strategy::Fallback;
use wasmtime::{
    Store,
    component::{self, InstancePre},
};

use crate::{
    machine::{Linked, Machine},
    state::{Ended, Nonsense, State, Terms},
};

/// What instances of a policy are made by. `I` says where the functions of an interface are in its module.
pub(crate) struct Blueprint<I> {
    machine: Arc<Machine>,
    terms: Arc<Terms>,
    pre: InstancePre<State>,
    indices: I,
}

/// An instance with the functions of one interface.
pub(crate) struct Instance<G> {
    machine: Arc<Machine>,
    store: Store<State>,
    guest: G,
}

/// What went wrong, for counters and for people.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Fallback,
    pub(crate) detail: String,
}

impl<I> Blueprint<I> {
    /// `find` finds the functions of `interface`, or says why they are others.
    pub(crate) fn new(
        machine: &Arc<Machine>,
        terms: &Arc<Terms>,
        linked: &Linked,
        interface: &str,
        find: impl FnOnce(&InstancePre<State>) -> wasmtime::Result<I>,
    ) -> Result<Self, String> {
        let indices = find(&linked.pre).map_err(|e| format!("its `{interface}` is not the one of this host: {e:#}"))?;
        Ok(Self { machine: Arc::clone(machine), terms: Arc::clone(terms), pre: linked.pre.clone(), indices })
    }

    /// A new instance. `load` takes its functions out.
    pub(crate) fn instance<G>(
        &self,
        load: impl FnOnce(&I, &mut Store<State>, &component::Instance) -> wasmtime::Result<G>,
    ) -> Result<Instance<G>, Failure> {
        let machine = Arc::clone(&self.machine);
        let mut store = machine.store(&self.terms);
        machine.begin_call(&mut store);
        let started = self.pre.instantiate(&mut store).and_then(|instance| load(&self.indices, &mut store, &instance));
        match started {
            Ok(guest) => Ok(Instance { machine, store, guest }),
            Err(error) => {
                let failure = Failure::of(&error);
                let cause = if failure.cause == Fallback::Trap { Fallback::Error } else { failure.cause };
                Err(Failure { cause, detail: format!("it cannot be started: {}", failure.detail) })
            }
        }
    }
}

impl<G> Instance<G> {
    pub(crate) fn state(&mut self) -> &mut State {
        self.store.data_mut()
    }

    /// One call. After an error the instance must not be used again.
    pub(crate) fn call<T>(&mut self, call: impl FnOnce(&G, &mut Store<State>) -> wasmtime::Result<T>) -> Result<T, Failure> {
        self.machine.begin_call(&mut self.store);
        call(&self.guest, &mut self.store).map_err(|error| Failure::of(&error))
    }
}

impl Failure {
    pub(crate) fn new(cause: Fallback, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into() }
    }

    fn of(error: &wasmtime::Error) -> Self {
        if let Some(ended) = error.downcast_ref::<Ended>() {
            return Self::new(ended.fallback(), ended.to_string());
        }
        if let Some(nonsense) = error.downcast_ref::<Nonsense>() {
            return Self::new(Fallback::Nonsense, nonsense.to_string());
        }
        match error.downcast_ref::<wasmtime::Trap>() {
            Some(trap) => Self::new(Fallback::Trap, trap.to_string()),
            None => Self::new(Fallback::Trap, format!("{error:#}")),
        }
    }
}

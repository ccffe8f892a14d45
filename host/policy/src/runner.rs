//! A compiled policy and its instances: those that are free wait for the next call.

use std::{
    marker::PhantomData,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use llambo_strategy::{Fallback, Kind};
use wasmtime::{
    Store,
    component::{self, InstancePre},
};

use crate::{
    installed::Instances,
    instance::{Blueprint, Failure, Instance},
    machine::{Linked, Machine},
    state::{State, Terms},
};

/// Answers questions of a kind by a policy's code.
pub(crate) trait Runner<K: Kind>: Instances + Send + Sync {
    /// What the policy answers, and the scores that it noted; `None`: it leaves the decision to what is built in.
    fn run(&self, ask: &Arc<K::Ask>) -> Result<Ran<K::Answer>, Failure>;
}

/// What a policy answered.
pub(crate) struct Ran<A> {
    pub(crate) answer: Option<A>,
    pub(crate) scores: Vec<(u32, f32)>,
}

/// An interface whose instances are all alike.
pub(crate) trait World: Send + Sync + 'static {
    type Kind: Kind;
    type Indices: Send + Sync;
    type Guest: Send + Sync;
    const INTERFACE: &'static str;

    fn indices(pre: &InstancePre<State>) -> wasmtime::Result<Self::Indices>;

    fn guest(indices: &Self::Indices, store: &mut Store<State>, instance: &component::Instance) -> wasmtime::Result<Self::Guest>;

    /// Makes known to an instance what its calls to the host answer from.
    fn prepare(_ask: &<Self::Kind as Kind>::Ask, _state: &mut State) {}

    fn call(
        guest: &Self::Guest,
        store: &mut Store<State>,
        ask: &<Self::Kind as Kind>::Ask,
    ) -> wasmtime::Result<Option<<Self::Kind as Kind>::Answer>>;
}

/// A policy with as many instances as are called at a time.
pub(crate) struct Pooled<W: World> {
    blueprint: Blueprint<W::Indices>,
    free: Mutex<Vec<Instance<W::Guest>>>,
    /// Instances that are kept while nobody calls them.
    most_free: usize,
    n_instances: AtomicU32,
    largest_bytes: AtomicUsize,
    world: PhantomData<fn() -> W>,
}

impl<W: World> Pooled<W> {
    pub(crate) fn new(machine: &Arc<Machine>, terms: &Arc<Terms>, linked: &Linked) -> Result<Self, String> {
        Ok(Self {
            blueprint: Blueprint::new(machine, terms, linked, W::INTERFACE, W::indices)?,
            free: Mutex::default(),
            most_free: 2 * thread::available_parallelism().map_or(1, usize::from),
            n_instances: AtomicU32::new(0),
            largest_bytes: AtomicUsize::new(0),
            world: PhantomData,
        })
    }

    fn free(&self) -> MutexGuard<'_, Vec<Instance<W::Guest>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn instance(&self) -> Result<Instance<W::Guest>, Failure> {
        let free = self.free().pop();
        match free {
            Some(instance) => Ok(instance),
            None => self.blueprint.instance(W::guest).inspect(|_| {
                self.n_instances.fetch_add(1, Relaxed);
            }),
        }
    }

    fn give_back(&self, mut instance: Instance<W::Guest>) {
        self.largest_bytes.fetch_max(instance.state().memory_bytes, Relaxed);
        let mut free = self.free();
        if free.len() < self.most_free {
            free.push(instance);
        } else {
            drop(free);
            self.n_instances.fetch_sub(1, Relaxed);
        }
    }
}

impl<W: World> Runner<W::Kind> for Pooled<W> {
    fn run(&self, ask: &Arc<<W::Kind as Kind>::Ask>) -> Result<Ran<<W::Kind as Kind>::Answer>, Failure> {
        let mut instance = self.instance()?;
        W::prepare(ask, instance.state());
        let called = instance.call(|guest, store| W::call(guest, store, ask));
        let scores = instance.state().forget();
        match called {
            Ok(answer) => {
                self.give_back(instance);
                Ok(Ran { answer, scores })
            }
            Err(failure) => {
                // what made no sense came from an instance that is whole
                if failure.cause == Fallback::Nonsense {
                    self.give_back(instance);
                } else {
                    self.n_instances.fetch_sub(1, Relaxed);
                }
                Err(failure)
            }
        }
    }
}

impl<W: World> Instances for Pooled<W> {
    fn instances(&self) -> (u32, u64) {
        (self.n_instances.load(Relaxed), self.largest_bytes.load(Relaxed) as u64)
    }
}

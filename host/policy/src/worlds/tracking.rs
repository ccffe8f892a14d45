use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use llambo_strategy::{Balancing, Candidate, ChooseNode, NodeChange};

use super::request;
use crate::{
    bindings::exports::llambo::policy::tracking::{Change, Guest, GuestIndices, OpenNode},
    installed::Instances,
    instance::{Blueprint, Failure, Instance},
    machine::{Linked, Machine},
    runner::{Ran, Runner},
    state::Terms,
};

/// Changes told in one call: at about a microsecond each, an eighth of the usual time limit.
const CHANGES_PER_CALL: usize = 128;

/// `llambo:policy/tracking`: one instance, which is told what happens to nodes.
pub(crate) struct Tracker {
    blueprint: Blueprint<GuestIndices>,
    instance: Mutex<Option<Told>>,
    largest_bytes: AtomicUsize,
}

/// An instance, and the last change that it was told.
struct Told {
    instance: Instance<Guest>,
    change: Option<u64>,
}

impl Tracker {
    pub(crate) const INTERFACE: &'static str = "llambo:policy/tracking@0.1.0";

    pub(crate) fn new(machine: &Arc<Machine>, terms: &Arc<Terms>, linked: &Linked) -> Result<Self, String> {
        Ok(Self {
            blueprint: Blueprint::new(machine, terms, linked, Self::INTERFACE, GuestIndices::new)?,
            instance: Mutex::default(),
            largest_bytes: AtomicUsize::new(0),
        })
    }

    fn fresh(&self) -> Result<Told, Failure> {
        let instance = self.blueprint.instance(|indices, store, instance| indices.load(store, instance))?;
        Ok(Told { instance, change: None })
    }

    fn ask(&self, told: &mut Told, ask: &ChooseNode) -> Result<Ran<u64>, Failure> {
        let (changes, last, all) = ask.nodes.changes_since(told.change);
        if all && told.change.is_some() {
            // it missed some: only a new one knows nothing that is wrong
            *told = self.fresh()?;
        }
        told.instance.state().show(ask);
        for part in changes.chunks(CHANGES_PER_CALL) {
            let part: Vec<Change> = part.iter().map(change).collect();
            told.instance.call(|guest, store| guest.call_update(store, &part))?;
        }
        told.change = Some(last);
        let facts = request(&ask.request);
        let node = told.instance.call(|guest, store| guest.call_choose(store, &facts, ask.entropy))?;
        let state = told.instance.state();
        let scores = state.forget();
        self.largest_bytes.fetch_max(state.memory_bytes, Relaxed);
        Ok(Ran { answer: node, scores })
    }
}

impl Runner<Balancing> for Tracker {
    fn run(&self, ask: &Arc<ChooseNode>) -> Result<Ran<u64>, Failure> {
        let mut instance = self.instance.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told = match instance.take() {
            Some(told) => told,
            None => self.fresh()?,
        };
        let ran = self.ask(&mut told, ask)?;
        *instance = Some(told);
        Ok(ran)
    }
}

impl Instances for Tracker {
    fn instances(&self) -> (u32, u64) {
        let n = self.instance.lock().map_or(0, |instance| u32::from(instance.is_some()));
        (n, self.largest_bytes.load(Relaxed) as u64)
    }
}

fn change(change: &NodeChange) -> Change {
    match change {
        NodeChange::Open(open) => {
            let Candidate { node, kind, in_flight, capacity, ttft_us, latency_us, failures, .. } = *open;
            Change::Open(OpenNode { node, kind, in_flight, capacity, ttft_us, latency_us, failures })
        }
        NodeChange::Closed(node) => Change::Closed(*node),
    }
}

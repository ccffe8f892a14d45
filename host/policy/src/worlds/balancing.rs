use llambo_strategy::{Balancing, Candidate, ChooseNode};
use wasmtime::{
    Store,
    component::{Instance, InstancePre},
};

use super::request;
use crate::{
    bindings::exports::llambo::policy::balancing::{Candidates, Guest, GuestIndices},
    runner::World,
    state::{Nonsense, State},
};

/// `llambo:policy/balancing`.
pub(crate) struct Balancer;

impl World for Balancer {
    type Kind = Balancing;
    type Indices = GuestIndices;
    type Guest = Guest;
    const INTERFACE: &'static str = "llambo:policy/balancing@0.1.0";

    fn indices(pre: &InstancePre<State>) -> wasmtime::Result<GuestIndices> {
        GuestIndices::new(pre)
    }

    fn guest(indices: &GuestIndices, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Guest> {
        indices.load(store, instance)
    }

    fn prepare(ask: &ChooseNode, state: &mut State) {
        state.show(ask);
    }

    fn call(guest: &Guest, store: &mut Store<State>, ask: &ChooseNode) -> wasmtime::Result<Option<u64>> {
        let place = guest.call_choose(store, &request(&ask.request), &columns(&ask.candidates), ask.entropy)?;
        let Some(place) = place else { return Ok(None) };
        let n = ask.candidates.len();
        match ask.candidates.get(place as usize) {
            Some(chosen) => Ok(Some(chosen.node)),
            None => Err(Nonsense(format!("it chose candidate {place}, and there are {n}")).into()),
        }
    }
}

/// Records of ten fields would take twice as long to hand over as all the rest of a decision.
fn columns(candidates: &[Candidate]) -> Candidates {
    Candidates {
        node: candidates.iter().map(|c| c.node).collect(),
        kind: candidates.iter().map(|c| c.kind).collect(),
        in_flight: candidates.iter().map(|c| c.in_flight).collect(),
        capacity: candidates.iter().map(|c| c.capacity).collect(),
        ttft_us: candidates.iter().map(|c| c.ttft_us).collect(),
        latency_us: candidates.iter().map(|c| c.latency_us).collect(),
        failures: candidates.iter().map(|c| c.failures).collect(),
        cached_bytes: candidates.iter().map(|c| c.cached_bytes).collect(),
    }
}

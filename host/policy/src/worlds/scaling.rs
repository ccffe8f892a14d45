use llambo_strategy::{ScaleChange, ScaleType, Scaling};
use wasmtime::{
    Store,
    component::{Instance, InstancePre},
};

use crate::{
    bindings::exports::llambo::policy::scaling::{Guest, GuestIndices, View},
    runner::World,
    state::{State, shortened},
};

/// `llambo:policy/scaling`.
pub(crate) struct Scaler;

impl World for Scaler {
    type Kind = Scaling;
    type Indices = GuestIndices;
    type Guest = Guest;
    const INTERFACE: &'static str = "llambo:policy/scaling@0.1.0";

    fn indices(pre: &InstancePre<State>) -> wasmtime::Result<GuestIndices> {
        GuestIndices::new(pre)
    }

    fn guest(indices: &GuestIndices, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Guest> {
        indices.load(store, instance)
    }

    fn call(guest: &Guest, store: &mut Store<State>, ask: &ScaleType) -> wasmtime::Result<Option<ScaleChange>> {
        let view = View {
            node_type: ask.node_type.to_string(),
            model: ask.model.to_string(),
            nodes: ask.nodes,
            min_nodes: ask.min_nodes,
            max_nodes: ask.max_nodes,
            in_flight: ask.in_flight,
            capacity: ask.capacity,
            waiting: ask.waiting,
            requests_per_second: ask.requests_per_second,
            since_change_ms: ask.since_change_ms,
            now_ms: ask.now_ms,
        };
        let change = guest.call_scale(store, &view)?;
        // to leave a type as it is, is a decision too
        Ok(Some(change.map_or_else(ScaleChange::none, |change| ScaleChange { by: change.by, reason: shortened(&change.reason) })))
    }
}

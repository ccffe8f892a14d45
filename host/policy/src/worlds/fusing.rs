use llambo_strategy::{Fuse, Fused, Fusing};
use wasmtime::{
    Store,
    component::{Instance, InstancePre},
};

use crate::{
    bindings::exports::llambo::policy::fusing::{self, Answer, Guest, GuestIndices},
    runner::World,
    state::State,
    worlds::request,
};

/// `llambo:policy/fusing`.
pub(crate) struct Fusion;

impl World for Fusion {
    type Kind = Fusing;
    type Indices = GuestIndices;
    type Guest = Guest;
    const INTERFACE: &'static str = "llambo:policy/fusing@0.1.0";

    fn indices(pre: &InstancePre<State>) -> wasmtime::Result<GuestIndices> {
        GuestIndices::new(pre)
    }

    fn guest(indices: &GuestIndices, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Guest> {
        indices.load(store, instance)
    }

    fn call(guest: &Guest, store: &mut Store<State>, ask: &Fuse) -> wasmtime::Result<Option<Option<Fused>>> {
        let answers: Vec<Answer> = ask
            .answers
            .iter()
            .map(|answer| Answer {
                node: answer.node,
                text: answer.text.clone(),
                complete: answer.complete,
                output_tokens: answer.output_tokens,
                latency_us: answer.latency_us,
            })
            .collect();
        let fused = guest.call_fuse(store, &request(&ask.request), &answers, ask.outstanding)?;
        Ok(Some(fused.map(|fused| match fused {
            fusing::Fused::Pick(i) => Fused::Pick(i),
            fusing::Fused::Text(text) => Fused::Text(text),
        })))
    }
}

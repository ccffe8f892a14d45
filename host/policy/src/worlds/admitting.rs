use llambo_strategy::{Admitting, LetIn, Verdict};
use wasmtime::{
    Store,
    component::{Instance, InstancePre},
};

use crate::{
    bindings::exports::llambo::policy::admitting::{self, Guest, GuestIndices},
    runner::World,
    state::{State, shortened},
    worlds::request,
};

/// `llambo:policy/admitting`.
pub(crate) struct Admission;

impl World for Admission {
    type Kind = Admitting;
    type Indices = GuestIndices;
    type Guest = Guest;
    const INTERFACE: &'static str = "llambo:policy/admitting@0.1.0";

    fn indices(pre: &InstancePre<State>) -> wasmtime::Result<GuestIndices> {
        GuestIndices::new(pre)
    }

    fn guest(indices: &GuestIndices, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Guest> {
        indices.load(store, instance)
    }

    fn call(guest: &Guest, store: &mut Store<State>, ask: &LetIn) -> wasmtime::Result<Option<Verdict>> {
        let load = admitting::Load {
            in_flight: ask.load.in_flight,
            max_in_flight: ask.load.max_in_flight,
            waiting: ask.load.waiting,
            max_waiting: ask.load.max_waiting,
            free_nodes: ask.load.free_nodes,
            retry_after_ms: ask.load.retry_after_ms,
        };
        let usage = admitting::Usage {
            in_flight: ask.usage.in_flight,
            waiting: ask.usage.waiting,
            requests_last_minute: ask.usage.requests_last_minute,
            tokens_last_minute: ask.usage.tokens_last_minute,
        };
        Ok(Some(match guest.call_decide(store, &request(&ask.request), load, usage)? {
            admitting::Verdict::Admit => Verdict::Admit,
            admitting::Verdict::Queue => Verdict::Queue,
            admitting::Verdict::Reject(rejection) => {
                Verdict::Reject { retry_after_ms: rejection.retry_after_ms, reason: shortened(&rejection.reason) }
            }
        }))
    }
}

use llambo_strategy::{Classify, Classifying};
use wasmtime::{
    Store,
    component::{Instance, InstancePre},
};

use crate::{
    bindings::exports::llambo::policy::classifying::{Features, Guest, GuestIndices},
    runner::World,
    state::State,
    worlds::request,
};

/// `llambo:policy/classifying`.
pub(crate) struct Classifier;

impl World for Classifier {
    type Kind = Classifying;
    type Indices = GuestIndices;
    type Guest = Guest;
    const INTERFACE: &'static str = "llambo:policy/classifying@0.1.0";

    fn indices(pre: &InstancePre<State>) -> wasmtime::Result<GuestIndices> {
        GuestIndices::new(pre)
    }

    fn guest(indices: &GuestIndices, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Guest> {
        indices.load(store, instance)
    }

    fn call(guest: &Guest, store: &mut Store<State>, ask: &Classify) -> wasmtime::Result<Option<u8>> {
        let features = Features {
            words: ask.features.words,
            lines: ask.features.lines,
            code_lines: ask.features.code_lines,
            question_marks: ask.features.question_marks,
            digits: ask.features.digits,
            longest_word: ask.features.longest_word,
        };
        guest.call_classify(store, &request(&ask.request), features).map(Some)
    }
}

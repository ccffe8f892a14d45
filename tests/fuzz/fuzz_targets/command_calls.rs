//! Any calls with any pointers and lengths into the host's functions, from a command.
#![no_main]

use std::{cell::RefCell, sync::{Arc, LazyLock}};

use libfuzzer_sys::fuzz_target;
use llambo_isolate::{Isolate, NodeType};

const MODULE: &[u8] = include_bytes!("../../../guest/prebuilt/calls.wasm");
/// Guests that end badly rest after a while, and a rest is not what is tested: then the next isolate takes over.
const PROGRAMS: usize = 2;

static TYPE: LazyLock<Arc<NodeType>> = LazyLock::new(|| llambo_fuzz::caller(MODULE, "calls"));

thread_local! {
    static ISOLATE: RefCell<Option<(Arc<Isolate>, usize)>> = const { RefCell::new(None) };
}

fuzz_target!(|program: &[u8]| {
    ISOLATE.with_borrow_mut(|kept| {
        let (isolate, n) = kept.take().filter(|(_, n)| *n < PROGRAMS).unwrap_or_else(|| {
            (llambo_fuzz::spawn(&TYPE).expect("there is room for one"), 0)
        });
        let bad = llambo_fuzz::ask(&isolate, llambo_fuzz::hex(program)).is_err();
        *kept = Some((isolate, n + usize::from(bad)));
    });
});

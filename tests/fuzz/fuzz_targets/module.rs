//! A module that somebody publishes: refused, or run within its limits. The first byte chooses whether it can be hibernated.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llambo_isolate::Module;

fuzz_target!(|input: &[u8]| {
    let Some((choice, wasm)) = input.split_first() else { return };
    let Ok(node_type) = llambo_fuzz::node_type(Module::from_bytes("fuzzed", wasm), choice & 1 == 1) else { return };
    if let Some(isolate) = llambo_fuzz::spawn(&node_type) {
        let _ = llambo_fuzz::ask(&isolate, "Hello".into());
    }
});

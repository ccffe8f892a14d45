//! Any calls with any pointers and lengths into the host's functions, from a component.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llambo_fuzz::Caller;

const MODULE: &[u8] = include_bytes!("../../../guest/prebuilt/caller.wasm");

thread_local! {
    static CALLER: Caller = Caller::new(MODULE);
}

fuzz_target!(|program: &[u8]| CALLER.with(|caller| caller.run(program)));

//! Options as JSON, of both kinds of guests.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| llambo_isolate::fuzzing::options(json));

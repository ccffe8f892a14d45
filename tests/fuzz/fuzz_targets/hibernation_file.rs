//! A file of a hibernated isolate, with a digest that is right: what is in it is read or refused, and what was read is written as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| llambo_isolate::fuzzing::hibernation_file(body));

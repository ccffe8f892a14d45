//! Calls any function of `wasi_ephemeral_nn` with any arguments, as its first argument behind the model's name says.
#![allow(unsafe_code, reason = "this is what it is for; the sandbox is what is tested")]

#[path = "../../../caller/src/program.rs"]
mod program;

use crate::program::{Function, run};

#[link(wasm_import_module = "wasi_ephemeral_nn")]
unsafe extern "C" {
    fn load(_: u32, _: u32, _: u32, _: u32, _: u32) -> u32;
    fn load_by_name(_: u32, _: u32, _: u32) -> u32;
    fn load_by_name_with_config(_: u32, _: u32, _: u32, _: u32, _: u32) -> u32;
    fn init_execution_context(_: u32, _: u32) -> u32;
    fn set_input(_: u32, _: u32, _: u32) -> u32;
    fn compute(_: u32) -> u32;
    fn compute_single(_: u32) -> u32;
    fn fini_single(_: u32) -> u32;
    fn get_output(_: u32, _: u32, _: u32, _: u32, _: u32) -> u32;
    fn get_output_single(_: u32, _: u32, _: u32, _: u32, _: u32) -> u32;
    fn unload(_: u32) -> u32;
    fn finalize_execution_context(_: u32) -> u32;
}

/// A function with its arguments spread out.
macro_rules! functions {
    ($($name:ident($($at:literal),*)),* $(,)?) => {
        &[$(Function {
            n_arguments: [$($at),*].len(),
            // SAFETY: the host looks at every argument, which is what this program shows.
            call: |given| unsafe { $name($(given[$at]),*) },
        }),*]
    };
}

const FUNCTIONS: &[Function] = functions![
    load(0, 1, 2, 3, 4),
    load_by_name(0, 1, 2),
    load_by_name_with_config(0, 1, 2, 3, 4),
    init_execution_context(0, 1),
    set_input(0, 1, 2),
    compute(0),
    compute_single(0),
    fini_single(0),
    get_output(0, 1, 2, 3, 4),
    get_output_single(0, 1, 2, 3, 4),
    unload(0),
    finalize_execution_context(0),
];

fn main() {
    let program = std::env::args().nth(2).unwrap_or_default();
    println!("{} calls", run(&program, FUNCTIONS));
}

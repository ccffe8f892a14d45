//! Calls any function that the host has for components with any arguments, as the prompt says (`program`). What goes wrong is for the host to notice: this
//! guest may trap, and everything around it must live on.
#![allow(unsafe_code, reason = "this is what it is for; the sandbox is what is tested")]

mod program;

use llambo_guest::{Engine, FinishReason, Outcome, Prompt, Request, export};

use crate::program::{Function, run};

#[link(wasm_import_module = "llambo:guest/output@0.1.0")]
unsafe extern "C" {
    #[link_name = "emit"]
    fn emit(_: u32, _: u32) -> u32;
}

#[link(wasm_import_module = "wasi:nn/tensor@0.2.0-rc-2024-10-28")]
unsafe extern "C" {
    #[link_name = "[constructor]tensor"]
    fn new_tensor(_: u32, _: u32, _: u32, _: u32, _: u32) -> u32;
    #[link_name = "[method]tensor.dimensions"]
    fn tensor_dimensions(_: u32, _: u32);
    #[link_name = "[method]tensor.ty"]
    fn tensor_ty(_: u32) -> u32;
    #[link_name = "[method]tensor.data"]
    fn tensor_data(_: u32, _: u32);
    #[link_name = "[resource-drop]tensor"]
    fn drop_tensor(_: u32);
}

#[link(wasm_import_module = "wasi:nn/graph@0.2.0-rc-2024-10-28")]
unsafe extern "C" {
    #[link_name = "load"]
    fn load(_: u32, _: u32, _: u32, _: u32, _: u32);
    #[link_name = "load-by-name"]
    fn load_by_name(_: u32, _: u32, _: u32);
    #[link_name = "[method]graph.init-execution-context"]
    fn graph_init_execution_context(_: u32, _: u32);
    #[link_name = "[resource-drop]graph"]
    fn drop_graph(_: u32);
}

#[link(wasm_import_module = "wasi:nn/inference@0.2.0-rc-2024-10-28")]
unsafe extern "C" {
    #[link_name = "[method]graph-execution-context.compute"]
    fn graph_execution_context_compute(_: u32, _: u32, _: u32, _: u32);
    #[link_name = "[resource-drop]graph-execution-context"]
    fn drop_graph_execution_context(_: u32);
}

#[link(wasm_import_module = "wasi:nn/errors@0.2.0-rc-2024-10-28")]
unsafe extern "C" {
    #[link_name = "[method]error.code"]
    fn error_code(_: u32) -> u32;
    #[link_name = "[method]error.data"]
    fn error_data(_: u32, _: u32);
    #[link_name = "[resource-drop]error"]
    fn drop_error(_: u32);
}

#[link(wasm_import_module = "llambo:engine/branches@0.1.0")]
unsafe extern "C" {
    #[link_name = "[static]branch.open"]
    fn branch_open(_: u32, _: u32, _: u32, _: u32, _: u32, _: u32);
    #[link_name = "[method]branch.fork"]
    fn branch_fork(_: u32) -> u32;
    #[link_name = "[method]branch.length"]
    fn branch_length(_: u32) -> u32;
    #[link_name = "[method]branch.tokens"]
    fn branch_tokens(_: u32, _: u32, _: u32, _: u32);
    #[link_name = "[method]branch.bytes"]
    fn branch_bytes(_: u32, _: u32, _: u32);
    #[link_name = "[method]branch.append"]
    fn branch_append(_: u32, _: u32, _: u32, _: u32);
    #[link_name = "[method]branch.append-tokens"]
    fn branch_append_tokens(_: u32, _: u32, _: u32, _: u32);
    #[link_name = "[method]branch.truncate"]
    fn branch_truncate(_: u32, _: u32, _: u32);
    #[link_name = "[method]branch.generate"]
    fn branch_generate(_: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32, _: u32);
    #[link_name = "[method]branch.next"]
    fn branch_next(_: u32, _: u32);
    #[link_name = "[method]branch.distribution"]
    fn branch_distribution(_: u32, _: u32, _: u32);
    #[link_name = "[method]branch.score"]
    fn branch_score(_: u32, _: u32, _: u32, _: u32);
    #[link_name = "[method]branch.save"]
    fn branch_save(_: u32, _: u32, _: u32, _: u32);
    #[link_name = "[resource-drop]branch"]
    fn drop_branch(_: u32);
    #[link_name = "restore"]
    fn restore(_: u32, _: u32, _: u32);
    #[link_name = "forget"]
    fn forget(_: u32, _: u32) -> u32;
    #[link_name = "snapshots"]
    fn snapshots(_: u32);
}

/// A function with its arguments spread out.
macro_rules! functions {
    ($($name:ident($($at:literal),*) $(-> $returns:ident)?),* $(,)?) => {
        &[$(Function {
            n_arguments: [$($at),*].len(),
            // SAFETY: the host looks at every argument, which is what this guest shows.
            call: |given| unsafe { functions!(@value $($returns)?, $name($(given[$at]),*)) },
        }),*]
    };
    (@value u32, $call:expr) => { $call };
    (@value , $call:expr) => {{
        $call;
        0
    }};
}

const FUNCTIONS: &[Function] = functions![
    emit(0, 1) -> u32,
    new_tensor(0, 1, 2, 3, 4) -> u32,
    tensor_dimensions(0, 1),
    tensor_ty(0) -> u32,
    tensor_data(0, 1),
    drop_tensor(0),
    load(0, 1, 2, 3, 4),
    load_by_name(0, 1, 2),
    graph_init_execution_context(0, 1),
    drop_graph(0),
    graph_execution_context_compute(0, 1, 2, 3),
    drop_graph_execution_context(0),
    error_code(0) -> u32,
    error_data(0, 1),
    drop_error(0),
    branch_open(0, 1, 2, 3, 4, 5),
    branch_fork(0) -> u32,
    branch_length(0) -> u32,
    branch_tokens(0, 1, 2, 3),
    branch_bytes(0, 1, 2),
    branch_append(0, 1, 2, 3),
    branch_append_tokens(0, 1, 2, 3),
    branch_truncate(0, 1, 2),
    branch_generate(0, 1, 2, 3, 4, 5, 6, 7),
    branch_next(0, 1),
    branch_distribution(0, 1, 2),
    branch_score(0, 1, 2, 3),
    branch_save(0, 1, 2, 3),
    drop_branch(0),
    restore(0, 1, 2),
    forget(0, 1) -> u32,
    snapshots(0),
];

struct Caller;

impl Engine for Caller {
    fn handle(request: Request) -> Outcome {
        if let Prompt::Text(program) = &request.prompt {
            run(program, FUNCTIONS);
        }
        Ok(FinishReason::Stop)
    }
}

export!(Caller);

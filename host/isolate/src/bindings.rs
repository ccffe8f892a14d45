//! The world `llambo:guest/engine` as wasmtime sees it. Generated from `wit/`; the documentation is there.

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "engine",
    with: {
        "wasi:nn/graph.graph": crate::nn::Graph,
        "wasi:nn/tensor.tensor": crate::nn::Tensor,
        "wasi:nn/inference.graph-execution-context": crate::nn::ExecutionContext,
        "wasi:nn/errors.error": crate::nn::NnError,
        "llambo:engine/branches.branch": crate::branch::Branch,
    },
    imports: {
        "llambo:guest/output.emit": async | trappable,
        "wasi:nn/inference.[method]graph-execution-context.compute": async | trappable,
        "llambo:engine/branches.[static]branch.open": async | trappable,
        "llambo:engine/branches.[method]branch.append": async | trappable,
        "llambo:engine/branches.[method]branch.generate": async | trappable,
        "llambo:engine/branches.[method]branch.next": async | trappable,
        "llambo:engine/branches.[method]branch.distribution": async | trappable,
        "llambo:engine/branches.[method]branch.score": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    require_store_data_send: true,
});

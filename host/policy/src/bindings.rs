//! The worlds of `wit/policy.wit` as wasmtime sees them. The documentation is there.

wasmtime::component::bindgen!({
    path: "../../wit",
    // every interface once, so that they share their types; a policy exports one of them
    inline: "
        package llambo:policies;
        world every {
            import llambo:policy/host@0.1.0;
            export llambo:policy/balancing@0.1.0;
            export llambo:policy/tracking@0.1.0;
            export llambo:policy/admitting@0.1.0;
            export llambo:policy/classifying@0.1.0;
            export llambo:policy/scaling@0.1.0;
            export llambo:policy/fusing@0.1.0;
            export llambo:policy/hooking@0.1.0;
        }
    ",
    world: "llambo:policies/every",
    imports: { default: trappable },
    require_store_data_send: true,
});

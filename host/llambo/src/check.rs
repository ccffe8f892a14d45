//! `llambo check`: what a configuration needs, line by line, and what stops it.

use std::{
    io::{self, Write},
    net::TcpListener,
};

use llambo_config::Config;
use llambo_hardware::Machine;
use llambo_inference::Models;
use llambo_isolate::{Layout, Sandbox, TypeSettings};
use llambo_llama::Device;

use crate::{
    Failure,
    plan::{Plan, Problem, Size, module, type_settings},
    security,
};

pub(crate) fn run(config: &Config) -> Result<(), Failure> {
    let mut plan = Plan::of(config);
    for (key, address) in [("network.grpc", config.network.grpc), ("network.http", config.network.http)] {
        if let Err(error) = TcpListener::bind(address) {
            plan.problems.push(Problem {
                what: format!("{key}: {address} cannot be listened on: {error}"),
                remedy: "stop what has it, or set another address".into(),
            });
        }
    }
    plan.problems.extend(security::problems(config));
    if let Ok(sandbox) = Sandbox::new(Models::default(), None) {
        for node_type in &config.types {
            let settings = TypeSettings { expected: 0, ..type_settings(config, node_type) };
            // what cannot even be read is a problem of the plan already
            let Ok(module) = module(node_type) else { continue };
            if let Err(error) = sandbox.node_type(settings, module) {
                let what = format!("types.{}: {error}", node_type.name);
                plan.problems.push(Problem { what, remedy: "build it for the world `llambo:guest/engine`".into() });
            }
        }
    }
    let report = report(&plan);
    // a reader that went away wants no more of it
    let _ = io::stdout().write_all(report.as_bytes());
    match plan.problems.len() {
        0 => Ok(()),
        1 => Err(Failure::Machine("1 problem stops this configuration".into())),
        n => Err(Failure::Machine(format!("{n} problems stop this configuration"))),
    }
}

fn report(plan: &Plan) -> String {
    let mut lines = Vec::new();
    for model in &plan.models {
        let on_gpus =
            if model.gpu_bytes > 0 { format!("; about {} of it on GPUs", Size(model.gpu_bytes)) } else { String::new() };
        lines.push(format!(
            "model    {}: weights {}, KV cache {} ({} sequences of {} tokens), up to {} of kept beginnings{on_gpus}",
            model.name,
            Size(model.weight_bytes),
            Size(model.kv_bytes),
            model.n_sequences,
            model.n_context,
            Size(model.kept_bytes)
        ));
    }
    let need = &plan.isolates;
    let layout = match need.layout {
        Layout::Slab => "one memory mapping for all memories and one for all stacks of a size".to_owned(),
        Layout::Mapped => format!("{} memory mappings, since this system cannot guard stacks within one", need.n_maps),
    };
    lines.push(format!(
        "isolates {}: about {} while idle, {} of addresses; {layout}",
        need.n_isolates,
        Size(need.idle_bytes),
        Size(need.address_bytes),
    ));
    lines.push(format!("machine  {}", machine(&plan.machine)));
    let modules =
        llambo_llama::modules_folder().map_or_else(String::new, |folder| format!(", of the modules in {}", folder.display()));
    lines.push(format!("llama    processor code: {}{modules}; {}", llambo_llama::cpu_variant(), llambo_llama::system_info()));
    for device in &plan.devices {
        let kind = if device.is_gpu { "GPU" } else { "processor" };
        let Device { name, description, free_bytes, total_bytes, .. } = device;
        let memory = format!("{} of {} free", Size(*free_bytes), Size(*total_bytes));
        lines.push(format!("device   {name}: {kind}, {description}, {memory}"));
    }
    lines.extend(plan.warnings.iter().map(|warning| format!("warning  {warning}")));
    lines.extend(plan.problems.iter().map(|problem| format!("problem  {problem}")));
    if plan.problems.is_empty() {
        lines.push("ok       this configuration can be served here".into());
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Cores and memory, and what keeps the host from having all of them.
fn machine(machine: &Machine) -> String {
    let Machine { processor, memory, .. } = machine;
    let cores = if processor.usable < processor.total {
        format!("{} of {} cores", processor.usable, processor.total)
    } else {
        format!("{} cores", processor.usable)
    };
    if memory.total_bytes == 0 {
        return format!("{cores}, memory unknown");
    }
    let limit = memory.limit_bytes.map_or_else(String::new, |limit| format!(" (a limit allows {} in all)", Size(limit)));
    format!("{cores}, {} of {} of memory available{limit}", Size(memory.available_bytes), Size(memory.total_bytes))
}

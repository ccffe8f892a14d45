use std::{io, io::Write, time::SystemTime};

use llambo_client::{Module as Published, NewModule};
use serde_json::{Value, json};

use super::{Session, wasm};
use crate::{
    args::module::{Load, Module},
    exit::{Failure, OK},
    output::{
        self,
        Align::{Left, Right, State},
    },
};

pub(crate) async fn module(session: &Session, args: Module) -> Result<u8, Failure> {
    match args {
        Module::Load(args) => load(session, args).await,
        Module::List => list(session).await,
        Module::Unload { name } => unload(session, &name).await,
        Module::Rollback { name, to } => roll_back(session, &name, to).await,
    }
}

async fn load(session: &Session, args: Load) -> Result<u8, Failure> {
    let Load { file, name, node_type, count, prompt, no_trial } = args;
    let mut module =
        NewModule::new(&name, wasm::read(&file)?).node_type(node_type.as_deref().unwrap_or_default()).count(count.unwrap_or(0));
    module = if no_trial { module.without_trial() } else { module.trial_prompt(&prompt) };
    let done = session.client.load_module(module).await?;
    let module = done.module.unwrap_or_default();
    let mut out = io::stdout().lock();
    if session.json {
        let trial = done.trial.map(|trial| {
            json!({
                "text": trial.text,
                "gave_up": (!trial.gave_up.is_empty()).then_some(trial.gave_up),
                "output_tokens": trial.output_tokens,
                "total_ms": trial.total_ms,
                "memory_bytes": trial.memory_bytes,
            })
        });
        let value = json!({
            "module": module_json(&module),
            "replaced_version": (done.replaced_version > 0).then_some(done.replaced_version),
            "trial": trial,
            "compile_ms": done.compile_ms,
            "spawn_p50_us": done.spawn_p50_us,
        });
        output::json(&mut out, &value)?;
        return Ok(OK);
    }
    let place = match done.replaced_version {
        0 => String::new(),
        version => format!(" in the place of version {version}"),
    };
    let Published { name, version, kind, nodes, r#type: limits, model, size_bytes, .. } = &module;
    let size = output::bytes(*size_bytes);
    writeln!(
        out,
        "{name} version {version} serves{place}: a {kind} of {size}, {nodes} isolates with the limits of `{limits}`, asking {model}"
    )?;
    writeln!(out, "compiled in {:.0} ms, spawned in {:.1} µs each (median)", done.compile_ms, done.spawn_p50_us)?;
    if let Some(trial) = done.trial {
        let tokens = trial.output_tokens;
        writeln!(out, "trial: {prompt:?} gave {:?} ({tokens} tokens, {:.0} ms)", trial.text, trial.total_ms)?;
        if !trial.gave_up.is_empty() {
            writeln!(out, "trial: it gave up: {}", output::for_terminal(&trial.gave_up))?;
        }
    }
    Ok(OK)
}

async fn list(session: &Session) -> Result<u8, Failure> {
    let modules = session.client.modules().await?;
    let mut out = io::stdout().lock();
    if session.json {
        output::json(&mut out, &modules.iter().map(module_json).collect())?;
        return Ok(OK);
    }
    let columns = [
        ("NAME", Left),
        ("VERSION", Right),
        ("STATE", State),
        ("KIND", Left),
        ("TYPE", Left),
        ("MODEL", Left),
        ("NODES", Right),
        ("SIZE", Right),
        ("SHA256", Left),
        ("LOADED", Right),
    ];
    let rows: Vec<_> = modules
        .into_iter()
        .map(|m| {
            [
                m.name,
                m.version.to_string(),
                m.state,
                m.kind,
                m.r#type,
                m.model,
                m.nodes.to_string(),
                output::bytes(m.size_bytes),
                m.sha256.chars().take(12).collect(),
                format!("{} ago", output::age(seconds_since(m.loaded_at))),
            ]
        })
        .collect();
    output::table(&mut out, columns, &rows)?;
    Ok(OK)
}

async fn unload(session: &Session, name: &str) -> Result<u8, Failure> {
    let done = session.client.unload_module(name).await?;
    let mut out = io::stdout().lock();
    if session.json {
        output::json(&mut out, &json!({ "name": name, "draining": done.draining }))?;
    } else {
        writeln!(out, "{name} is out of service; {} isolates go as soon as they are idle", done.draining)?;
    }
    Ok(OK)
}

async fn roll_back(session: &Session, name: &str, to: Option<u32>) -> Result<u8, Failure> {
    let done = session.client.roll_back_module(name, to).await?;
    let module = done.module.unwrap_or_default();
    let mut out = io::stdout().lock();
    if session.json {
        output::json(&mut out, &json!({ "module": module_json(&module), "replaced_version": done.replaced_version }))?;
    } else {
        let Published { name, version, nodes, .. } = module;
        writeln!(out, "{name} version {version} serves in the place of version {}: {nodes} isolates", done.replaced_version)?;
    }
    Ok(OK)
}

pub(super) fn seconds_since(unix_seconds: u64) -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    now.saturating_sub(unix_seconds) as f64
}

fn module_json(m: &Published) -> Value {
    json!({
        "name": m.name,
        "version": m.version,
        "state": m.state,
        "kind": m.kind,
        "type": m.r#type,
        "model": m.model,
        "size_bytes": m.size_bytes,
        "sha256": m.sha256,
        "nodes": m.nodes,
        "loaded_at": m.loaded_at,
    })
}

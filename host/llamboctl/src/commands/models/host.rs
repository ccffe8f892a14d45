//! Models of a host: into its memory and out of it.

use std::io::{self, Write};

use llambo_client::LoadModel;
use serde_json::json;

use crate::{
    args::models::Load,
    commands::{Session, listings::model_json},
    exit::{Failure, OK},
    output,
};

pub(crate) async fn load(session: &Session, args: Load) -> Result<u8, Failure> {
    let Load { name, node_type, count, context, sequences, pin } = args;
    let wanted = LoadModel {
        node_type: node_type.unwrap_or_default(),
        count: count.unwrap_or(0),
        context: context.unwrap_or(0),
        sequences: sequences.unwrap_or(0),
        pin,
        ..LoadModel::new(&name)
    };
    let done = session.client.load_model(wanted).await?;
    let mut out = io::stdout().lock();
    if session.json {
        let value = json!({
            "model": done.model.as_ref().map(model_json),
            "was_loaded": done.was_loaded,
            "load_ms": done.load_ms,
            "unloaded": done.unloaded,
        });
        output::json(&mut out, &value)?;
        return Ok(OK);
    }
    if done.was_loaded {
        writeln!(out, "{name} was loaded already")?;
    } else {
        let model = done.model.unwrap_or_default();
        let memory = output::bytes(model.memory_bytes);
        writeln!(
            out,
            "{name} is loaded: {memory}, {} sequences of {} tokens, {}",
            model.n_sequences,
            model.n_context,
            output::nanos(done.load_ms * 1e6)
        )?;
    }
    if !done.unloaded.is_empty() {
        writeln!(out, "{} made room for it", done.unloaded.join(", "))?;
    }
    Ok(OK)
}

pub(crate) async fn unload(session: &Session, name: &str, retire: bool) -> Result<u8, Failure> {
    let done = session.client.unload_model(name, retire).await?;
    let mut out = io::stdout().lock();
    if session.json {
        let value = json!({ "name": name, "freed_bytes": done.freed_bytes, "draining": done.draining });
        output::json(&mut out, &value)?;
        return Ok(OK);
    }
    let freed = output::bytes(done.freed_bytes);
    match (retire, done.freed_bytes) {
        (true, _) => writeln!(out, "{name} is out of service: {} isolates went, {freed} are free", done.draining)?,
        (false, 0) => writeln!(out, "{name} was not loaded")?,
        (false, _) => writeln!(out, "{name} is unloaded, {freed} are free; who asks for it has it loaded again")?,
    }
    Ok(OK)
}

pub(crate) async fn pin(session: &Session, name: &str, pinned: bool) -> Result<u8, Failure> {
    session.client.pin_model(name, pinned).await?;
    let mut out = io::stdout().lock();
    if session.json {
        output::json(&mut out, &json!({ "name": name, "pinned": pinned }))?;
    } else if pinned {
        writeln!(out, "{name} stays in memory")?;
    } else {
        writeln!(out, "{name} goes when room is needed")?;
    }
    Ok(OK)
}

use std::io;

use llambo_client::{Model, NodeFilter};
use serde_json::{Value, json};

use super::Session;
use crate::{
    args::NodeList,
    exit::{Failure, OK},
    output::{
        self,
        Align::{Left, Right, State},
    },
};

pub(crate) async fn models(session: &Session) -> Result<u8, Failure> {
    let models = session.client.models().await?;
    let mut out = io::stdout().lock();
    if session.json {
        output::json(&mut out, &models.iter().map(model_json).collect())?;
        return Ok(OK);
    }
    let columns = [
        ("NAME", Left),
        ("ARCHITECTURE", Left),
        ("PARAMETERS", Right),
        ("SIZE", Right),
        ("CONTEXT", Right),
        ("SEQUENCES", Right),
        ("RUNNING", Right),
        ("WAITING", Right),
        ("STATE", Left),
        ("MEMORY", Right),
        ("PARENT", Left),
    ];
    let rows: Vec<_> = models
        .into_iter()
        .map(|m| {
            [
                m.name,
                m.architecture,
                output::count(m.n_params),
                output::bytes(m.size_bytes),
                m.n_context.to_string(),
                m.n_sequences.to_string(),
                m.n_running.to_string(),
                m.n_waiting.to_string(),
                if m.pinned { format!("{}, pinned", m.state) } else { m.state },
                if m.memory_bytes > 0 { output::bytes(m.memory_bytes) } else { "-".into() },
                m.parent,
            ]
        })
        .collect();
    output::table(&mut out, columns, &rows)?;
    Ok(OK)
}

pub(crate) fn model_json(m: &Model) -> Value {
    json!({
        "name": m.name,
        "architecture": m.architecture,
        "n_params": m.n_params,
        "size_bytes": m.size_bytes,
        "n_vocab": m.n_vocab,
        "n_embd": m.n_embd,
        "n_context": m.n_context,
        "n_sequences": m.n_sequences,
        "sha256": m.sha256,
        "n_running": m.n_running,
        "n_waiting": m.n_waiting,
        "state": m.state,
        "pinned": m.pinned,
        "memory_bytes": m.memory_bytes,
        "parent": (!m.parent.is_empty()).then_some(&m.parent),
    })
}

pub(crate) async fn nodes(session: &Session, args: NodeList) -> Result<u8, Failure> {
    let (node_type, state, limit) = (args.node_type.unwrap_or_default(), args.state.unwrap_or_default(), args.limit);
    let nodes = session.client.nodes(&NodeFilter { node_type, state, limit }).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if session.json {
        let nodes: Value = nodes
            .iter()
            .map(|n| {
                json!({
                    "id": n.id,
                    "type": n.r#type,
                    "model": n.model,
                    "state": n.state,
                    "in_flight": n.in_flight,
                    "capacity": n.capacity,
                    "served": n.served,
                    "memory_bytes": n.memory_bytes,
                    "weight": n.weight,
                    "replaced": n.replaced,
                    "ttft_us": n.ttft_us,
                    "latency_us": n.latency_us,
                    "failures": n.failures,
                })
            })
            .collect();
        output::json(&mut out, &nodes)?;
    } else {
        let columns = [
            ("ID", Left),
            ("TYPE", Left),
            ("MODEL", Left),
            ("STATE", State),
            ("IN FLIGHT", Right),
            ("SERVED", Right),
            ("TTFT", Right),
            ("MEMORY", Right),
            ("REPLACED", Right),
        ];
        let rows: Vec<_> = nodes
            .into_iter()
            .map(|n| {
                [
                    n.id,
                    n.r#type,
                    n.model,
                    n.state,
                    format!("{}/{}", n.in_flight, n.capacity),
                    n.served.to_string(),
                    if n.ttft_us > 0.0 { output::nanos(n.ttft_us * 1e3) } else { "-".to_owned() },
                    output::bytes(n.memory_bytes),
                    n.replaced.to_string(),
                ]
            })
            .collect();
        output::table(&mut out, columns, &rows)?;
    }
    io::Write::flush(&mut out)?;
    Ok(OK)
}

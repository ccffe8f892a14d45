use std::{io, io::Write};

use llambo_client::{Refusal, WakeResponse};
use serde_json::{Value, json};

use super::Session;
use crate::{
    args::{Hibernate, Wake},
    exit::{Failure, NO, OK},
    output,
};

pub(crate) async fn hibernate(session: &Session, args: Hibernate) -> Result<u8, Failure> {
    let done = session.client.hibernate(args.nodes, args.node_type.as_deref().unwrap_or_default()).await?;
    let mut out = io::stdout().lock();
    if session.json {
        let refused = refusals(&done.refused);
        let value =
            json!({ "hibernated": done.hibernated, "bytes": done.bytes, "refused": refused, "n_refused": done.n_refused });
        output::json(&mut out, &value)?;
    } else {
        writeln!(out, "{} hibernated, {} written", done.hibernated, output::bytes(done.bytes))?;
        told(&mut out, &done.refused, done.n_refused)?;
    }
    Ok(if done.n_refused == 0 { OK } else { NO })
}

pub(crate) async fn wake(session: &Session, args: Wake) -> Result<u8, Failure> {
    let client = &session.client;
    let done = if args.adopt {
        client.adopt().await?
    } else {
        client.wake(args.nodes, args.node_type.as_deref().unwrap_or_default()).await?
    };
    let WakeResponse { woken, bytes, adopted, n_adopted, refused, n_refused } = &done;
    let mut out = io::stdout().lock();
    if session.json {
        let refused = refusals(refused);
        let value = json!({
            "woken": woken, "bytes": bytes, "adopted": adopted, "n_adopted": n_adopted, "refused": refused, "n_refused": n_refused,
        });
        output::json(&mut out, &value)?;
    } else {
        if args.adopt {
            writeln!(
                out,
                "{n_adopted} taken in, hibernated: {}",
                if adopted.is_empty() { "-".to_owned() } else { adopted.join(", ") }
            )?;
        } else {
            writeln!(out, "{woken} awake, {} read", output::bytes(*bytes))?;
        }
        told(&mut out, refused, *n_refused)?;
    }
    Ok(if *n_refused == 0 { OK } else { NO })
}

fn refusals(refused: &[Refusal]) -> Value {
    refused.iter().map(|r| json!({ "name": r.name, "reason": r.reason, "message": r.message })).collect()
}

fn told(out: &mut impl Write, refused: &[Refusal], n_refused: u32) -> io::Result<()> {
    for refusal in refused {
        writeln!(out, "refused: {}: {}", output::for_terminal(&refusal.name), output::for_terminal(&refusal.message))?;
    }
    let untold = (n_refused as usize).saturating_sub(refused.len());
    if untold > 0 { writeln!(out, "and {untold} more") } else { Ok(()) }
}

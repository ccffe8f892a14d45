use std::{
    io::{self, Write},
    time::{Duration, SystemTime},
};

use futures::StreamExt;
use llambo_client::{EventFilter, Happened};
use serde_json::{Value, json};

use super::Session;
use crate::{
    args::{event::Events, values::Since},
    exit::{Failure, OK},
    output,
};

/// One line for each event. With `--follow` it goes on until Ctrl-C, the time that was given, or the end of the host.
pub(crate) async fn events(session: &Session, args: Events) -> Result<u8, Failure> {
    let mut filter = EventFilter::new();
    for kind in args.kind {
        filter = filter.kind(kind);
    }
    for node_type in args.node_type {
        filter = filter.node_type(node_type);
    }
    filter = match args.since {
        Some(Since::Ago(ago)) => filter.since(SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)),
        Some(Since::Number(number)) => filter.after(number),
        None => filter,
    };
    if !args.follow {
        filter = filter.once();
    }
    let mut told = session.client.events(filter).await?;
    // longer than anybody watches
    let end = tokio::time::sleep(args.r#for.unwrap_or(Duration::from_hours(24 * 365)));
    let mut end = std::pin::pin!(end);
    loop {
        let happened = tokio::select! {
            biased;
            interrupt = tokio::signal::ctrl_c() => {
                interrupt.map_err(|e| Failure::io("listen for Ctrl-C", &e))?;
                return Err(Failure::interrupted());
            }
            () = &mut end => return Ok(OK),
            happened = told.next() => happened,
        };
        let Some(happened) = happened else { return Ok(OK) };
        let mut out = io::stdout().lock();
        write(&mut out, &happened?, session.json)?;
        out.flush()?;
    }
}

fn write(out: &mut impl Write, happened: &Happened, json: bool) -> io::Result<()> {
    if json { output::json(out, &to_json(happened)) } else { writeln!(out, "{}", output::for_terminal(&shown(happened))) }
}

fn to_json(happened: &Happened) -> Value {
    match happened {
        Happened::Event(event) => json!({
            "number": event.number,
            "at_ms": event.at_ms,
            "kind": event.kind,
            "subject": event.subject,
            "type": (!event.r#type.is_empty()).then_some(&event.r#type),
            "count": event.count,
            "reason": event.reason,
        }),
        Happened::Missed(n) => json!({ "missed": n }),
    }
}

fn shown(happened: &Happened) -> String {
    match happened {
        Happened::Event(event) => {
            let about_nodes = event.kind.starts_with("nodes.") || event.kind.starts_with("breaker.");
            let count = if about_nodes && event.count != 1 { format!("{} of ", event.count) } else { String::new() };
            let reason = if event.reason.is_empty() { String::new() } else { format!(": {}", event.reason) };
            format!("#{:<5} {}  {:<18} {count}{}{reason}", event.number, time_of_day(event.at_ms), event.kind, event.subject)
        }
        Happened::Missed(n) => format!("{n} events were forgotten before they could be told"),
    }
}

/// In UTC.
fn time_of_day(at_ms: u64) -> String {
    let s = at_ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}Z", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, subject: &str, count: u32) -> Happened {
        let (kind, subject, reason) = (kind.to_owned(), subject.to_owned(), "asked for".to_owned());
        let node_type = if kind == "model.loaded" { "" } else { "tiny" };
        let (number, at_ms) = (7, 1_700_000_000_000);
        Happened::Event(llambo_client::ClusterEvent { number, at_ms, kind, subject, r#type: node_type.into(), count, reason })
    }

    #[test]
    fn a_line_says_when_what_and_why() {
        assert_eq!(shown(&event("nodes.spawned", "tiny", 1000)), "#7     22:13:20Z  nodes.spawned      1000 of tiny: asked for");
        assert_eq!(shown(&event("scale.up", "tiny", 3)), "#7     22:13:20Z  scale.up           tiny: asked for");
        assert_eq!(shown(&Happened::Missed(3)), "3 events were forgotten before they could be told");
    }

    #[test]
    fn json_has_null_where_there_is_no_type() {
        assert_eq!(to_json(&event("model.loaded", "m", 1))["type"], Value::Null);
        assert_eq!(to_json(&event("nodes.failed", "tiny-1", 1))["type"], "tiny");
        assert_eq!(to_json(&Happened::Missed(3)), json!({ "missed": 3 }));
    }
}

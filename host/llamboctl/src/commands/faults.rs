use std::io::{self, Write};

use llambo_client::ActiveFault;
use serde_json::{Value, json};

use super::Session;
use crate::{
    args::fault::{Fault, Inject},
    exit::{Failure, OK},
    output,
};

pub(crate) async fn fault(session: &Session, args: Fault) -> Result<u8, Failure> {
    let mut out = io::stdout();
    match args {
        Fault::Inject(args) => {
            let number = session.client.inject_fault(asked(args)).await?;
            if session.json {
                output::json(&mut out, &json!({ "number": number }))?;
            } else {
                writeln!(out, "fault {number} is active; take it back by `llamboctl fault clear {number}`")?;
            }
        }
        Fault::List => {
            let faults = session.client.faults().await?;
            if session.json {
                output::json(&mut out, &faults.iter().map(to_json).collect())?;
            } else if faults.is_empty() {
                writeln!(out, "no fault is active")?;
            } else {
                for fault in &faults {
                    writeln!(out, "{}", shown(fault))?;
                }
            }
        }
        Fault::Clear { numbers } => {
            let cleared = session.client.clear_faults(numbers).await?;
            if session.json {
                output::json(&mut out, &json!({ "cleared": cleared }))?;
            } else {
                writeln!(out, "{cleared} taken back")?;
            }
        }
    }
    Ok(OK)
}

fn asked(args: Inject) -> llambo_client::Fault {
    let Inject { kind, nodes, node_type, share, after, times, delay } = args;
    llambo_client::Fault {
        kind,
        nodes,
        r#type: node_type.unwrap_or_default(),
        share,
        after_pieces: after,
        times: times.unwrap_or(0),
        delay_ms: delay.unwrap_or(0),
    }
}

fn to_json(active: &ActiveFault) -> Value {
    let fault = active.fault.clone().unwrap_or_default();
    json!({
        "number": active.number,
        "kind": fault.kind,
        "nodes": fault.nodes,
        "type": fault.r#type,
        "share": fault.share,
        "after_pieces": fault.after_pieces,
        "times": fault.times,
        "delay_ms": fault.delay_ms,
        "happened": active.happened,
    })
}

/// One line for people.
fn shown(active: &ActiveFault) -> String {
    let fault = active.fault.clone().unwrap_or_default();
    let kind = if fault.delay_ms > 0 { format!("{} by {} ms", fault.kind, fault.delay_ms) } else { fault.kind };
    let whom = match (fault.nodes.as_slice(), fault.r#type.as_str()) {
        ([], "") => "all nodes".to_owned(),
        ([], node_type) => format!("nodes of type {}", output::for_terminal(node_type)),
        ([node], _) => output::for_terminal(node).into_owned(),
        (nodes, _) => format!("{} nodes", nodes.len()),
    };
    let left = if fault.times > 0 { format!(" of {}", fault.times) } else { String::new() };
    let (share, after, happened) = (fault.share * 100.0, fault.after_pieces, active.happened);
    format!("{}: {kind}, {whom}, {share}% of requests, after {after} pieces; happened {happened}{left} times", active.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_in_one_line() {
        let fault = llambo_client::Fault { kind: "slow".into(), share: 0.25, delay_ms: 40, times: 9, ..Default::default() };
        let mut active = ActiveFault { number: 3, fault: Some(fault), happened: 2 };
        assert_eq!(shown(&active), "3: slow by 40 ms, all nodes, 25% of requests, after 0 pieces; happened 2 of 9 times");
        active.fault =
            Some(llambo_client::Fault { kind: "trap".into(), nodes: vec!["tiny-1".into()], share: 1.0, ..Default::default() });
        assert_eq!(shown(&active), "3: trap, tiny-1, 100% of requests, after 0 pieces; happened 2 times");
    }
}

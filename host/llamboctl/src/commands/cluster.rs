use std::io::{self, Write};

use llambo_client::{GetBalancerResponse, Health as Answer};
use serde_json::json;

use super::{
    Session,
    workers::{self, Leaving},
};
use crate::{
    args::{Balancer, Count, Drain, Health},
    exit::{Failure, NO, OK},
    output,
    route::PolicyRef,
};

pub(crate) async fn spawn(session: &Session, args: &Count) -> Result<u8, Failure> {
    let done = session.client.spawn(&args.node_type, args.count).await?;
    let mut out = io::stdout().lock();
    if session.json {
        let value = json!({
            "type": args.node_type,
            "spawned": done.spawned,
            "nodes": done.nodes,
            "spawn_p50_us": done.spawn_p50_us,
            "spawn_p99_us": done.spawn_p99_us,
        });
        output::json(&mut out, &value)?;
    } else {
        let (spawned, p50, p99) = (done.spawned, done.spawn_p50_us, done.spawn_p99_us);
        writeln!(out, "spawned {spawned} of type {}: {p50:.1} µs each (median), {p99:.1} µs (99th percentile)", args.node_type)?;
    }
    Ok(OK)
}

pub(crate) async fn scale(session: &Session, args: &Count) -> Result<u8, Failure> {
    let done = session.client.scale(&args.node_type, args.count).await?;
    let mut out = io::stdout().lock();
    if session.json {
        output::json(&mut out, &json!({ "type": args.node_type, "before": done.before, "after": done.after }))?;
    } else {
        writeln!(out, "{}: {} nodes, before {}", args.node_type, done.after, done.before)?;
    }
    Ok(OK)
}

pub(crate) async fn drain(session: &Session, args: Drain) -> Result<u8, Failure> {
    let client = &session.client;
    let (done, leaving) = match args.node_type {
        Some(node_type) => (client.drain_type(&node_type).await?, Leaving::OfType(node_type)),
        None if args.all => (client.drain_host().await?, Leaving::Host),
        None => (client.drain_nodes(args.nodes.clone()).await?, Leaving::Nodes(args.nodes.into_iter().collect())),
    };
    let left = match args.wait {
        Some(limit) => Some(workers::wait(session, done.draining, &leaving, limit).await?),
        None => None,
    };
    let mut out = io::stdout().lock();
    if session.json {
        output::json(&mut out, &json!({ "draining": done.draining, "left": left }))?;
    } else {
        match left {
            None => writeln!(out, "{} nodes go as soon as they are idle", done.draining)?,
            Some(0) => writeln!(out, "{} nodes are gone", done.draining)?,
            Some(n) => writeln!(out, "{n} of {} nodes are still there; they go when they are done", done.draining)?,
        }
    }
    Ok(if left.is_some_and(|n| n > 0) { NO } else { OK })
}

pub(crate) async fn balancer(session: &Session, args: &Balancer) -> Result<u8, Failure> {
    let mut out = io::stdout().lock();
    if let Some(strategy) = &args.strategy {
        let done = session.client.set_balancer(strategy).await?;
        if !session.json {
            writeln!(out, "{}, before {}", done.after, done.before)?;
        } else if !args.stats {
            output::json(&mut out, &json!({ "before": done.before, "after": done.after }))?;
        }
        if !args.stats {
            return Ok(OK);
        }
    }
    let b = session.client.balancer().await?;
    if session.json {
        output::json(&mut out, &to_json(&b))?;
    } else if args.stats {
        stats(&mut out, b)?;
    } else {
        for name in &b.available {
            let mark = if *name == b.strategy { '*' } else { ' ' };
            writeln!(out, "{mark} {name}")?;
        }
        if !b.available.contains(&b.strategy) {
            writeln!(out, "* {}", b.strategy)?;
        }
    }
    Ok(OK)
}

fn stats(out: &mut impl Write, b: GetBalancerResponse) -> io::Result<()> {
    writeln!(out, "strategy  {}", b.strategy)?;
    writeln!(out, "choices   {}", b.choices)?;
    writeln!(out, "time      {:.0} ns (median), {:.0} ns (99th percentile)", b.choice_p50_ns, b.choice_p99_ns)?;
    writeln!(out, "served    {} by the busiest node, {} by the idlest", b.served_max, b.served_min)?;
    if let Some(policy) = b.policy {
        writeln!(out, "policy    {} decides; the strategy does when it cannot", PolicyRef::from(policy).shown())?;
    }
    Ok(())
}

fn to_json(b: &GetBalancerResponse) -> serde_json::Value {
    json!({
        "strategy": b.strategy,
        "available": b.available,
        "choices": b.choices,
        "choice_p50_ns": b.choice_p50_ns,
        "choice_p99_ns": b.choice_p99_ns,
        "served_max": b.served_max,
        "served_min": b.served_min,
        "policy": super::policies::ref_json(b.policy.clone()),
    })
}

pub(crate) async fn health(session: &Session, args: &Health) -> Result<u8, Failure> {
    let is_serving = session.client.health(&args.service).await? == Answer::Serving;
    let mut out = io::stdout().lock();
    if session.json {
        output::json(&mut out, &json!({ "service": args.service, "serving": is_serving }))?;
    } else {
        writeln!(out, "{}", if is_serving { "serving" } else { "not serving" })?;
    }
    Ok(if is_serving { OK } else { NO })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_the_strategy_name_the_policy_that_decides() {
        let mut balancer = GetBalancerResponse { strategy: "round-robin".into(), choices: 7, ..GetBalancerResponse::default() };
        let shown = |balancer: &GetBalancerResponse| {
            let mut out = Vec::new();
            stats(&mut out, balancer.clone()).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(!shown(&balancer).contains("policy"));
        assert_eq!(to_json(&balancer)["policy"], serde_json::Value::Null);
        let sha256 = "9f1c2a7b43de00ff".to_owned();
        balancer.policy = Some(llambo_client::PolicyRef { name: "p".into(), generation: 3, sha256, ..Default::default() });
        let line = "policy    p (generation 3, 9f1c2a7b43de) decides; the strategy does when it cannot\n";
        assert!(shown(&balancer).ends_with(line), "{}", shown(&balancer));
        assert_eq!(to_json(&balancer)["policy"]["generation"], 3);
    }
}

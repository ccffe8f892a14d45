//! `llamboctl worker`: isolates by the name that many know them by. Whoever stops one wants to know that it is gone, so these commands wait.

use std::{
    collections::HashSet,
    io::{self, Write},
    time::Duration,
};

use llambo_client::{Client, Error, NodeFilter};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Session, cluster, listings};
use crate::{
    args::worker::{Patience, Worker},
    exit::{Failure, NO, OK},
    output,
};

/// How often it is looked who is still there.
const LOOK: Duration = Duration::from_millis(200);

/// Who is waited for.
pub(super) enum Leaving {
    /// These.
    Nodes(HashSet<String>),
    /// The host with all its nodes.
    Host,
    /// All that drain, of one type, or of every type when it has no name.
    OfType(String),
}

pub(crate) async fn worker(session: &Session, command: Worker) -> Result<u8, Failure> {
    match command {
        Worker::Spawn(args) => cluster::spawn(session, &args).await,
        Worker::List(args) => listings::nodes(session, args).await,
        Worker::Stop { workers, patience } => {
            let draining = session.client.drain_nodes(workers.clone()).await?.draining;
            stopped(session, draining, &Leaving::Nodes(workers.into_iter().collect()), patience).await
        }
        Worker::StopAll { node_type, patience } => {
            let draining = match &node_type {
                Some(node_type) => session.client.drain_type(node_type).await?.draining,
                None => drain_all(&session.client).await?,
            };
            stopped(session, draining, &Leaving::OfType(node_type.unwrap_or_default()), patience).await
        }
    }
}

/// All nodes of all types. The host stays.
async fn drain_all(client: &Client) -> Result<u32, Failure> {
    let mut draining = 0;
    let mut types: Vec<_> = client.status().await?.nodes_by_type.into_keys().collect();
    types.sort();
    for node_type in types {
        draining += match client.drain_type(&node_type).await {
            Ok(done) => done.draining,
            // a published module that was unloaded in between
            Err(error) if error.reason() == "UNKNOWN_TYPE" => 0,
            Err(error) => return Err(error.into()),
        };
    }
    Ok(draining)
}

async fn stopped(session: &Session, draining: u32, leaving: &Leaving, patience: Patience) -> Result<u8, Failure> {
    let left = if patience.no_wait { None } else { Some(wait(session, draining, leaving, patience.wait).await?) };
    let mut out = io::stdout().lock();
    if session.json {
        output::json(&mut out, &json!({ "stopping": draining, "left": left }))?;
    } else {
        match left {
            None => writeln!(out, "{draining} workers go as soon as they are idle")?,
            Some(0) => writeln!(out, "{draining} workers are gone")?,
            Some(n) => writeln!(out, "{n} of {draining} workers are still busy; they go when they are done")?,
        }
    }
    Ok(if left.is_some_and(|n| n > 0) { NO } else { OK })
}

/// Waits until they are gone, or `limit` is over; how many are left.
pub(super) async fn wait(session: &Session, n_all: u32, leaving: &Leaving, limit: Duration) -> Result<u32, Failure> {
    let until = Instant::now() + limit;
    let progress = output::progress(Some(n_all.into()), "stopping", session.json);
    loop {
        let left = match left(&session.client, leaving).await {
            Ok(left) => left,
            // with the host they are gone too
            Err(Error::Unreachable { .. } | Error::Lost { .. }) => 0,
            Err(error) => return Err(error.into()),
        };
        progress.set_position(n_all.saturating_sub(left).into());
        if left == 0 || Instant::now() >= until {
            progress.finish_and_clear();
            return Ok(left);
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            interrupt = tokio::signal::ctrl_c() => {
                interrupt.map_err(|e| Failure::io("listen for Ctrl-C", &e))?;
                progress.finish_and_clear();
                return Err(Failure::interrupted().with_note(&format!("{left} still finish what they have")));
            }
        }
    }
}

async fn left(client: &Client, leaving: &Leaving) -> Result<u32, Error> {
    let node_type = match leaving {
        // it goes when it has nothing more to do, and takes its nodes along
        Leaving::Host => return Ok(client.status().await?.queue.unwrap_or_default().in_flight.max(1)),
        Leaving::OfType(name) => name.clone(),
        Leaving::Nodes(_) => String::new(),
    };
    let there = match client.nodes(&NodeFilter { node_type, state: "draining".into(), limit: None }).await {
        // the type went with its last node
        Err(error) if error.reason() == "UNKNOWN_TYPE" => return Ok(0),
        nodes => nodes?,
    };
    let counts = |id: &String| match leaving {
        Leaving::Nodes(ids) => ids.contains(id),
        Leaving::OfType(_) | Leaving::Host => true,
    };
    Ok(u32::try_from(there.iter().filter(|node| counts(&node.id)).count()).unwrap_or(u32::MAX))
}

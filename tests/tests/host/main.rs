//! A host as a process, asked over gRPC and with `llamboctl`, on the built-in models and real guests.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

mod agents;
mod bad_input;
mod budgets;
mod drain;
mod failover;
mod hibernate;
mod hostile;
mod models;
mod operated;
mod policies;
mod policies_by_kind;
mod publish;
mod refused;
mod scaling;
mod sessions;
mod tasks;
mod telemetry;
mod whole_path;

use futures::StreamExt;
use llambo_client::{Ask, Client, Error, Event, Generation};

/// A few isolates on the small model.
const SMALL: &str = "
models: [{name: demo-small, path: builtin:demo-small, sequences: 32}]
types: {tiny: {count: 20}}
";

/// All text of an answer, and the node it came from.
async fn read(mut answer: Generation) -> Result<(String, String), Error> {
    let (mut text, mut node) = (String::new(), String::new());
    while let Some(event) = answer.next().await {
        match event? {
            Event::Started(started) => node = started.node,
            Event::Piece(piece) => text.push_str(&piece.text),
            Event::Finished(_) => {}
        }
    }
    Ok((text, node))
}

/// One that always works: the host is well.
async fn is_well(client: &Client) {
    let answer = client.infer(Ask::text("A trait is").max_tokens(8).temperature(0.0)).await;
    assert_eq!(answer.expect("a good request is answered").usage.expect("usage").output_tokens, 8);
}

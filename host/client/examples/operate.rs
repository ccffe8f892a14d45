//! Adds isolates, looks at the cluster and its machine, and takes the isolates out of service again.
//!
//!     cargo run --release -p llambo-client --example operate

use std::time::Duration;

use futures::TryStreamExt;
use llambo_client::{Client, Error, NodeFilter};

/// What it saw, line by line.
pub(crate) async fn run(address: &str, node_type: &str) -> Result<Vec<String>, Error> {
    let client = Client::connect(address).await?;
    let mut seen = Vec::new();

    let spawned = client.spawn(node_type, 2).await?;
    seen.push(format!("spawned {}", spawned.nodes.join(" and ")));

    let filter = NodeFilter { node_type: node_type.to_owned(), ..NodeFilter::default() };
    seen.push(format!("{} nodes of type {node_type}", client.nodes(&filter).await?.len()));

    for host in client.hosts().await? {
        let hardware = host.hardware.unwrap_or_default();
        seen.push(format!("{} has {} threads and {} graphics cards", host.name, hardware.cpus, hardware.gpus.len()));
    }

    let before = client.balancer().await?.strategy;
    client.set_balancer("power-of-two").await?;
    client.set_balancer(&before).await?;

    // isolates finish what they have before they go
    let draining = client.drain_nodes(spawned.nodes.clone()).await?.draining;
    seen.push(format!("{draining} go"));
    let mut statuses = client.watch(Duration::from_millis(100)).await?;
    while let Some(status) = statuses.try_next().await? {
        if !status.nodes_by_state.contains_key("draining") {
            break;
        }
    }
    // `client.drain_host()` would do the same with the host itself, which then exits
    Ok(seen)
}

#[tokio::main(flavor = "current_thread")]
#[allow(dead_code, reason = "tests use `run` alone")]
#[allow(clippy::print_stdout, reason = "an example prints")]
async fn main() -> Result<(), Error> {
    let address = std::env::var("LLAMBO_HOST").unwrap_or_else(|_| "http://127.0.0.1:7400".to_owned());
    for line in run(&address, "tiny").await? {
        println!("{line}");
    }
    Ok(())
}

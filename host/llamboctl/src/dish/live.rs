//! Names that are on the host now, for completion.

use std::time::Duration;

use llambo_client::{Client, Error, NodeFilter};
use tokio::{runtime::Handle, time};

/// A key that seems dead is worse than one that completes nothing.
const PATIENCE: Duration = Duration::from_millis(700);
/// Nodes that are looked at: more than anybody reads, and a quick answer of a host with many more.
const MAX_NODES: u32 = 2000;

/// Asks a host. From a thread that is not the runtime's.
#[derive(Clone)]
pub(super) struct Live {
    client: Client,
    runtime: Handle,
}

/// What a word of a command names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    Nodes,
    Types,
    Models,
    Strategies,
    Sessions,
    Modules,
}

impl Live {
    /// Within the runtime that serves the connection.
    pub(super) fn new(client: Client) -> Self {
        Self { client, runtime: Handle::current() }
    }

    /// None where the host does not say in time.
    pub(super) fn names(&self, of: Names) -> Vec<String> {
        let asked = async { time::timeout(PATIENCE, self.asked(of)).await };
        self.runtime.block_on(asked).ok().and_then(Result::ok).unwrap_or_default()
    }

    async fn asked(&self, of: Names) -> Result<Vec<String>, Error> {
        let client = &self.client;
        Ok(match of {
            Names::Nodes => {
                let filter = NodeFilter { limit: Some(MAX_NODES), ..NodeFilter::default() };
                client.nodes(&filter).await?.into_iter().map(|node| node.id).collect()
            }
            Names::Types => {
                let mut types: Vec<_> = client.status().await?.nodes_by_type.into_keys().collect();
                types.sort();
                types
            }
            Names::Models => client.models().await?.into_iter().map(|model| model.name).collect(),
            Names::Strategies => client.balancer().await?.available,
            Names::Sessions => client.sessions(Some(100)).await?.into_iter().map(|session| session.id).collect(),
            Names::Modules => {
                let mut names: Vec<_> = client.modules().await?.into_iter().map(|module| module.name).collect();
                names.dedup();
                names
            }
        })
    }
}

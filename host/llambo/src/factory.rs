//! Isolates as the orchestrator's nodes.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::BoxFuture;
use llambo_inference::{Node, TypeName};
use llambo_isolate::{NodeType, SandboxError};
use llambo_orchestrator::{NodeFactory, SpawnError, SpawnOutcome, TypeInfo};

/// Makes isolates of the configuration's types.
pub(crate) struct IsolateFactory(pub(crate) BTreeMap<TypeName, Arc<NodeType>>);

impl NodeFactory for IsolateFactory {
    fn types(&self) -> Vec<TypeInfo> {
        self.0.values().map(|t| TypeInfo { name: t.settings().name.clone(), model: t.settings().model.clone() }).collect()
    }

    fn spawn<'a>(&'a self, node_type: &'a TypeName, count: u32) -> BoxFuture<'a, Result<SpawnOutcome, SpawnError>> {
        Box::pin(async move {
            let failed = |detail| SpawnError::Failed { node_type: node_type.clone(), detail };
            let found = self.0.get(node_type).ok_or_else(|| failed("there is no such type".into()))?;
            let spawned = found.spawn(count).await.map_err(|error| match error {
                SandboxError::Full { .. } => {
                    SpawnError::PoolExhausted { node_type: node_type.clone(), wanted: count, detail: error.to_string() }
                }
                error => failed(error.to_string()),
            })?;
            let nodes = spawned.isolates.into_iter().map(|isolate| isolate as Arc<dyn Node>).collect();
            Ok(SpawnOutcome { nodes, spawn_us: spawned.spawn_us })
        })
    }
}

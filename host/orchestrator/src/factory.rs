//! What a cluster asks of whoever makes its nodes.

use std::sync::Arc;

use futures::future::BoxFuture;
use llambo_inference::{ModelName, Node, TenantName, TypeName};
use llambo_strategy::ScaleRules;

use crate::error::SpawnError;

/// Makes nodes. Implemented by the program, which knows isolates.
pub trait NodeFactory: Send + Sync + 'static {
    /// The node types of the configuration.
    fn types(&self) -> Vec<TypeInfo>;

    /// Hibernated nodes that were left for this host.
    fn adopt(&self) -> BoxFuture<'_, Vec<Found>> {
        Box::pin(async { Vec::new() })
    }

    /// Makes `count` nodes of a type that [`Self::types`] names: all, or none and an error. Their ids are unused on this host.
    fn spawn<'a>(&'a self, node_type: &'a TypeName, count: u32) -> BoxFuture<'a, Result<SpawnOutcome, SpawnError>>;
}

/// A node that was left for this host, or what it is called and why it cannot be taken in.
pub type Found = Result<Arc<dyn Node>, (String, String)>;

/// A node type of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeInfo {
    /// What requests and operators call it.
    pub name: TypeName,
    /// The model its nodes serve.
    pub model: ModelName,
    /// Whose its nodes are.
    pub tenant: TenantName,
    /// The fewest and the most nodes that a scaler policy may leave it, where `scaling` says nothing; `None`: it is not scaled.
    pub bounds: Option<(u32, u32)>,
    /// How its number of nodes follows its load; `None`: it does not.
    pub scaling: Option<ScaleRules>,
    /// Capability class, 0 to 2; higher is stronger.
    pub tier: u8,
}

/// New nodes.
pub struct SpawnOutcome {
    /// The nodes; they take requests as soon as their view says so.
    pub nodes: Vec<Arc<dyn Node>>,
    /// How long each took to make, on its thread, in microseconds.
    pub spawn_us: Vec<f32>,
}

//! Nodes put aside and woken.

use std::sync::Arc;

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use llambo_inference::{InferenceError, Node, NodeId, NodeState};

use crate::{
    cluster::{Cluster, DrainTarget},
    error::ClusterError,
};

/// Nodes that move at a time: reading and writing files is what they mostly do.
const MOVE_AT_ONCE: usize = 8;

/// What [`Cluster::hibernate`] or [`Cluster::wake`] did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moved {
    /// Nodes that are where they should be.
    pub nodes: u32,
    /// Bytes written or read for them.
    pub bytes: u64,
    /// Those that are not, and why.
    pub refused: Vec<(NodeId, InferenceError)>,
}

/// What [`Cluster::adopt`] found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adopted {
    /// Nodes that were taken in; they are hibernated.
    pub nodes: Vec<NodeId>,
    /// What was left where it is: its name, and why.
    pub refused: Vec<(String, String)>,
}

#[derive(Clone, Copy)]
enum Move {
    Hibernate,
    Wake,
}

impl Cluster {
    /// Puts idle nodes aside on disk: they take no memory, and their next request wakes them.
    ///
    /// # Errors
    /// [`ClusterError::UnknownNode`] or [`ClusterError::UnknownType`]: nothing was changed.
    pub async fn hibernate(&self, target: &DrainTarget) -> Result<Moved, ClusterError> {
        self.move_all(target, Move::Hibernate).await
    }

    /// Wakes nodes before a request does.
    ///
    /// # Errors
    /// As [`Self::hibernate`].
    pub async fn wake(&self, target: &DrainTarget) -> Result<Moved, ClusterError> {
        self.move_all(target, Move::Wake).await
    }

    /// Takes in hibernated nodes that an earlier run, or another host, left where this one looks for them. Waits for other operations to
    /// end first.
    ///
    /// # Errors
    /// [`ClusterError::DuplicateNode`] as for [`Self::add`].
    pub async fn adopt(&self) -> Result<Adopted, ClusterError> {
        let _turn = self.turn().await;
        let mut adopted = Adopted::default();
        let mut nodes = Vec::new();
        for found in self.factory.adopt().await {
            match found {
                Ok(node) => {
                    adopted.nodes.push(node.view().id);
                    nodes.push(node);
                }
                Err(refused) => adopted.refused.push(refused),
            }
        }
        self.add(nodes)?;
        Ok(adopted)
    }

    async fn move_all(&self, target: &DrainTarget, to: Move) -> Result<Moved, ClusterError> {
        let nodes = self.nodes_at(target)?;
        let all: Vec<BoxFuture<'_, _>> = nodes.into_iter().map(|(id, node)| self.move_one(id, node, to).boxed()).collect();
        let mut moving = stream::iter(all).buffer_unordered(MOVE_AT_ONCE);
        let mut moved = Moved::default();
        while let Some((id, result)) = moving.next().await {
            match result {
                Ok(n_bytes) => {
                    moved.nodes += 1;
                    moved.bytes += n_bytes;
                }
                Err(error) => moved.refused.push((id, error)),
            }
        }
        Ok(moved)
    }

    async fn move_one(&self, id: NodeId, node: Arc<dyn Node>, to: Move) -> (NodeId, Result<u64, InferenceError>) {
        if node.view().state != NodeState::Busy {
            // nobody is sent there meanwhile
            self.observe(&id, NodeState::Starting);
        }
        let result = match to {
            Move::Hibernate => node.hibernate().await,
            Move::Wake => node.wake().await,
        };
        self.observe(&id, node.view().state);
        (id, result)
    }

    fn observe(&self, id: &NodeId, state: NodeState) {
        let effects = self.shared.lock().observe(id, state);
        self.shared.apply(effects);
    }
}

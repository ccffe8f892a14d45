//! Types that come into service and go while the host runs, with all their nodes.

use llambo_inference::TypeName;

use crate::{
    cluster::{Cluster, SpawnReport, keys},
    error::{ClusterError, SpawnError},
    factory::{SpawnOutcome, TypeInfo},
};

impl Cluster {
    /// Brings a type into service, or puts new nodes in the place of all that it has: `make` makes them while the old ones serve, which then
    /// finish what they have. Waits for other operations to end first. `reason` is told as an event. Answers with what `make` says.
    ///
    /// # Errors
    /// [`ClusterError::Draining`], or those of `make`: nothing was changed. [`ClusterError::DuplicateNode`] as for [`Self::add`].
    pub async fn replace(
        &self,
        info: &TypeInfo,
        reason: &'static str,
        make: impl Future<Output = Result<SpawnOutcome, SpawnError>>,
    ) -> Result<SpawnReport, ClusterError> {
        let _turn = self.turn().await;
        if self.is_draining() {
            return Err(ClusterError::Draining);
        }
        let outcome = make.await?;
        let before = keys(self.nodes_of(&info.name, |_| true));
        let report = self.take_in(info, outcome, reason)?;
        self.drain_keys(&before, "a newer version took its place");
        Ok(report)
    }

    /// Nodes of a type that serve requests now or will.
    pub fn n_live(&self, node_type: &TypeName) -> u32 {
        self.shared.lock().registry.n_live(node_type)
    }

    /// All nodes of a type, those that are draining included.
    pub fn n_nodes(&self, node_type: &TypeName) -> usize {
        self.nodes_of(node_type, |_| true).len()
    }

    /// Takes a type out of service for good, with all its nodes; `forget` says so to the factory. Answers how many were not draining before.
    pub async fn retire(&self, info: &TypeInfo, forget: impl FnOnce()) -> u32 {
        let _turn = self.turn().await;
        forget();
        self.shared.lock().registry.forget(&info.name);
        self.drain_keys(&keys(self.nodes_of(&info.name, |_| true)), "its module was unloaded")
    }
}

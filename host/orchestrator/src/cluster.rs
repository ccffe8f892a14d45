use std::{cmp::Reverse, collections::BTreeSet, sync::Arc, time::Duration};

use llambo_inference::{ClusterEvent, EventKind, Node, NodeId, NodeState, TypeName};
use llambo_strategy::{by_name, percentile};
use tokio::{
    sync::{Semaphore, SemaphorePermit, broadcast},
    time::{Instant, timeout_at},
};

use crate::{
    Policies, Settings,
    admission::{Admission, Effects},
    balance::Balance,
    dispatcher::Dispatcher,
    entry::Entry,
    error::{ClusterError, StillBusy},
    factory::{NodeFactory, SpawnOutcome, TypeInfo},
    registry::NodeKey,
    route::RouteRecord,
    shared::Shared,
};

/// Nodes changed under one hold of the lock, so that requests wait for about 100 us at most while 100,000 nodes change.
pub(crate) const NODES_PER_STEP: usize = 256;
/// Ids that an error about an unknown one lists.
const LISTED_IDS: usize = 10;

/// A node by its id.
pub(crate) type Named = (NodeId, Arc<dyn Node>);

/// What [`Cluster::spawn`] made.
#[derive(Clone, Debug, PartialEq)]
pub struct SpawnReport {
    /// All of them, in the order they were made.
    pub nodes: Vec<NodeId>,
    /// Time of one spawn on its thread, in microseconds.
    pub spawn_p50_us: f64,
    /// The same, 99th percentile.
    pub spawn_p99_us: f64,
}

/// What [`Cluster::scale`] changed. Nodes that drain or have failed do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleReport {
    /// Nodes of the type before.
    pub before: u32,
    /// Nodes of the type after.
    pub after: u32,
}

/// What [`Cluster::drain`] takes out of service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DrainTarget {
    /// These nodes.
    Nodes(Vec<NodeId>),
    /// All nodes of a type.
    Type(TypeName),
}

/// The nodes of this host and what operators do with them. Clones are the same cluster.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) shared: Arc<Shared>,
    pub(crate) factory: Arc<dyn NodeFactory>,
    /// One permit: of two that scale the same type at once, the second must see what the first did.
    operations: Arc<Semaphore>,
}

impl Cluster {
    /// A cluster without nodes, whose types may be asked for at once. Counts uptime from here.
    ///
    /// # Errors
    /// [`ClusterError::Strategy`] if the settings name one that does not exist.
    pub fn new(factory: Arc<dyn NodeFactory>, settings: Settings) -> Result<Self, ClusterError> {
        Self::with_policies(factory, settings, Policies::default())
    }

    /// The same with policies that may decide in the place of what is built in.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn with_policies(
        factory: Arc<dyn NodeFactory>,
        mut settings: Settings,
        policies: Policies,
    ) -> Result<Self, ClusterError> {
        settings.max_in_flight = settings.max_in_flight.max(1);
        settings.attempts = settings.attempts.max(1);
        let balance = Balance::new(by_name(&settings.strategy)?, rand::random());
        let mut admission = Admission::new(balance, settings.max_in_flight, settings.max_waiting);
        admission.registry.is_separate = settings.separate_tenants;
        for info in factory.types() {
            admission.registry.know(&info);
        }
        let shared = Arc::new(Shared::new(admission, settings, policies));
        shared.note_tiers();
        Ok(Self { shared, factory, operations: Arc::new(Semaphore::new(1)) })
    }

    /// The door for requests.
    pub fn dispatcher(&self) -> Dispatcher {
        Dispatcher::new(Arc::clone(&self.shared))
    }

    /// Every routing decision from now on and how it ended. Whoever reads slowly misses some, and is told how many.
    pub fn records(&self) -> broadcast::Receiver<Arc<RouteRecord>> {
        self.shared.recorder.subscribe()
    }

    /// The node types that can be spawned.
    pub fn types(&self) -> Vec<TypeInfo> {
        self.factory.types()
    }

    /// Adds `count` nodes of a type. Waits for other operations to end first.
    ///
    /// # Errors
    /// [`ClusterError::UnknownType`], [`ClusterError::Draining`], [`ClusterError::Spawn`]: nothing was added.
    /// [`ClusterError::DuplicateNode`] if the factory broke its promise: the other nodes were added.
    pub async fn spawn(&self, node_type: &TypeName, count: u32) -> Result<SpawnReport, ClusterError> {
        let _turn = self.turn().await;
        self.spawn_in_turn(node_type, count, Cause::ASKED).await
    }

    /// Brings a type to `count` nodes. Of too many the idlest go first, the last among equals; busy ones finish what they
    /// have. Failed nodes of the type go too. Waits for other operations to end first.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub async fn scale(&self, node_type: &TypeName, count: u32) -> Result<ScaleReport, ClusterError> {
        let done = self.scale_because(node_type, count, Cause { reason: "an operator scaled it", ..Cause::ASKED }).await?;
        if done.before != done.after {
            let kind = if done.after > done.before { EventKind::ScaleUp } else { EventKind::ScaleDown };
            let reason = format!("from {} to {}: an operator said so", done.before, done.after);
            self.tell(ClusterEvent::of_type(kind, node_type, done.after.abs_diff(done.before), reason));
        }
        Ok(done)
    }

    pub(crate) async fn scale_because(
        &self,
        node_type: &TypeName,
        count: u32,
        cause: Cause,
    ) -> Result<ScaleReport, ClusterError> {
        let _turn = self.turn().await;
        let info = self.known(node_type)?;
        self.know(&info);
        let mut live = self.nodes_of(node_type, Entry::is_live);
        self.drain_keys(&keys(self.nodes_of(node_type, |entry| entry.state() == NodeState::Failed)), "it failed");
        let before = n_nodes(live.len());
        if count > before {
            self.spawn_in_turn(node_type, count - before, cause).await?;
        } else {
            live.sort_unstable();
            live.truncate((before - count) as usize);
            self.drain_keys(&keys(live), cause.reason);
        }
        let after = self.n_live(node_type);
        tracing::info!(node_type = %node_type, before, after, "scaled");
        Ok(ScaleReport { before, after })
    }

    /// Takes nodes out of service: idle ones at once, the others when their requests have ended. Each is removed and
    /// [`Node::stop`]ped then. Answers how many were not draining before.
    ///
    /// # Errors
    /// [`ClusterError::UnknownNode`] or [`ClusterError::UnknownType`]: nothing was changed.
    pub fn drain(&self, target: &DrainTarget) -> Result<u32, ClusterError> {
        let draining = self.drain_keys(&self.keys_at(target)?, "an operator drained it");
        tracing::info!(draining, "draining nodes");
        Ok(draining)
    }

    fn keys_at(&self, target: &DrainTarget) -> Result<Vec<NodeKey>, ClusterError> {
        match target {
            DrainTarget::Nodes(ids) => self.keys_of(ids),
            DrainTarget::Type(node_type) => {
                if !self.shared.lock().registry.knows(node_type) {
                    return Err(self.unknown_type(node_type));
                }
                Ok(keys(self.nodes_of(node_type, |_| true)))
            }
        }
    }

    pub(crate) fn nodes_at(&self, target: &DrainTarget) -> Result<Vec<Named>, ClusterError> {
        let keys = self.keys_at(target)?;
        let admission = self.shared.lock();
        let entries = keys.into_iter().filter_map(|key| admission.registry.entry(key));
        Ok(entries.map(|entry| (entry.id.clone(), Arc::clone(&entry.node))).collect())
    }

    /// Adds nodes that were made elsewhere, such as remote hosts.
    ///
    /// # Errors
    /// [`ClusterError::DuplicateNode`] with the first id that came twice; the other nodes were added.
    pub fn add(&self, nodes: Vec<Arc<dyn Node>>) -> Result<(), ClusterError> {
        let mut twice = None;
        for node in nodes {
            let view = node.view();
            let id = view.id.clone();
            let added = self.shared.lock().add(node, view);
            match added {
                Ok(effects) => self.shared.apply(effects),
                Err(node) => {
                    node.stop();
                    twice.get_or_insert(id);
                }
            }
        }
        self.shared.note_tiers();
        twice.map_or(Ok(()), |node| Err(ClusterError::DuplicateNode { node }))
    }

    /// From now on new requests are refused and no nodes are made. Requests that were let in, waiting ones included, are
    /// served to their end. There is no way back.
    pub fn start_drain(&self) {
        self.shared.lock().start_drain();
        tracing::info!("the host drains");
        self.tell(ClusterEvent::new(EventKind::HostDraining, "host", "it finishes what it has and takes nothing new"));
    }

    /// Whether [`Self::start_drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.shared.lock().is_draining()
    }

    /// Waits until no request is in flight and none waits, which lasts only after [`Self::start_drain`].
    ///
    /// # Errors
    /// [`StillBusy`] after `timeout`.
    pub async fn drained(&self, timeout: Duration) -> Result<(), StillBusy> {
        let until = Instant::now().checked_add(timeout);
        loop {
            let mut idle = std::pin::pin!(self.shared.idle.notified());
            // listening before looking: an end between the two is not missed
            idle.as_mut().enable();
            let busy = {
                let admission = self.shared.lock();
                StillBusy { in_flight: admission.in_flight(), waiting: admission.waiting() }
            };
            if busy == (StillBusy { in_flight: 0, waiting: 0 }) {
                return Ok(());
            }
            match until {
                Some(until) => timeout_at(until, idle).await.map_err(|_| busy)?,
                None => idle.await,
            }
        }
    }

    /// Takes every node out of service, as [`Self::drain`] does: the last step of a host that ends.
    pub fn stop_nodes(&self) {
        let mut keys = Vec::new();
        self.shared.each_entry(|key, _| keys.push(key));
        self.drain_keys(&keys, "the host ends");
    }

    async fn spawn_in_turn(&self, node_type: &TypeName, count: u32, cause: Cause) -> Result<SpawnReport, ClusterError> {
        let info = self.known(node_type)?;
        if self.is_draining() && !cause.even_draining {
            return Err(ClusterError::Draining);
        }
        let outcome = self.factory.spawn(node_type, count).await?;
        self.take_in(&info, outcome, cause.reason)
    }

    /// A type that requests may name from now on.
    fn know(&self, info: &TypeInfo) {
        self.shared.lock().registry.know(info);
        self.shared.note_tiers();
    }

    pub(crate) fn take_in(
        &self,
        info: &TypeInfo,
        outcome: SpawnOutcome,
        reason: &'static str,
    ) -> Result<SpawnReport, ClusterError> {
        let SpawnOutcome { nodes, spawn_us } = outcome;
        self.know(info);
        let ids: Vec<_> = nodes.iter().map(|node| node.view().id).collect();
        self.add(nodes)?;
        tracing::info!(node_type = %info.name, count = ids.len(), "spawned");
        if !ids.is_empty() {
            self.tell(ClusterEvent::of_type(EventKind::NodesSpawned, &info.name, n_nodes(ids.len()), reason));
        }
        let mut spawn_us: Vec<f64> = spawn_us.into_iter().map(f64::from).collect();
        Ok(SpawnReport {
            nodes: ids,
            spawn_p50_us: percentile(&mut spawn_us, 0.50),
            spawn_p99_us: percentile(&mut spawn_us, 0.99),
        })
    }

    pub(crate) async fn turn(&self) -> SemaphorePermit<'_> {
        self.operations.acquire().await.expect("the semaphore is never closed")
    }

    fn known(&self, node_type: &TypeName) -> Result<TypeInfo, ClusterError> {
        let known = self.factory.types().into_iter().find(|info| info.name == *node_type);
        known.ok_or_else(|| self.unknown_type(node_type))
    }

    pub(crate) fn unknown_type(&self, node_type: &TypeName) -> ClusterError {
        let mut known: BTreeSet<_> = self.factory.types().into_iter().map(|info| info.name).collect();
        known.extend(self.shared.lock().registry.types().map(|(name, _)| name.clone()));
        ClusterError::UnknownType { node_type: node_type.clone(), known: known.into_iter().collect() }
    }

    /// Nodes of a type with their load, to be sorted so that the idlest and last come first.
    pub(crate) fn nodes_of(&self, node_type: &TypeName, which: fn(&Entry) -> bool) -> Vec<(u32, Reverse<NodeKey>)> {
        let mut nodes = Vec::new();
        self.shared.each_entry(|key, entry| {
            if entry.node_type == *node_type && which(entry) {
                nodes.push((entry.in_flight, Reverse(key)));
            }
        });
        nodes
    }

    fn keys_of(&self, ids: &[NodeId]) -> Result<Vec<NodeKey>, ClusterError> {
        let admission = self.shared.lock();
        let registry = &admission.registry;
        let key = |id: &NodeId| {
            registry.key(id).ok_or_else(|| ClusterError::UnknownNode {
                node: id.clone(),
                first: registry.entries_after(None).take(LISTED_IDS).map(|entry| entry.id.clone()).collect(),
                total: registry.len(),
            })
        };
        ids.iter().map(key).collect()
    }

    pub(crate) fn drain_keys(&self, keys: &[NodeKey], reason: &'static str) -> u32 {
        let mut drained = 0;
        self.tell_draining(keys, reason);
        for step in keys.chunks(NODES_PER_STEP) {
            let mut effects = Effects::default();
            drained += self.shared.lock().drain(step, &mut effects);
            self.shared.apply(effects);
        }
        drained
    }
}

/// Why nodes are made, and whether that is so important that even a host that drains makes them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cause {
    pub(crate) reason: &'static str,
    /// Somebody who was let in waits for one.
    pub(crate) even_draining: bool,
}

impl Cause {
    const ASKED: Self = Self { reason: "asked for", even_draining: false };
}

pub(crate) fn keys(nodes: Vec<(u32, Reverse<NodeKey>)>) -> Vec<NodeKey> {
    nodes.into_iter().map(|(_, Reverse(key))| key).collect()
}

fn n_nodes(n: usize) -> u32 {
    u32::try_from(n).expect("16,777,216 nodes at most")
}

//! Isolates as the orchestrator's nodes.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use futures::future::BoxFuture;
use llambo_inference::{Node, TypeName};
use llambo_isolate::{Dormitory, NodeType, SandboxError, Sleeper};
use llambo_orchestrator::{Found, NodeFactory, SpawnError, SpawnOutcome, TypeInfo};
use llambo_strategy::ScaleRules;

/// Makes isolates of the configuration's types, and of modules that were published.
pub(crate) struct IsolateFactory {
    types: RwLock<BTreeMap<TypeName, Arc<NodeType>>>,
    /// How the configuration's types follow their load.
    scalings: BTreeMap<TypeName, ScaleRules>,
    /// Where isolates are put aside.
    dormitory: Option<Arc<Dormitory>>,
}

impl IsolateFactory {
    pub(crate) fn new(dormitory: Option<Arc<Dormitory>>, scalings: BTreeMap<TypeName, ScaleRules>) -> Self {
        Self { types: RwLock::default(), scalings, dormitory }
    }

    /// What is put aside from now on stays there when its isolate stops: the host ends.
    pub(crate) fn close(&self) {
        if let Some(dormitory) = &self.dormitory {
            dormitory.close();
        }
    }

    /// From now on isolates of its name are made so.
    pub(crate) fn insert(&self, node_type: Arc<NodeType>) {
        let name = node_type.settings().name.clone();
        self.types.write().unwrap_or_else(PoisonError::into_inner).insert(name, node_type);
    }

    /// From now on there are none of that name.
    pub(crate) fn remove(&self, name: &TypeName) {
        self.types.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn get(&self, name: &TypeName) -> Option<Arc<NodeType>> {
        self.types.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

fn adopt_one(types: &BTreeMap<TypeName, Arc<NodeType>>, path: &Path) -> Result<Arc<dyn Node>, String> {
    let sleeper = Sleeper::open(path).map_err(|e| e.to_string())?;
    let name = TypeName::from(&sleeper.origin().node_type);
    let node_type = types.get(&name).ok_or_else(|| format!("it is of the type `{name}`, and there is none here"))?;
    node_type.adopt(sleeper).map(|isolate| isolate as Arc<dyn Node>).map_err(|e| e.to_string())
}

/// A type as the orchestrator sees it, unless it follows its load.
pub(crate) fn info(node_type: &NodeType) -> TypeInfo {
    let settings = node_type.settings();
    TypeInfo {
        name: settings.name.clone(),
        model: settings.serves.clone(),
        tenant: settings.tenant.clone(),
        bounds: settings.bounds,
        scaling: None,
        tier: settings.tier,
    }
}

/// Isolates of a type, as nodes.
pub(crate) async fn spawn(node_type: &Arc<NodeType>, count: u32) -> Result<SpawnOutcome, SpawnError> {
    let name = || node_type.settings().name.clone();
    let spawned = node_type.spawn(count).await.map_err(|error| match error {
        SandboxError::Full { .. } => SpawnError::PoolExhausted { node_type: name(), wanted: count, detail: error.to_string() },
        error => SpawnError::Failed { node_type: name(), detail: error.to_string() },
    })?;
    let nodes = spawned.isolates.into_iter().map(|isolate| isolate as Arc<dyn Node>).collect();
    Ok(SpawnOutcome { nodes, spawn_us: spawned.spawn_us })
}

impl NodeFactory for IsolateFactory {
    fn types(&self) -> Vec<TypeInfo> {
        let types = self.types.read().unwrap_or_else(PoisonError::into_inner);
        let info = |node_type: &Arc<NodeType>| {
            let info = info(node_type);
            TypeInfo { scaling: self.scalings.get(&info.name).copied(), ..info }
        };
        types.values().map(info).collect()
    }

    fn adopt(&self) -> BoxFuture<'_, Vec<Found>> {
        let types = self.types.read().unwrap_or_else(PoisonError::into_inner).clone();
        let dormitory = self.dormitory.clone();
        let adopt = move || {
            let files = dormitory.iter().flat_map(|dormitory| dormitory.strangers());
            files.map(|path| adopt_one(&types, &path).map_err(|why| (path.display().to_string(), why))).collect()
        };
        Box::pin(async {
            let failed = |e: tokio::task::JoinError| vec![Err(("hibernation.folder".to_owned(), e.to_string()))];
            tokio::task::spawn_blocking(adopt).await.unwrap_or_else(failed)
        })
    }

    fn spawn<'a>(&'a self, node_type: &'a TypeName, count: u32) -> BoxFuture<'a, Result<SpawnOutcome, SpawnError>> {
        Box::pin(async move {
            let failed = |detail| SpawnError::Failed { node_type: node_type.clone(), detail };
            let found = self.get(node_type).ok_or_else(|| failed("there is no such type".into()))?;
            spawn(&found, count).await
        })
    }
}

//! Models of the catalog, put into service and out of it while the host runs.
//!
//! As with modules that are published, each is a node type of its own name that serves a model of its own name, with the limits, module and
//! tenant of one of the configuration's types. Models of the configuration have their types already; they are only loaded and unloaded.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use llambo_catalog::{CatalogError, Presence};
use llambo_config::{Config, KvType, ModelConfig, ModelSource, TypeConfig};
use llambo_edge::{LoadedModel, ModelDesk, ModelError, ModelStatus, Modules, UnloadedModel, WantedModel};
use llambo_inference::{ClusterEvent, EventKind, ModelName, Models, TypeName};
use llambo_isolate::{NodeType, Sandbox, TypeSettings};
use llambo_orchestrator::Cluster;
use llambo_shelf::{Shelf, ShelfError, Woken};
use tokio::{task, time::sleep};

use crate::{
    factory::{self, IsolateFactory},
    models::{self, Engines},
    plan::{PlannedModel, module, type_settings},
    publish::Publisher,
};

/// Memory for computed beginnings of a model that was loaded while the host runs: enough for the conversations of a few clients, and
/// little beside what a model takes.
const KV_MEMORY: u64 = 64 << 20;
/// Between two looks whether the nodes of a model that retires are gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Who loads and unloads models on this host.
pub(crate) struct Desk {
    config: Arc<Config>,
    sandbox: Arc<Sandbox>,
    factory: Arc<IsolateFactory>,
    cluster: Cluster,
    publisher: Arc<Publisher>,
    models: Models,
    shelf: Shelf,
    engines: Arc<Engines>,
    /// Models that came while the host ran, with their types.
    served: Mutex<BTreeMap<ModelName, Arc<NodeType>>>,
    /// One model comes or goes for good at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Desk {
    pub(crate) fn new(
        config: Arc<Config>,
        (sandbox, factory): (Arc<Sandbox>, Arc<IsolateFactory>),
        cluster: Cluster,
        publisher: Arc<Publisher>,
        (models, shelf, engines): (Models, Shelf, Arc<Engines>),
    ) -> Self {
        let (served, turn) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { config, sandbox, factory, cluster, publisher, models, shelf, engines, served, turn }
    }

    fn served(&self) -> MutexGuard<'_, BTreeMap<ModelName, Arc<NodeType>>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_permitted(&self) -> Result<(), ModelError> {
        if self.config.catalog.load {
            return Ok(());
        }
        let what = "this host lets nobody load or unload models".into();
        Err(ModelError::NotPermitted { what, remedy: "its configuration says so in `catalog.load`".into() })
    }

    /// The type whose limits the nodes of a new model take.
    fn permitted_type(&self, wanted: Option<&TypeName>) -> Result<&TypeConfig, ModelError> {
        let types = &self.config.catalog.types;
        let refused = |what: String| ModelError::NotPermitted { what, remedy: "`catalog.types` permits others".into() };
        let name = wanted.map(TypeName::as_str).or(types.first().map(String::as_str));
        let name = name.ok_or_else(|| refused("no type may be taken for models that are loaded".into()))?;
        let found = types.iter().find(|known| *known == name).and_then(|name| self.config.node_type(name));
        found.ok_or_else(|| refused(format!("a loaded model may not take type `{name}`, but: {}", types.join(", "))))
    }

    fn check_name(&self, name: &ModelName) -> Result<(), ModelError> {
        let taken = |whose| Err(ModelError::NameTaken { name: name.clone(), whose });
        if self.config.node_type(name.as_str()).is_some() {
            return taken("type");
        }
        if self.publisher.parent(name).is_some() {
            return taken("published module");
        }
        Ok(())
    }

    async fn bring(&self, wanted: WantedModel) -> Result<LoadedModel, ModelError> {
        self.check_permitted()?;
        let _turn = self.turn.lock().await;
        let woken = if self.shelf.status(&wanted.name).is_some() {
            check_no_wishes(&wanted)?;
            self.shelf.wake(&wanted.name).await.map_err(told)?
        } else {
            self.put_into_service(&wanted).await?
        };
        if !woken.was_awake {
            let reason = format!("asked for; it took {:.1} s", woken.took.as_secs_f64());
            self.tell(EventKind::ModelLoaded, &wanted.name, reason);
        }
        for gone in &woken.gone {
            self.tell(EventKind::ModelUnloaded, gone, format!("it made room for `{}`", wanted.name));
        }
        if wanted.pin {
            self.shelf.pin(&wanted.name, true).map_err(told)?;
        }
        Ok(LoadedModel { was_loaded: woken.was_awake, took: woken.took, unloaded: woken.gone })
    }

    /// Loads a model of the catalog and makes nodes for it. Nothing is changed when that fails.
    async fn put_into_service(&self, wanted: &WantedModel) -> Result<Woken, ModelError> {
        let name = &wanted.name;
        self.check_name(name)?;
        let of_type = self.permitted_type(wanted.node_type.as_ref())?;
        let config = self.config_of(wanted)?;
        let (all, model) = (Arc::clone(&self.config), config.clone());
        let planned = task::spawn_blocking(move || PlannedModel::of(&all, &model).map(|planned| planned.ram_bytes())).await;
        let unloadable = |why: String| told(ShelfError::Unloadable { model: name.clone(), why });
        let bytes = planned.map_err(|e| unloadable(e.to_string()))?.map_err(|e| unloadable(e.to_string()))?;
        let settings = TypeSettings {
            name: TypeName::from(name.as_str()),
            id_stem: name.to_string(),
            model: name.clone(),
            serves: name.clone(),
            bounds: None,
            expected: 0,
            // what its type may ask besides, and itself
            ..type_settings(&self.config, &TypeConfig { model: name.to_string(), ..of_type.clone() })
        };
        let code = module(of_type).map_err(|e| ModelError::Invalid(e.to_string()))?;
        let sandbox = Arc::clone(&self.sandbox);
        let made = task::spawn_blocking(move || sandbox.node_type(settings, code)).await;
        let made = made.map_err(|e| ModelError::Invalid(e.to_string()))?.map_err(|e| ModelError::Invalid(e.to_string()))?;
        self.engines.know(config);
        let (model, woken) = self.shelf.add(name, bytes).await.map_err(|error| {
            self.engines.forget(name);
            told(error)
        })?;
        self.models.insert(model);
        let count = wanted.count.unwrap_or(self.config.catalog.count);
        let spawned = async {
            let spawned = factory::spawn(&made, count).await?;
            self.factory.insert(Arc::clone(&made));
            Ok(spawned)
        };
        if let Err(error) = self.cluster.replace(&factory::info(&made), "a model was loaded", spawned).await {
            self.forget(name).await;
            return Err(error.into());
        }
        self.served().insert(name.clone(), made);
        tracing::info!(model = %name, count, bytes, "a model of the catalog is in service");
        Ok(woken)
    }

    /// How a model of the catalog is loaded.
    fn config_of(&self, wanted: &WantedModel) -> Result<ModelConfig, ModelError> {
        let catalog = &self.config.catalog;
        let unknown = |error: CatalogError| ModelError::Unknown(error.to_string());
        let homeless = || ModelError::Unknown("this host has no catalog: `catalog.file` or LLAMBO_CATALOG names one".into());
        let entry = models::register(&self.config).ok_or_else(homeless)?.get(wanted.name.as_str()).map_err(unknown)?;
        if entry.presence() == Presence::Missing {
            let why = format!("its file `{}` is gone", entry.path.display());
            return Err(told(ShelfError::Unloadable { model: wanted.name.clone(), why }));
        }
        let trained = llambo_catalog::Outline::read(&entry.path).map(|outline| outline.n_context);
        let trained = trained.map_err(|e| told(ShelfError::Unloadable { model: wanted.name.clone(), why: e.to_string() }))?;
        if let Some(asked) = wanted.context.filter(|asked| *asked > trained) {
            let what = format!("`context` is {asked}, but `{}` was trained for {trained}", wanted.name);
            return Err(ModelError::Invalid(what));
        }
        Ok(ModelConfig {
            name: wanted.name.to_string(),
            source: ModelSource::Catalog(wanted.name.to_string()),
            context: Some(wanted.context.unwrap_or(catalog.context.min(trained))),
            sequences: wanted.sequences.unwrap_or(catalog.sequences),
            threads: None,
            gpu_layers: catalog.gpu_layers,
            gpu_devices: catalog.gpu_devices.clone(),
            draft: None,
            draft_tokens: 1,
            kv_type: KvType::F16,
            embeddings: true,
            kv_memory_bytes: KV_MEMORY,
            kv_disk_bytes: 0,
        })
    }

    async fn send_away(&self, name: &ModelName, retire: bool) -> Result<UnloadedModel, ModelError> {
        self.check_permitted()?;
        if !retire {
            let freed_bytes = self.shelf.put_aside(name).await.map_err(told)?;
            if freed_bytes > 0 {
                self.tell(EventKind::ModelUnloaded, name, "asked for; the next request loads it again".into());
            }
            return Ok(UnloadedModel { freed_bytes, draining: 0 });
        }
        let _turn = self.turn.lock().await;
        if self.config.model(name.as_str()).is_some() {
            let what = format!("`{name}` is a model of the configuration, and stays in service");
            return Err(ModelError::NotPermitted { what, remedy: "unload it without retiring it".into() });
        }
        if self.shelf.status(name).is_some_and(|status| status.is_pinned) {
            return Err(told(ShelfError::Pinned { model: name.clone() }));
        }
        let made = self.served().get(name).cloned();
        let unknown = || ModelError::Unknown(format!("no model `{name}` is in service"));
        let made = made.ok_or_else(unknown)?;
        let type_name = &made.settings().name;
        let draining = self.cluster.retire(&factory::info(&made), || self.factory.remove(type_name)).await;
        // requests that are under way keep nodes and model until they end
        while self.cluster.n_nodes(type_name) > 0 {
            sleep(LOOK_EVERY).await;
        }
        self.served().remove(name);
        let freed_bytes = self.forget(name).await;
        tracing::info!(model = %name, freed_bytes, "a model is out of service");
        self.tell(EventKind::ModelUnloaded, name, "retired".into());
        Ok(UnloadedModel { freed_bytes, draining })
    }

    fn tell(&self, kind: EventKind, name: &ModelName, reason: String) {
        self.cluster.witness().tell(ClusterEvent::new(kind, name.to_string(), reason));
    }

    async fn forget(&self, name: &ModelName) -> u64 {
        self.models.remove(name);
        let freed = self.shelf.put_aside(name).await.unwrap_or(0);
        self.shelf.remove(name);
        self.engines.forget(name);
        freed
    }
}

/// What can be wished for a model that is not there yet, and would be passed over in silence for one that is.
fn check_no_wishes(wanted: &WantedModel) -> Result<(), ModelError> {
    let WantedModel { name, node_type, count, context, sequences, pin: _ } = wanted;
    let wished = [
        ("type", node_type.is_some()),
        ("count", count.is_some()),
        ("context", context.is_some()),
        ("sequences", sequences.is_some()),
    ];
    let Some((field, _)) = wished.into_iter().find(|(_, is_wished)| *is_wished) else { return Ok(()) };
    let what =
        format!("`{name}` is in service as it is, and `{field}` is for one that is not; retire it first, or leave `{field}` out");
    Err(ModelError::Invalid(what))
}

#[expect(clippy::needless_pass_by_value, reason = "handed to `map_err` by name")]
fn told(error: ShelfError) -> ModelError {
    ModelError::Shelf { reason: error.reason(), message: error.to_string() }
}

impl ModelDesk for Desk {
    fn status(&self, name: &ModelName) -> Option<ModelStatus> {
        let status = self.shelf.status(name)?;
        Some(ModelStatus { state: status.stage.as_str(), is_pinned: status.is_pinned, memory_bytes: status.bytes })
    }

    fn load(&self, wanted: WantedModel) -> BoxFuture<'_, Result<LoadedModel, ModelError>> {
        Box::pin(self.bring(wanted))
    }

    fn unload(&self, name: ModelName, retire: bool) -> BoxFuture<'_, Result<UnloadedModel, ModelError>> {
        Box::pin(async move { self.send_away(&name, retire).await })
    }

    fn pin(&self, name: ModelName, is_pinned: bool) -> Result<(), ModelError> {
        self.check_permitted()?;
        self.shelf.pin(&name, is_pinned).map_err(told)
    }
}

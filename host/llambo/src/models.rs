//! Loading models: those that the configuration names, and those that come back.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use llambo_catalog::{Register, available_bytes, environment};
use llambo_config::{Config, ModelConfig};
use llambo_inference::{InferenceEngine, ModelName, Models, TokenHooks};
use llambo_llama::{DraftSettings, EngineSettings, LlamaEngine};
use llambo_shelf::{Loader, Settings, Shelf};

use crate::{
    Failure,
    plan::{Plan, PlannedModel, Size, kv_type, n_cores},
    serve::cache_folder,
};

/// Loads models by name, the first time and again.
pub(crate) struct Engines {
    config: Arc<Config>,
    hooks: Arc<dyn TokenHooks>,
    /// How each is loaded.
    known: Mutex<BTreeMap<ModelName, ModelConfig>>,
}

/// Loads every model of the configuration, one after the other. Blocks.
pub(crate) fn load(
    config: &Arc<Config>,
    plan: &mut Plan,
    hooks: &Arc<dyn TokenHooks>,
) -> Result<(Models, Shelf, Arc<Engines>), Failure> {
    let engines = Engines { config: Arc::clone(config), hooks: Arc::clone(hooks), known: Mutex::default() };
    let engines = Arc::new(engines);
    let settings = Settings { memory_bytes: config.catalog.memory_bytes, wait: config.catalog.wait };
    let shelf = Shelf::new(settings, Arc::clone(&engines) as Arc<dyn Loader>);
    let needed: u64 = plan.models.iter().map(PlannedModel::ram_bytes).sum();
    if let Some(limit) = config.catalog.memory_bytes.filter(|limit| needed > *limit) {
        let (needed, limit) = (Size(needed), Size(limit));
        let what = format!("`models` take {needed} of memory, and `catalog.memory` is {limit}; raise it, or name fewer of them");
        return Err(Failure::Machine(what));
    }
    let models = Models::default();
    for (model, planned) in config.models.iter().zip(&mut plan.models) {
        let bytes = planned.ram_bytes();
        let engine = engines
            .engine(model, planned)
            .map_err(|error| Failure::Machine(format!("model `{}` cannot be loaded: {error}", model.name)))?;
        engines.know(model.clone());
        models.insert(shelf.insert(engine, bytes));
    }
    Ok((models, shelf, engines))
}

/// The catalog of this host.
pub(crate) fn register(config: &Config) -> Option<Register> {
    let named = config.catalog.file.as_ref().map(|path| Register::at(&path.resolved));
    named.or_else(|| Register::of(&environment))
}

// === impl Engines ===

impl Engines {
    /// From now on a model is loaded so.
    pub(crate) fn know(&self, model: ModelConfig) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(ModelName::from(&model.name), model);
    }

    pub(crate) fn forget(&self, name: &ModelName) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn engine(&self, model: &ModelConfig, planned: &mut PlannedModel) -> Result<Arc<dyn InferenceEngine>, String> {
        let began = Instant::now();
        let file = planned.file.take().ok_or("its file is not open")?;
        let draft = planned.draft.take().map(|file| DraftSettings { file, n_tokens: model.draft_tokens });
        let engine = LlamaEngine::load(&file, &EngineSettings { draft, ..settings(&self.config, model) });
        let engine = engine.map_err(|error| error.to_string())?;
        let info = engine.info();
        tracing::info!(
            model = %info.name,
            path = %file.path().display(),
            n_params = info.n_params,
            n_context = info.n_context,
            n_sequences = info.n_sequences,
            digest = info.digest,
            load_ms = began.elapsed().as_millis(),
            "model loaded"
        );
        Ok(Arc::new(engine.with_hooks(Arc::clone(&self.hooks))))
    }
}

impl Loader for Engines {
    fn load(&self, name: &ModelName) -> Result<Arc<dyn InferenceEngine>, String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let model = known.ok_or("nobody knows how")?;
        let mut planned = PlannedModel::of(&self.config, &model).map_err(|error| error.to_string())?;
        self.engine(&model, &mut planned)
    }

    fn available_bytes(&self) -> Option<u64> {
        available_bytes()
    }
}

fn settings(config: &Config, model: &ModelConfig) -> EngineSettings {
    EngineSettings {
        n_context: model.context,
        n_sequences: model.sequences,
        // every request the host lets in may ask this model, an agent for as many sequences as it may have
        n_waiting: config.queue.max_in_flight.saturating_mul(16),
        n_threads: model.threads.unwrap_or_else(n_cores),
        n_gpu_layers: model.gpu_layers,
        devices: model.gpu_devices.clone(),
        kv_type: kv_type(model),
        embeddings: model.embeddings,
        kv_memory_bytes: model.kv_memory_bytes,
        kv_disk_bytes: model.kv_disk_bytes,
        kv_allowances: config.tenants.iter().filter_map(|t| Some((t.name.as_str().into(), t.max_kept_kv_bytes?))).collect(),
        kv_folder: config.cache.kv.as_ref().map(|path| path.resolved.clone()).or_else(|| cache_folder("kv")),
        stall_timeout: config.network.client_stall_timeout,
        ..EngineSettings::new(&model.name)
    }
}

//! Loading what the configuration names.

use std::{sync::Arc, time::Instant};

use llambo_config::{Config, ModelConfig};
use llambo_inference::{InferenceEngine, Models, TokenHooks};
use llambo_llama::{DraftSettings, EngineSettings, LlamaEngine};

use crate::{
    Failure,
    plan::{Plan, kv_type, n_cores},
    serve::cache_folder,
};

/// Loads every model, one after the other. Blocks.
pub(crate) fn load(config: &Config, plan: &mut Plan, hooks: &Arc<dyn TokenHooks>) -> Result<Models, Failure> {
    let models = Models::default();
    for (model, planned) in config.models.iter().zip(&mut plan.models) {
        let Some(file) = planned.file.take() else { continue };
        let began = Instant::now();
        let draft = planned.draft.take().map(|file| DraftSettings { file, n_tokens: model.draft_tokens });
        let engine = LlamaEngine::load(&file, &EngineSettings { draft, ..settings(config, model) })
            .map_err(|error| Failure::Machine(format!("model `{}` cannot be loaded: {error}", model.name)))?;
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
        models.insert(Arc::new(engine.with_hooks(Arc::clone(hooks))));
    }
    Ok(models)
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

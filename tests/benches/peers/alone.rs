//! llambo's own parts, started in this process or as a host.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use llambo_catalog::{Builtin, ModelFile};
use llambo_inference::{InferenceEngine, Models};
use llambo_isolate::{Module, Sandbox, TypeSettings};
use llambo_llama::{DraftSettings, EngineSettings, LlamaEngine};

use llambo_tests::guest;

use crate::target::Target;

/// The model file, wherever it is.
pub(crate) fn file(model: &str) -> ModelFile {
    let file = match model {
        "builtin:demo" => Builtin::Demo.unpack(),
        "builtin:demo-small" => Builtin::DemoSmall.unpack(),
        path => ModelFile::open(path.as_ref()),
    };
    file.unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn engine(model: &str, n_sequences: u32, n_context: u32, n_threads: u32) -> Arc<LlamaEngine> {
    engine_with(model, n_sequences, n_context, n_threads, None)
}

/// With a smaller model that guesses ahead.
pub(crate) fn engine_with(
    model: &str,
    n_sequences: u32,
    n_context: u32,
    n_threads: u32,
    draft: Option<&String>,
) -> Arc<LlamaEngine> {
    let settings = EngineSettings {
        draft: draft.map(|draft| DraftSettings { file: file(draft), n_tokens: 4 }),
        n_sequences,
        n_context: Some(n_context),
        n_threads,
        kv_memory_bytes: 1 << 30,
        embeddings: false,
        ..EngineSettings::new("model")
    };
    Arc::new(LlamaEngine::load(&file(model), &settings).unwrap_or_else(|e| panic!("{e}")))
}

/// `n` isolates with the default guest, which ask `engine`.
pub(crate) async fn isolates(engine: Arc<LlamaEngine>, n: u32) -> Target {
    let models = Models::default();
    let model = engine.info().name.clone();
    models.insert(engine);
    let sandbox = Sandbox::new(models, None).unwrap();
    let settings = TypeSettings { expected: n, ..TypeSettings::new("tiny", model.as_str()) };
    let isolates = sandbox.node_type(settings, Module::default_engine()).unwrap().spawn(n).await.unwrap().isolates;
    Target::Isolates(Mutex::new(isolates))
}

/// What a host is started with: as many sequences and more isolates than clients.
pub(crate) fn config(path: &Path, n_sequences: u32, n_context: u32, n_threads: u32) -> String {
    format!(
        "models: [{{name: model, path: {:?}, sequences: {n_sequences}, context: {n_context}, threads: {n_threads}, kv-memory: 1GB}}]\n\
         types: {{tiny: {{count: {}}}, best: {{count: 1, module: '{}'}}}}\n",
        path.display().to_string(),
        2 * n_sequences,
        guest("best-of").display()
    )
}

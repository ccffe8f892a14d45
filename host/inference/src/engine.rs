use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    AnswerStream, ExtendRequest, GenerateRequest, InferenceError, MeasureFuture, MeasureRequest, ModelName, Prompt, Sampling,
    TenantName, TokenId,
};

/// Decodes the sequences of one loaded model, all in one batch. Shared by everyone who asks that model.
pub trait InferenceEngine: Send + Sync + 'static {
    /// Starts one sequence. Never blocks.
    ///
    /// # Errors
    /// [`InferenceError::Full`] or [`InferenceError::Stopped`]; what is wrong with the request itself may come here or as
    /// the stream's first item.
    fn submit(&self, request: GenerateRequest) -> Result<AnswerStream, InferenceError>;

    /// The mean of `text`'s token embeddings, scaled to length 1.
    fn embed(&self, text: String) -> EmbedFuture;

    /// The tokens of a prompt, as `submit` would read it. Takes as long as reading it does.
    ///
    /// # Errors
    /// The same as those of `submit` about its prompt.
    fn tokens(&self, prompt: &Prompt) -> Result<Vec<TokenId>, InferenceError>;

    /// The tokens of a text that stands within another.
    ///
    /// # Errors
    /// It is too long for the model.
    fn tokens_within(&self, text: &str) -> Result<Vec<TokenId>, InferenceError>;

    /// The text of tokens, as bytes: a token may be a part of a character. Tokens that show nothing, or that are not in the vocabulary, are empty.
    fn bytes_of(&self, tokens: &[TokenId]) -> Vec<u8>;

    /// Starts one sequence that goes on with tokens. Never blocks.
    ///
    /// # Errors
    /// As for `submit`.
    fn extend(&self, request: ExtendRequest) -> Result<AnswerStream, InferenceError>;

    /// How likely a text is, token by token, and what could follow it.
    fn measure(&self, request: MeasureRequest) -> MeasureFuture;

    /// A copy of what is kept of the beginning of `tokens`, to be taken elsewhere; `None` when nothing is.
    fn export(&self, tenant: TenantName, tokens: Vec<TokenId>) -> ExportFuture {
        let _ = (tenant, tokens);
        Box::pin(async { Ok(None) })
    }

    /// Keeps what [`Self::export`] gave. False when it is of another model or build, or when there is no room for it: it will be computed
    /// again.
    fn import(&self, tenant: TenantName, state: KeptState) -> ImportFuture {
        let _ = (tenant, state);
        Box::pin(async { Ok(false) })
    }

    /// What is loaded.
    fn info(&self) -> &ModelInfo;

    /// Load now.
    fn load(&self) -> EngineLoad;
}

/// An embedding under way. Dropping it gives it up.
pub type EmbedFuture = Pin<Box<dyn Future<Output = Result<Embedding, InferenceError>> + Send>>;

/// A copy under way.
pub type ExportFuture = Pin<Box<dyn Future<Output = Result<Option<KeptState>, InferenceError>> + Send>>;

/// A copy on its way back.
pub type ImportFuture = Pin<Box<dyn Future<Output = Result<bool, InferenceError>> + Send>>;

/// What a model computed for some tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptState {
    /// Names the model, the build and the kind of cache that can use it.
    pub kind: String,
    /// What it was computed for.
    pub tokens: Vec<TokenId>,
    /// Keys and values, as that build has them.
    pub bytes: Vec<u8>,
}

/// A text as a point.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// `[n_embd]` f32, length 1.
    pub values: Vec<f32>,
    /// Tokens read.
    pub input_tokens: u32,
}

/// A loaded model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// What clients call it.
    pub name: ModelName,
    /// `general.architecture` of the file, for example `llama`.
    pub architecture: String,
    /// Parameters.
    pub n_params: u64,
    /// Bytes of the weights.
    pub size_bytes: u64,
    /// Tokens in the vocabulary.
    pub n_vocab: u32,
    /// Dimensions of an embedding.
    pub n_embd: u32,
    /// Tokens of prompt and answer together, for each sequence.
    pub n_context: u32,
    /// Sequences decoded together at most.
    pub n_sequences: u32,
    /// Bytes of KV cache that a token takes.
    pub kv_bytes_per_token: u64,
    /// SHA-256 of the file, lower-case hex.
    pub digest: String,
    /// What options that a request leaves out are taken from.
    pub sampling: Sampling,
}

/// A snapshot of an engine's load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineLoad {
    /// Sequences in the batch now.
    pub n_running: u32,
    /// Sequences that wait for a place in it.
    pub n_waiting: u32,
    /// Tokens of KV cache in use.
    pub n_kv_used: u64,
    /// Tokens of KV cache there are.
    pub n_kv_total: u64,
    /// Prompt tokens computed since the start.
    pub n_prompt_tokens: u64,
    /// Tokens generated since the start.
    pub n_generated_tokens: u64,
    /// Tokens since the start that were there already and did not have to be computed.
    pub n_cached_tokens: u64,
    /// Bytes of keys and values kept in memory, outside of the KV cache.
    pub kv_memory_bytes: u64,
    /// The same on disk.
    pub kv_disk_bytes: u64,
}

/// The engines of this host by model name. Clones share one table.
#[derive(Clone, Default)]
pub struct Models {
    engines: Arc<RwLock<BTreeMap<ModelName, Arc<dyn InferenceEngine>>>>,
    /// The names that may be asked for; `None`: all.
    only: Option<Arc<[ModelName]>>,
}

impl Models {
    /// Adds or replaces the engine of its model's name.
    pub fn insert(&self, engine: Arc<dyn InferenceEngine>) {
        let name = engine.info().name.clone();
        self.engines.write().unwrap_or_else(PoisonError::into_inner).insert(name, engine);
    }

    /// Takes a model away from new requests. Its weights are freed when the last stream on it ends.
    pub fn remove(&self, name: &ModelName) -> Option<Arc<dyn InferenceEngine>> {
        self.engines.write().unwrap_or_else(PoisonError::into_inner).remove(name)
    }

    /// The same table for those who may ask these models alone: to them the others are not there.
    #[must_use]
    pub fn only(&self, names: &[ModelName]) -> Self {
        Self { engines: Arc::clone(&self.engines), only: Some(names.into()) }
    }

    /// The engine of that model.
    ///
    /// # Errors
    /// [`InferenceError::UnknownModel`] with the names there are.
    pub fn get(&self, name: &ModelName) -> Result<Arc<dyn InferenceEngine>, InferenceError> {
        let engines = self.engines.read().unwrap_or_else(PoisonError::into_inner);
        engines.get(name).filter(|_| self.has(name)).cloned().ok_or_else(|| {
            let loaded = engines.keys().filter(|name| self.has(name)).cloned().collect();
            InferenceError::UnknownModel { model: name.clone(), loaded }
        })
    }

    /// All engines, by name.
    pub fn all(&self) -> Vec<Arc<dyn InferenceEngine>> {
        let engines = self.engines.read().unwrap_or_else(PoisonError::into_inner);
        engines.iter().filter(|(name, _)| self.has(name)).map(|(_, engine)| Arc::clone(engine)).collect()
    }

    fn has(&self, name: &ModelName) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(name))
    }
}

//! From a file to a loaded model with all that is computed once: pieces, template, constraints, default sampling.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use llambo_catalog::{GgufHeader, ModelFile};
use llambo_inference::{ModelInfo, ModelName, Prompt, Sampling, SamplingOptions, TenantName};

use crate::{
    chat::ChatTemplate,
    constraint::Constraints,
    draft::{DraftSettings, Drafter},
    error::LlamaError,
    ffi::{self, Model, Token},
    kv::disk::{Fingerprint, fingerprint},
};

/// A text that no tokenizer joins with what follows.
const BEFORE: &str = "\n";

/// How a model is loaded and served.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// What clients call it.
    pub name: ModelName,
    /// Tokens of prompt and answer for each sequence; `None`: what the model was trained for.
    pub n_context: Option<u32>,
    /// Sequences decoded together, 1 to [`crate::max_sequences`].
    pub n_sequences: u32,
    /// Requests that may wait for a sequence; more are refused as full.
    pub n_waiting: u32,
    /// Threads that compute, the engine's own among them.
    pub n_threads: u32,
    /// Layers put onto GPUs, where there are any.
    pub n_gpu_layers: u32,
    /// Names of the GPUs that these may be put onto; empty: all there are. See [`crate::devices`].
    pub devices: Vec<String>,
    /// A smaller model that guesses ahead while few sequences are decoded.
    pub draft: Option<DraftSettings>,
    /// How keys and values are kept.
    pub kv_type: KvType,
    /// Memory for keys and values of what may go on: finished prompts, conversations between two turns, sequences that wait
    /// for their turn.
    pub kv_memory_bytes: u64,
    /// The same on disk, for what memory has no room for.
    pub kv_disk_bytes: u64,
    /// Of both together, the bytes that each of these tenants may hold.
    pub kv_allowances: HashMap<TenantName, u64>,
    /// Where on disk; `None` keeps nothing there.
    pub kv_folder: Option<PathBuf>,
    /// Whether it also answers embedding requests.
    pub embeddings: bool,
    /// A reader that takes nothing for this long is given up.
    pub stall_timeout: Duration,
}

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// 16-bit floats.
    #[default]
    F16,
    /// 8-bit blocks: half the memory, slower.
    Q8,
}

impl KvType {
    /// Of what takes so many bytes as 16-bit floats.
    pub fn bytes(self, as_f16: u64) -> u64 {
        match self {
            Self::F16 => as_f16,
            // 32 values in 34 bytes
            Self::Q8 => as_f16 / 64 * 34,
        }
    }
}

impl EngineSettings {
    /// 64 sequences on all cores.
    pub fn new(name: impl Into<ModelName>) -> Self {
        let n_threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            name: name.into(),
            n_context: None,
            n_sequences: 64,
            n_waiting: 1024,
            n_threads: u32::try_from(n_threads).unwrap_or(1),
            n_gpu_layers: 0,
            devices: Vec::new(),
            draft: None,
            kv_type: KvType::F16,
            kv_memory_bytes: 256 << 20,
            kv_disk_bytes: 0,
            kv_allowances: HashMap::new(),
            kv_folder: None,
            embeddings: true,
            stall_timeout: Duration::from_mins(1),
        }
    }
}

/// A model and what is derived from it, shared by the engine's thread and those who submit.
pub(crate) struct LoadedModel {
    pub(crate) model: Arc<Model>,
    pub(crate) info: ModelInfo,
    pub(crate) template: ChatTemplate,
    pub(crate) constraints: Constraints,
    /// The bytes of every token; control tokens are empty.
    pub(crate) pieces: Vec<Box<[u8]>>,
    longest_piece: usize,
    pub(crate) embeddings: bool,
    /// Which copies of keys and values it can use: of this model, this build and this kind of cache.
    pub(crate) kv_kind: Fingerprint,
    /// The smaller model, and how many tokens it guesses at a time.
    pub(crate) draft: Option<(Arc<Model>, u32)>,
}

impl LoadedModel {
    pub(crate) fn load(file: &ModelFile, settings: &EngineSettings) -> Result<Self, LlamaError> {
        let limit = ffi::max_sequences();
        if !(1..=limit).contains(&settings.n_sequences) {
            return Err(LlamaError::Settings(format!("`sequences` is {}, but must be 1 to {limit}", settings.n_sequences)));
        }
        let layers = i32::try_from(settings.n_gpu_layers).unwrap_or(i32::MAX);
        let model = Arc::new(Model::load(file.path(), layers, &settings.devices)?);
        if !model.is_decoder_only() {
            return Err(LlamaError::NotADecoder { path: file.path().into() });
        }
        let trained = model.n_context_trained().max(1);
        let n_context = settings.n_context.unwrap_or(trained);
        if n_context > trained {
            return Err(LlamaError::Settings(format!(
                "`context` is {n_context}, but `{}` was trained for {trained}; lower it",
                settings.name
            )));
        }
        let text =
            |token: Option<Token>| token.map(|t| String::from_utf8_lossy(&model.piece(t, true)).into_owned()).unwrap_or_default();
        let source = file.header().text("tokenizer.chat_template");
        let template = ChatTemplate::new(source, text(model.bos()), text(model.eos()))?;
        let n_vocab = i32::try_from(model.n_vocab()).unwrap_or(i32::MAX);
        let pieces: Vec<Box<[u8]>> = (0..n_vocab).map(|t| model.piece(t, false).into_boxed_slice()).collect();
        // written-out control tokens are longer than what they show
        let longest_piece = (0..n_vocab).map(|t| model.piece(t, true).len()).max().unwrap_or(1).max(1);
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let info = ModelInfo {
            name: settings.name.clone(),
            architecture: file.header().architecture().unwrap_or_default().to_owned(),
            n_params: model.n_params(),
            size_bytes: model.size_bytes(),
            n_vocab: narrow(model.n_vocab()),
            n_embd: narrow(model.n_embd()),
            n_context,
            n_sequences: settings.n_sequences,
            kv_bytes_per_token: settings.kv_type.bytes(file.header().kv_bytes_per_token()),
            digest: file.digest().to_owned(),
            sampling: default_sampling(file.header()),
        };
        let draft = settings.draft.as_ref();
        let draft = draft.map(|d| Drafter::load(d, &model, settings, n_context).map(|model| (model, d.n_tokens))).transpose()?;
        let cache = if settings.kv_type == KvType::Q8 { "q8_0" } else { "f16" };
        Ok(Self {
            draft,
            kv_kind: fingerprint(&[&info.digest, cache]),
            constraints: Constraints::new(&model)?,
            model,
            info,
            template,
            pieces,
            longest_piece,
            embeddings: settings.embeddings,
        })
    }

    /// The tokens of a prompt. A text that cannot fit is refused without looking at all of it.
    pub(crate) fn tokens(&self, prompt: &Prompt) -> Result<Vec<Token>, llambo_inference::InferenceError> {
        use llambo_inference::InferenceError as Error;
        let (text, parse_special) = match prompt {
            Prompt::Text(text) => (std::borrow::Cow::Borrowed(text.as_str()), false),
            Prompt::Chat(messages) if messages.is_empty() => {
                return Err(Error::InvalidRequest("the conversation has no messages; send at least one".into()));
            }
            Prompt::Chat(messages) => (self.template.render(messages).map_err(Error::InvalidRequest)?.into(), true),
        };
        let n_context = self.info.n_context;
        let too_long = |n_prompt: u64| Error::PromptTooLong { model: self.info.name.clone(), n_prompt, n_context };
        // no token is longer than `longest_piece`, so this many there are at least
        let at_least = text.len() / self.longest_piece;
        if at_least >= n_context as usize {
            return Err(too_long(at_least as u64));
        }
        let tokens = self.model.tokenize(&text, true, parse_special)?;
        // one place is left for the first generated token
        if tokens.len() >= n_context as usize {
            return Err(too_long(tokens.len() as u64));
        }
        if tokens.is_empty() {
            return Err(Error::InvalidRequest("the prompt is empty; send some text".into()));
        }
        Ok(tokens)
    }
}

impl LoadedModel {
    /// The tokens of a text that stands behind another one.
    pub(crate) fn tokens_within(&self, text: &str) -> Result<Vec<Token>, llambo_inference::InferenceError> {
        let n_context = self.info.n_context;
        if text.len() / self.longest_piece >= n_context as usize {
            let (model, n_prompt) = (self.info.name.clone(), (text.len() / self.longest_piece) as u64);
            return Err(llambo_inference::InferenceError::PromptTooLong { model, n_prompt, n_context });
        }
        // some tokenizers put a space before whatever they are given first: this line goes first, and is taken away again
        let before = self.model.tokenize(BEFORE, false, false)?;
        let mut tokens = self.model.tokenize(&format!("{BEFORE}{text}"), false, false)?;
        if !before.is_empty() && tokens.starts_with(&before) {
            tokens.drain(..before.len());
            return Ok(tokens);
        }
        Ok(self.model.tokenize(text, false, false)?)
    }
}

/// What the file recommends (`general.sampling.*`), within the ranges that requests have.
fn default_sampling(header: &GgufHeader) -> Sampling {
    #[expect(clippy::cast_possible_truncation, reason = "sampling options are f32 everywhere")]
    let float = |key: &str| header.float(&format!("general.sampling.{key}")).map(|x| x as f32);
    let options = SamplingOptions {
        temperature: float("temp"),
        top_k: header.number("general.sampling.top_k").and_then(|n| u32::try_from(n).ok()),
        top_p: float("top_p"),
        min_p: float("min_p"),
        repeat_penalty: float("penalty_repeat"),
        ..SamplingOptions::default()
    };
    options.resolve(&Sampling::default()).unwrap_or_default()
}

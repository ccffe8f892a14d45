//! The only place that calls llama.cpp: every `unsafe` of this crate.
//!
//! Thin and safe: each call checks what ggml would abort the process over (token ids, positions, batch sizes, sequence
//! ids). A [`Model`] is immutable and may be read from any thread; a [`Context`] is made and used on one thread only and
//! cannot leave it.
#![expect(unsafe_code, reason = "the boundary to llama.cpp")]

use std::{
    ffi::{CStr, CString, c_char, c_void},
    path::Path,
    ptr::{self, NonNull},
    sync::{Arc, Mutex, Once, PoisonError},
};

use llama_cpp_sys_2 as sys;

use crate::error::LlamaError;

/// A token id of a model's vocabulary.
pub(crate) type Token = i32;

/// Loaded weights and vocabulary.
pub(crate) struct Model {
    model: NonNull<sys::llama_model>,
    vocab: NonNull<sys::llama_vocab>,
    n_vocab: usize,
}

// SAFETY: after loading, llama.cpp only reads a model and its vocabulary; all methods take `&self` and only read.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

/// Keys, values and compute buffers of up to `n_sequences` sequences.
pub(crate) struct Context {
    context: NonNull<sys::llama_context>,
    memory: sys::llama_memory_t,
    model: Arc<Model>,
    n_batch: usize,
    n_sequences: usize,
    n_context: usize,
    n_outputs: usize,
    pooled: bool,
}

/// What a [`Context`] is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContextParams {
    pub(crate) n_sequences: u32,
    /// Tokens for each sequence.
    pub(crate) n_context: u32,
    pub(crate) n_batch: u32,
    pub(crate) n_threads: i32,
    pub(crate) kv_q8: bool,
    /// Mean-pooled embeddings instead of logits.
    pub(crate) pooled: bool,
}

/// Tokens of one call to decode. Capacity is kept between calls.
#[derive(Default)]
pub(crate) struct Batch {
    tokens: Vec<Token>,
    positions: Vec<i32>,
    sequences: Vec<i32>,
    outputs: Vec<i8>,
    counts: Vec<i32>,
    pointers: Vec<*mut i32>,
}

/// A GBNF grammar at some point of a text.
pub(crate) struct Grammar {
    sampler: NonNull<sys::llama_sampler>,
    /// The sampler reads the vocabulary.
    _model: Arc<Model>,
}

// SAFETY: a grammar sampler is plain memory that one owner uses at a time; it refers only to the immutable vocabulary.
unsafe impl Send for Grammar {}

/// The last error llama.cpp logged: the only place where it tells why loading failed.
static LAST_ERROR: Mutex<String> = Mutex::new(String::new());

unsafe extern "C" fn on_log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    // SAFETY: llama.cpp passes a NUL-terminated string that lives for this call.
    let line = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let line = line.trim();
    match level {
        sys::GGML_LOG_LEVEL_ERROR => {
            *LAST_ERROR.lock().unwrap_or_else(PoisonError::into_inner) = line.to_owned();
            tracing::warn!(target: "llama.cpp", line, "llama.cpp reports an error");
        }
        sys::GGML_LOG_LEVEL_WARN => tracing::debug!(target: "llama.cpp", line, "warning"),
        _ => tracing::trace!(target: "llama.cpp", line, "log"),
    }
}

fn initialize() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: called once, before any other call; the callback lives as long as the program.
        unsafe {
            sys::llama_log_set(Some(on_log), ptr::null_mut());
            sys::llama_backend_init();
        }
    });
}

/// llama.cpp's account of the CPU features and backends it was built with and found.
pub fn system_info() -> String {
    initialize();
    // SAFETY: returns a pointer to a static, NUL-terminated string.
    unsafe { CStr::from_ptr(sys::llama_print_system_info()) }.to_string_lossy().into_owned()
}

/// Sequences that llama.cpp was compiled to hold in one context.
pub fn max_sequences() -> u32 {
    // SAFETY: returns a constant.
    u32::try_from(unsafe { sys::llama_max_parallel_sequences() }).unwrap_or(u32::MAX)
}

// === impl Model ===

impl Model {
    /// Loads the file at `path`, mapped into memory, `n_gpu_layers` of it onto GPUs where there are any.
    pub(crate) fn load(path: &Path, n_gpu_layers: i32) -> Result<Self, LlamaError> {
        initialize();
        let fail = |problem: String| LlamaError::Load { path: path.into(), problem };
        let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|e| fail(e.to_string()))?;
        LAST_ERROR.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // SAFETY: default parameters are valid; `name` lives for the call.
        let model = unsafe {
            let mut params = sys::llama_model_default_params();
            params.n_gpu_layers = n_gpu_layers;
            sys::llama_model_load_from_file(name.as_ptr(), params)
        };
        let model = NonNull::new(model).ok_or_else(|| fail(LAST_ERROR.lock().unwrap_or_else(PoisonError::into_inner).clone()))?;
        // SAFETY: `model` was just loaded; its vocabulary lives as long as it does.
        let (vocab, n_vocab) = unsafe {
            let vocab = sys::llama_model_get_vocab(model.as_ptr());
            (vocab, sys::llama_vocab_n_tokens(vocab))
        };
        let vocab = NonNull::new(vocab.cast_mut()).ok_or_else(|| fail("it has no vocabulary".into()))?;
        Ok(Self { model, vocab, n_vocab: usize::try_from(n_vocab).unwrap_or(0) })
    }

    fn vocab(&self) -> *const sys::llama_vocab {
        self.vocab.as_ptr()
    }

    pub(crate) fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    pub(crate) fn n_embd(&self) -> usize {
        // SAFETY: `self.model` is loaded.
        usize::try_from(unsafe { sys::llama_model_n_embd_out(self.model.as_ptr()) }).unwrap_or(0)
    }

    pub(crate) fn n_context_trained(&self) -> u32 {
        // SAFETY: `self.model` is loaded.
        u32::try_from(unsafe { sys::llama_model_n_ctx_train(self.model.as_ptr()) }).unwrap_or(0)
    }

    pub(crate) fn n_params(&self) -> u64 {
        // SAFETY: `self.model` is loaded.
        unsafe { sys::llama_model_n_params(self.model.as_ptr()) }
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        // SAFETY: `self.model` is loaded.
        unsafe { sys::llama_model_size(self.model.as_ptr()) }
    }

    /// Encoder-decoder and encoder-only models cannot be continued token by token here.
    pub(crate) fn is_decoder_only(&self) -> bool {
        // SAFETY: `self.model` is loaded.
        unsafe { sys::llama_model_has_decoder(self.model.as_ptr()) && !sys::llama_model_has_encoder(self.model.as_ptr()) }
    }

    /// Whether `token` ends a text or a turn.
    pub(crate) fn is_end(&self, token: Token) -> bool {
        // SAFETY: ids outside the vocabulary are answered with false before the call.
        self.has(token) && unsafe { sys::llama_vocab_is_eog(self.vocab(), token) }
    }

    pub(crate) fn is_control(&self, token: Token) -> bool {
        // SAFETY: as in `is_end`.
        self.has(token) && unsafe { sys::llama_vocab_is_control(self.vocab(), token) }
    }

    pub(crate) fn bos(&self) -> Option<Token> {
        // SAFETY: the vocabulary lives as long as the model.
        Some(unsafe { sys::llama_vocab_bos(self.vocab()) }).filter(|&t| self.has(t))
    }

    pub(crate) fn eos(&self) -> Option<Token> {
        // SAFETY: the vocabulary lives as long as the model.
        Some(unsafe { sys::llama_vocab_eos(self.vocab()) }).filter(|&t| self.has(t))
    }

    fn has(&self, token: Token) -> bool {
        usize::try_from(token).is_ok_and(|t| t < self.n_vocab)
    }

    /// The bytes a token stands for; control tokens are empty unless `special`.
    pub(crate) fn piece(&self, token: Token, special: bool) -> Vec<u8> {
        if !self.has(token) {
            return Vec::new();
        }
        let mut out = vec![0u8; 32];
        loop {
            let room = i32::try_from(out.len()).unwrap_or(i32::MAX);
            // SAFETY: `out` has `room` bytes; the token is in the vocabulary.
            let n = unsafe { sys::llama_token_to_piece(self.vocab(), token, out.as_mut_ptr().cast(), room, 0, special) };
            match usize::try_from(n) {
                Ok(n) => {
                    out.truncate(n);
                    return out;
                }
                Err(_) => out.resize(n.unsigned_abs() as usize, 0),
            }
        }
    }

    /// The tokens of `text`, with the model's begin-of-text where it wants one. `parse_special` reads control tokens
    /// written out in the text, as chat templates write them.
    pub(crate) fn tokenize(&self, text: &str, parse_special: bool) -> Result<Vec<Token>, LlamaError> {
        let too_long = || LlamaError::TextTooLong { n_bytes: text.len() };
        let len = i32::try_from(text.len()).map_err(|_| too_long())?;
        let mut out: Vec<Token> = vec![0; text.len() / 2 + 16];
        loop {
            let room = i32::try_from(out.len()).map_err(|_| too_long())?;
            // SAFETY: `text` has `len` bytes and `out` has room for `room` tokens.
            let n = unsafe {
                sys::llama_tokenize(self.vocab(), text.as_ptr().cast(), len, out.as_mut_ptr(), room, true, parse_special)
            };
            match usize::try_from(n) {
                Ok(n) => {
                    out.truncate(n);
                    return Ok(out);
                }
                Err(_) if n == i32::MIN => return Err(too_long()),
                Err(_) => out.resize(n.unsigned_abs() as usize, 0),
            }
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: loaded once, freed once; contexts and grammars hold an `Arc` of it.
        unsafe { sys::llama_model_free(self.model.as_ptr()) }
    }
}

// === impl Context ===

impl Context {
    pub(crate) fn new(model: &Arc<Model>, params: ContextParams) -> Result<Self, LlamaError> {
        let n_cells = u64::from(params.n_context) * u64::from(params.n_sequences);
        let fail = || LlamaError::Context { n_sequences: params.n_sequences, n_context: params.n_context };
        // SAFETY: default parameters are valid, the model is loaded.
        let context = unsafe {
            let mut p = sys::llama_context_default_params();
            p.n_ctx = u32::try_from(n_cells).map_err(|_| fail())?;
            p.n_batch = params.n_batch;
            p.n_ubatch = if params.pooled { params.n_batch } else { params.n_batch.min(512) };
            p.n_seq_max = params.n_sequences;
            p.n_threads = params.n_threads;
            p.n_threads_batch = params.n_threads;
            // one stream per sequence: many times faster than one cache that all attend over
            p.kv_unified = false;
            p.no_perf = true;
            if params.kv_q8 {
                p.type_k = sys::GGML_TYPE_Q8_0;
                p.type_v = sys::GGML_TYPE_Q8_0;
            }
            if params.pooled {
                p.embeddings = true;
                p.pooling_type = sys::LLAMA_POOLING_TYPE_MEAN;
            }
            sys::llama_init_from_model(model.model.as_ptr(), p)
        };
        let context = NonNull::new(context).ok_or_else(fail)?;
        // SAFETY: the context was just made.
        let (memory, n_context) = unsafe { (sys::llama_get_memory(context.as_ptr()), sys::llama_n_ctx_seq(context.as_ptr())) };
        Ok(Self {
            context,
            memory,
            model: Arc::clone(model),
            n_batch: params.n_batch as usize,
            n_sequences: params.n_sequences as usize,
            n_context: n_context as usize,
            n_outputs: 0,
            pooled: params.pooled,
        })
    }

    /// Tokens one call may carry.
    pub(crate) fn n_batch(&self) -> usize {
        self.n_batch
    }

    /// Computes all tokens of `batch`. Afterwards the outputs asked for can be read by their order in the batch.
    pub(crate) fn decode(&mut self, batch: &mut Batch) -> Result<(), LlamaError> {
        self.n_outputs = 0;
        batch.check(self)?;
        batch.pointers.clear();
        for i in 0..batch.sequences.len() {
            batch.pointers.push(ptr::from_mut(&mut batch.sequences[i]));
        }
        let raw = sys::llama_batch {
            n_tokens: i32::try_from(batch.tokens.len()).map_err(|_| LlamaError::BadBatch("too many tokens"))?,
            token: batch.tokens.as_mut_ptr(),
            embd: ptr::null_mut(),
            pos: batch.positions.as_mut_ptr(),
            n_seq_id: batch.counts.as_mut_ptr(),
            seq_id: batch.pointers.as_mut_ptr(),
            logits: batch.outputs.as_mut_ptr(),
        };
        // SAFETY: every array has `n_tokens` entries, all ids were checked, and the arrays outlive the call.
        let code = unsafe {
            let code = sys::llama_decode(self.context.as_ptr(), raw);
            sys::llama_synchronize(self.context.as_ptr());
            code
        };
        if code != 0 {
            return Err(LlamaError::Decode { code });
        }
        self.n_outputs = batch.outputs.len();
        Ok(())
    }

    /// Logits after the token at place `i` of the last batch: `[n_vocab]` f32, free to be changed.
    pub(crate) fn logits(&mut self, i: usize) -> Option<&mut [f32]> {
        if self.pooled || i >= self.n_outputs {
            return None;
        }
        // SAFETY: the place was in the last batch; llama.cpp answers with null where no output was asked for.
        let row = unsafe { sys::llama_get_logits_ith(self.context.as_ptr(), i32::try_from(i).ok()?) };
        let row = NonNull::new(row)?;
        // SAFETY: a row has `n_vocab` floats and is not touched again before the next decode, which needs `&mut self`.
        Some(unsafe { std::slice::from_raw_parts_mut(row.as_ptr(), self.model.n_vocab) })
    }

    /// The pooled embedding of a sequence of the last batch: `[n_embd]` f32.
    pub(crate) fn embedding(&self, sequence: usize) -> Option<&[f32]> {
        if !self.pooled || sequence >= self.n_sequences {
            return None;
        }
        // SAFETY: the sequence id is in range; null where it was not in the batch.
        let row = unsafe { sys::llama_get_embeddings_seq(self.context.as_ptr(), i32::try_from(sequence).ok()?) };
        let row = NonNull::new(row)?;
        // SAFETY: a pooled embedding has `n_embd` floats, valid until the next decode, which needs `&mut self`.
        Some(unsafe { std::slice::from_raw_parts(row.as_ptr(), self.model.n_embd()) })
    }

    /// Forgets a whole sequence.
    pub(crate) fn forget(&mut self, sequence: usize) {
        if let Ok(id) = i32::try_from(sequence)
            && sequence < self.n_sequences
        {
            // SAFETY: the id is in range, and (-1, -1) means the whole of it, which every kind of cache can remove.
            unsafe { sys::llama_memory_seq_rm(self.memory, id, -1, -1) };
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made once, freed once, before the model that it holds.
        unsafe { sys::llama_free(self.context.as_ptr()) }
    }
}

// === impl Batch ===

impl Batch {
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.outputs.clear();
        self.counts.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Adds one token and returns its place.
    pub(crate) fn push(&mut self, token: Token, position: usize, sequence: usize, wants_output: bool) -> usize {
        self.tokens.push(token);
        // out of range becomes -1, which `check` refuses
        self.positions.push(i32::try_from(position).unwrap_or(-1));
        self.sequences.push(i32::try_from(sequence).unwrap_or(-1));
        self.outputs.push(i8::from(wants_output));
        self.counts.push(1);
        self.tokens.len() - 1
    }

    /// Everything that llama.cpp would abort over.
    fn check(&self, context: &Context) -> Result<(), LlamaError> {
        let within = |value: i32, limit: usize| usize::try_from(value).is_ok_and(|v| v < limit);
        if self.tokens.is_empty() || self.tokens.len() > context.n_batch {
            return Err(LlamaError::BadBatch("its size is zero or over the limit"));
        }
        if !self.tokens.iter().all(|&t| context.model.has(t)) {
            return Err(LlamaError::BadBatch("a token is not in the vocabulary"));
        }
        if !self.positions.iter().all(|&p| within(p, context.n_context)) {
            return Err(LlamaError::BadBatch("a position lies beyond the context"));
        }
        if !self.sequences.iter().all(|&s| within(s, context.n_sequences)) {
            return Err(LlamaError::BadBatch("a sequence id is out of range"));
        }
        Ok(())
    }
}

// === impl Grammar ===

impl Grammar {
    pub(crate) fn parse(model: &Arc<Model>, text: &str) -> Result<Self, LlamaError> {
        let text = CString::new(text).map_err(|_| LlamaError::Grammar("it contains a NUL byte".into()))?;
        LAST_ERROR.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // SAFETY: both strings live for the call, which catches C++ exceptions; null tells of a grammar that cannot be read.
        let sampler = unsafe { sys::llama_rs_sampler_init_grammar(model.vocab(), text.as_ptr(), c"root".as_ptr()) };
        let sampler = NonNull::new(sampler).ok_or_else(|| {
            let said = LAST_ERROR.lock().unwrap_or_else(PoisonError::into_inner).clone();
            LlamaError::Grammar(if said.is_empty() { "it cannot be parsed; is there a `root` rule?".into() } else { said })
        })?;
        Ok(Self { sampler, _model: Arc::clone(model) })
    }

    /// Sets the logit of every candidate that may not come next to minus infinity.
    pub(crate) fn mask(&mut self, candidates: &mut [sys::llama_token_data]) {
        let mut array =
            sys::llama_token_data_array { data: candidates.as_mut_ptr(), size: candidates.len(), selected: -1, sorted: false };
        // SAFETY: the array describes `candidates`, whose ids the caller took from the vocabulary; grammars change logits only.
        unsafe { sys::llama_sampler_apply(self.sampler.as_ptr(), &raw mut array) }
    }

    /// Moves on by a token that [`Grammar::mask`] allowed.
    pub(crate) fn accept(&mut self, token: Token) -> Result<(), LlamaError> {
        // SAFETY: the wrapper catches what the grammar throws at a token that it does not allow.
        match unsafe { sys::llama_rs_sampler_accept(self.sampler.as_ptr(), token) } {
            sys::LLAMA_RS_STATUS_OK => Ok(()),
            _ => Err(LlamaError::Grammar(format!("it does not allow token {token} here"))),
        }
    }
}

impl Drop for Grammar {
    fn drop(&mut self) {
        // SAFETY: made once, freed once.
        unsafe { sys::llama_sampler_free(self.sampler.as_ptr()) }
    }
}

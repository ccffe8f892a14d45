//! Weights and vocabulary.

use std::{ffi::CString, path::Path, ptr::NonNull};

use llama_cpp_sys_2 as sys;

use super::{Token, device, forget_errors, initialize, take_errors};
use crate::error::LlamaError;

/// Loaded weights and vocabulary.
pub(crate) struct Model {
    pub(super) raw: NonNull<sys::llama_model>,
    pub(super) vocab: NonNull<sys::llama_vocab>,
    pub(super) n_vocab: usize,
}

// SAFETY: after loading, llama.cpp only reads a model and its vocabulary; all methods take `&self` and only read.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

// === impl Model ===

impl Model {
    /// Loads the file at `path`, mapped into memory, `n_gpu_layers` of it onto those of the GPUs that are in `devices`, or onto all where it is
    /// empty.
    pub(crate) fn load(path: &Path, n_gpu_layers: i32, devices: &[String]) -> Result<Self, LlamaError> {
        initialize();
        device::check_processor()?;
        // which they are matters to nobody when no layer goes there
        let mut devices = device::named(if n_gpu_layers > 0 { devices } else { &[] })?;
        let fail = |problem: String| LlamaError::Load { path: path.into(), problem };
        let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|e| fail(e.to_string()))?;
        forget_errors();
        // SAFETY: default parameters are valid; `name` and `devices`, which ends with a null, live for the call.
        let model = unsafe {
            let mut params = sys::llama_model_default_params();
            params.n_gpu_layers = n_gpu_layers;
            if devices.len() > 1 {
                params.devices = devices.as_mut_ptr();
            }
            sys::llama_model_load_from_file(name.as_ptr(), params)
        };
        let model = NonNull::new(model).ok_or_else(|| fail(take_errors()))?;
        // SAFETY: `model` was just loaded; its vocabulary lives as long as it does.
        let (vocab, n_vocab) = unsafe {
            let vocab = sys::llama_model_get_vocab(model.as_ptr());
            (vocab, sys::llama_vocab_n_tokens(vocab))
        };
        let vocab = NonNull::new(vocab.cast_mut()).ok_or_else(|| fail("it has no vocabulary".into()))?;
        Ok(Self { raw: model, vocab, n_vocab: usize::try_from(n_vocab).unwrap_or(0) })
    }

    pub(super) fn vocab(&self) -> *const sys::llama_vocab {
        self.vocab.as_ptr()
    }

    pub(crate) fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    pub(crate) fn n_embd(&self) -> usize {
        // SAFETY: it is loaded.
        usize::try_from(unsafe { sys::llama_model_n_embd_out(self.raw.as_ptr()) }).unwrap_or(0)
    }

    pub(crate) fn n_context_trained(&self) -> u32 {
        // SAFETY: it is loaded.
        u32::try_from(unsafe { sys::llama_model_n_ctx_train(self.raw.as_ptr()) }).unwrap_or(0)
    }

    pub(crate) fn n_params(&self) -> u64 {
        // SAFETY: it is loaded.
        unsafe { sys::llama_model_n_params(self.raw.as_ptr()) }
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        // SAFETY: it is loaded.
        unsafe { sys::llama_model_size(self.raw.as_ptr()) }
    }

    /// Encoder-decoder and encoder-only models cannot be continued token by token here.
    pub(crate) fn is_decoder_only(&self) -> bool {
        // SAFETY: it is loaded.
        unsafe { sys::llama_model_has_decoder(self.raw.as_ptr()) && !sys::llama_model_has_encoder(self.raw.as_ptr()) }
    }

    /// Recurrent models keep one state for all that they read: they cannot take back its end.
    pub(crate) fn forgets_only_all(&self) -> bool {
        // SAFETY: it is loaded.
        unsafe { sys::llama_model_is_recurrent(self.raw.as_ptr()) || sys::llama_model_is_hybrid(self.raw.as_ptr()) }
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

    pub(super) fn has(&self, token: Token) -> bool {
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

    /// The tokens of `text`, at the beginning of a text with the model's begin-of-text where it wants one. `parse_special` reads
    /// control tokens written out in the text, as chat templates write them.
    pub(crate) fn tokenize(&self, text: &str, is_beginning: bool, parse_special: bool) -> Result<Vec<Token>, LlamaError> {
        let too_long = || LlamaError::TextTooLong { n_bytes: text.len() };
        let len = i32::try_from(text.len()).map_err(|_| too_long())?;
        let mut out: Vec<Token> = vec![0; text.len() / 2 + 16];
        loop {
            let room = i32::try_from(out.len()).map_err(|_| too_long())?;
            // SAFETY: `text` has `len` bytes and `out` has room for `room` tokens.
            let n = unsafe {
                sys::llama_tokenize(self.vocab(), text.as_ptr().cast(), len, out.as_mut_ptr(), room, is_beginning, parse_special)
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
        // SAFETY: loaded once, freed once; contexts hold an `Arc` of it.
        unsafe { sys::llama_model_free(self.raw.as_ptr()) }
    }
}

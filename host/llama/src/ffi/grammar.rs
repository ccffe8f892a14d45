//! GBNF grammars, as llama.cpp reads them.

use std::{ffi::CString, ptr::NonNull, sync::Arc};

use llama_cpp_sys_2 as sys;

use super::{Model, Token, forget_errors, take_errors};
use crate::error::LlamaError;

/// A GBNF grammar at some point of a text.
pub(crate) struct Grammar {
    sampler: NonNull<sys::llama_sampler>,
    /// The sampler reads the vocabulary.
    _model: Arc<Model>,
}

// SAFETY: a grammar sampler is plain memory that one owner uses at a time; it refers only to the immutable vocabulary.
unsafe impl Send for Grammar {}

// === impl Grammar ===

impl Grammar {
    pub(crate) fn parse(model: &Arc<Model>, text: &str) -> Result<Self, LlamaError> {
        let text = CString::new(text).map_err(|_| LlamaError::Grammar("it contains a NUL byte".into()))?;
        forget_errors();
        // SAFETY: both strings live for the call, which catches C++ exceptions; null tells of a grammar that cannot be read.
        let sampler = unsafe { sys::llama_rs_sampler_init_grammar(model.vocab(), text.as_ptr(), c"root".as_ptr()) };
        let sampler = NonNull::new(sampler).ok_or_else(|| {
            let said = take_errors();
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

//! A context: KV cache and decoding.

use std::{
    ffi::c_void,
    mem,
    ptr::{self, NonNull},
    sync::Arc,
};

use llama_cpp_sys_2 as sys;

use super::{Batch, Model, device::cpu_function};
use crate::{cores::Cores, error::LlamaError};

/// All of a sequence's state, in memory of the host.
const WHOLE: sys::llama_state_seq_flags = 0;

/// Keys, values and compute buffers of up to `n_sequences` sequences.
pub(crate) struct Context {
    pub(super) raw: NonNull<sys::llama_context>,
    pub(super) memory: sys::llama_memory_t,
    pub(super) model: Arc<Model>,
    pub(super) n_batch: usize,
    pub(super) n_sequences: usize,
    /// Tokens for each sequence.
    pub(super) n_positions: usize,
    pub(super) n_outputs: usize,
    pub(super) pooled: bool,
    /// Freed after the context, which uses them.
    _threads: Threads,
}

/// Threads that compute, beside the one that asks for it.
struct Threads(Option<NonNull<sys::ggml_threadpool>>);

type NewThreads = unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> *mut sys::ggml_threadpool;
type FreeThreads = unsafe extern "C" fn(*mut sys::ggml_threadpool);

impl Threads {
    /// They sleep between two calls: an engine's thread chooses and delivers tokens then, and who reads them needs a core. Threads
    /// that wait in a loop, as is the default, would take it.
    fn new(n_threads: i32) -> Self {
        let Some(make) = cpu_function(c"ggml_threadpool_new") else { return Self(None) };
        let cores = Cores::allowed();
        // SAFETY: ggml publishes a function of this type under this name. The parameters are llama.cpp's own, changed within their range;
        // null tells of threads that could not be made.
        let threads = unsafe {
            let make = mem::transmute::<NonNull<c_void>, NewThreads>(make);
            let mut params = sys::ggml_threadpool_params_default(n_threads);
            params.poll = 0;
            for core in cores.as_ref().and_then(|cores| cores.one_each(n_threads)).unwrap_or_default() {
                params.strict_cpu = true;
                if let Some(may_use) = params.cpumask.get_mut(core) {
                    *may_use = true;
                }
            }
            make(&raw mut params)
        };
        // ggml has put this thread on the last one, and whoever is started from here would be there too
        if let Some(cores) = cores {
            cores.give_back();
        }
        Self(NonNull::new(threads))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(threads) = self.0
            && let Some(free) = cpu_function(c"ggml_threadpool_free")
        {
            // SAFETY: a function of this type, as above. Made once, freed once, when no context uses them any more.
            unsafe { mem::transmute::<NonNull<c_void>, FreeThreads>(free)(threads.as_ptr()) }
        }
    }
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
            sys::llama_init_from_model(model.raw.as_ptr(), p)
        };
        let context = NonNull::new(context).ok_or_else(fail)?;
        let threads = Threads::new(params.n_threads);
        if let Some(threads) = threads.0 {
            // SAFETY: both were just made, and the threads outlive the context.
            unsafe { sys::llama_attach_threadpool(context.as_ptr(), threads.as_ptr(), threads.as_ptr()) }
        }
        // SAFETY: the context was just made.
        let (memory, n_context) = unsafe { (sys::llama_get_memory(context.as_ptr()), sys::llama_n_ctx_seq(context.as_ptr())) };
        Ok(Self {
            raw: context,
            memory,
            model: Arc::clone(model),
            n_batch: params.n_batch as usize,
            n_sequences: params.n_sequences as usize,
            n_positions: n_context as usize,
            n_outputs: 0,
            pooled: params.pooled,
            _threads: threads,
        })
    }

    /// Tokens one call may carry.
    pub(crate) fn n_batch(&self) -> usize {
        self.n_batch
    }

    /// Tokens one sequence may have.
    pub(crate) fn n_positions(&self) -> usize {
        self.n_positions
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
            let code = sys::llama_decode(self.raw.as_ptr(), raw);
            sys::llama_synchronize(self.raw.as_ptr());
            code
        };
        if code != 0 {
            return Err(LlamaError::Decode { code });
        }
        self.n_outputs = batch.outputs.len();
        Ok(())
    }

    /// Logits after the tokens at these places of the last batch, which ascend: `[n_vocab]` f32 each, free to be changed. `None` where
    /// no output was asked for.
    pub(crate) fn logits(&mut self, places: impl Iterator<Item = usize>) -> Vec<Option<&mut [f32]>> {
        let mut next = 0;
        let mut rows = Vec::with_capacity(places.size_hint().0);
        for place in places {
            // each row is given away once
            if self.pooled || place < next || place >= self.n_outputs {
                rows.push(None);
                continue;
            }
            next = place + 1;
            // SAFETY: the place was in the last batch; llama.cpp answers with null where no output was asked for.
            let row = i32::try_from(place).ok().map(|i| unsafe { sys::llama_get_logits_ith(self.raw.as_ptr(), i) });
            let row = row.and_then(NonNull::new);
            // SAFETY: a row has `n_vocab` floats. Places of a batch have rows of their own, and each is given out once; none is touched
            // again before the next decode, which needs `&mut self`.
            rows.push(row.map(|row| unsafe { std::slice::from_raw_parts_mut(row.as_ptr(), self.model.n_vocab) }));
        }
        rows
    }

    /// The pooled embedding of a sequence of the last batch: `[n_embd]` f32.
    pub(crate) fn embedding(&self, sequence: usize) -> Option<&[f32]> {
        if !self.pooled || sequence >= self.n_sequences {
            return None;
        }
        // SAFETY: the sequence id is in range; null where it was not in the batch.
        let row = unsafe { sys::llama_get_embeddings_seq(self.raw.as_ptr(), i32::try_from(sequence).ok()?) };
        let row = NonNull::new(row)?;
        // SAFETY: a pooled embedding has `n_embd` floats, valid until the next decode, which needs `&mut self`.
        Some(unsafe { std::slice::from_raw_parts(row.as_ptr(), self.model.n_embd()) })
    }

    /// Bytes that [`Context::save`] would need.
    pub(crate) fn saved_bytes(&mut self, sequence: usize) -> usize {
        let Some(id) = i32::try_from(sequence).ok().filter(|_| sequence < self.n_sequences) else { return 0 };
        // SAFETY: the id is in range.
        unsafe { sys::llama_state_seq_get_size_ext(self.raw.as_ptr(), id, WHOLE) }
    }

    /// A copy of a sequence's keys and values; `None` when there is nothing, or no memory for it.
    pub(crate) fn save(&mut self, sequence: usize) -> Option<Vec<u8>> {
        let id = i32::try_from(sequence).ok().filter(|_| sequence < self.n_sequences)?;
        let size = self.saved_bytes(sequence);
        let mut copy: Vec<u8> = Vec::new();
        copy.try_reserve_exact(size).ok()?;
        // SAFETY: there is room for `size` bytes, which is what the call may write; it says how many of them it did.
        let written = unsafe { sys::llama_state_seq_get_data_ext(self.raw.as_ptr(), copy.as_mut_ptr(), size, id, WHOLE) };
        if written == 0 || written > size {
            return None;
        }
        // SAFETY: so many bytes were written.
        unsafe { copy.set_len(written) };
        Some(copy)
    }

    /// Puts a copy that [`Context::save`] made, of a context like this one, in place of what a sequence has. On failure the
    /// sequence is empty.
    pub(crate) fn restore(&mut self, sequence: usize, copy: &[u8]) -> bool {
        let Some(id) = i32::try_from(sequence).ok().filter(|_| sequence < self.n_sequences) else { return false };
        self.forget(sequence);
        // SAFETY: the id is in range; llama.cpp reads within the bytes given and checks their form.
        let read = unsafe { sys::llama_state_seq_set_data_ext(self.raw.as_ptr(), copy.as_ptr(), copy.len(), id, WHOLE) };
        if read != copy.len() {
            self.forget(sequence);
        }
        read == copy.len()
    }

    /// Keeps the first `n` tokens of a sequence. False when this kind of cache can only forget all, and then it has.
    pub(crate) fn truncate(&mut self, sequence: usize, n: usize) -> bool {
        let (Ok(id), Ok(from)) = (i32::try_from(sequence), i32::try_from(n)) else { return false };
        if sequence >= self.n_sequences {
            return false;
        }
        // SAFETY: the id is in range; a range to the end lies within one stream.
        let done = unsafe { sys::llama_memory_seq_rm(self.memory, id, from, -1) };
        if !done {
            self.forget(sequence);
        }
        done
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
        unsafe { sys::llama_free(self.raw.as_ptr()) }
    }
}

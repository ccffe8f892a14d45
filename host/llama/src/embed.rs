//! Embeddings: a second context of one sequence, made when the first is asked for.

use std::{collections::VecDeque, sync::Arc};

use llambo_inference::{Embedding, InferenceError, ModelName};
use tokio::sync::oneshot;

use crate::{
    error::LlamaError,
    ffi::{Batch, Context, ContextParams, Model, Token},
};

/// Tokens of a text that can be embedded: pooling needs all of them in one physical batch.
pub(crate) const MAX_EMBED_TOKENS: u32 = 8192;

/// A text that is to be embedded.
pub(crate) struct Embed {
    pub(crate) tokens: Vec<Token>,
    pub(crate) reply: oneshot::Sender<Result<Embedding, InferenceError>>,
}

/// Computes embeddings on the engine's thread, one between two steps, so that those who generate go on.
pub(crate) struct Embedder {
    waiting: VecDeque<Embed>,
    /// That wait at most.
    capacity: usize,
    context: Option<Context>,
    params: ContextParams,
    batch: Batch,
}

impl Embedder {
    pub(crate) fn new(n_context: u32, n_threads: i32, capacity: usize) -> Self {
        let n = n_context.min(MAX_EMBED_TOKENS);
        let params = ContextParams { n_sequences: 1, n_context: n, n_batch: n, n_threads, kv_q8: false, pooled: true };
        Self { waiting: VecDeque::new(), capacity, context: None, params, batch: Batch::default() }
    }

    pub(crate) fn ask(&mut self, embed: Embed, model: &ModelName) {
        if self.waiting.len() < self.capacity {
            self.waiting.push_back(embed);
        } else {
            let (in_flight, capacity) = (self.waiting.len(), self.capacity);
            // whoever asked may be gone by then: nothing to do
            let _ = embed.reply.send(Err(InferenceError::Full { what: model.to_string(), in_flight, capacity }));
        }
    }

    /// Embeds the text that waited longest, if anybody still waits for it. Answers how many tokens that were.
    pub(crate) fn serve_one(&mut self, model: &Arc<Model>) -> Option<u64> {
        let Embed { tokens, reply } = loop {
            let next = self.waiting.pop_front()?;
            if !next.reply.is_closed() {
                break next;
            }
        };
        // whoever asked may be gone by then: nothing to do
        let _ = reply.send(self.embed(model, &tokens));
        Some(tokens.len() as u64)
    }

    /// The mean of the embeddings of `tokens`, scaled to length 1.
    fn embed(&mut self, model: &Arc<Model>, tokens: &[Token]) -> Result<Embedding, InferenceError> {
        if self.context.is_none() {
            self.context = Some(Context::new(model, self.params)?);
        }
        let Some(context) = &mut self.context else { return Err(InferenceError::Backend("no embedding context".into())) };
        context.forget(0);
        self.batch.clear();
        for (position, &token) in tokens.iter().enumerate() {
            self.batch.push(token, position, 0, true);
        }
        context.decode(&mut self.batch)?;
        let row = context.embedding(0).ok_or_else(|| LlamaError::BadBatch("there is no pooled embedding").into());
        let row = row.map_err(|e: InferenceError| e)?;
        let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        if !length.is_finite() {
            return Err(LlamaError::NotNumbers.into());
        }
        let values = row.iter().map(|x| if length > 0.0 { x / length } else { 0.0 }).collect();
        Ok(Embedding { values, input_tokens: u32::try_from(tokens.len()).unwrap_or(u32::MAX) })
    }
}

//! An engine without a model, for tests of everything around it: it answers `word1 word2 ...` at once.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use futures::{StreamExt, stream};

use crate::{
    AnswerEvent, AnswerStream, Distribution, EmbedFuture, Embedding, EngineLoad, ExtendRequest, FinishReason, Finished,
    GenerateRequest, InferenceEngine, InferenceError, Logged, MeasureFuture, MeasureRequest, Measured, ModelInfo, Prompt,
    Sampling, TokenId, TokenLog, Usage,
};

/// Tokens a [`FakeEngine`] generates when a request names no limit.
const DEFAULT_TOKENS: u32 = 8;

/// Generates `word1 word2 ...` up to `max_tokens`, as fast as it is read.
pub struct FakeEngine {
    info: ModelInfo,
    running: Arc<AtomicU32>,
    generated: Arc<AtomicU64>,
}

/// Counts a stream as running until it is dropped.
struct Running(Arc<AtomicU32>);

impl FakeEngine {
    /// One that serves `n_sequences` at once under `name`.
    pub fn new(name: &str, n_sequences: u32) -> Self {
        let info = ModelInfo {
            name: name.into(),
            architecture: "fake".into(),
            n_params: 0,
            size_bytes: 0,
            n_vocab: 256,
            n_embd: 4,
            n_context: 1024,
            n_sequences,
            kv_bytes_per_token: 1024,
            digest: String::new(),
            sampling: Sampling::default(),
        };
        Self { info, running: Arc::default(), generated: Arc::default() }
    }

    /// The same, of another file.
    #[must_use]
    pub fn with_digest(mut self, digest: &str) -> Self {
        digest.clone_into(&mut self.info.digest);
        self
    }
}

impl FakeEngine {
    fn answer(&self, input_tokens: u32, sampling: &Sampling, log: Option<TokenLog>) -> Result<AnswerStream, InferenceError> {
        let capacity = self.info.n_sequences;
        self.running.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < capacity).then_some(n + 1)).map_err(|n| {
            InferenceError::Full { what: self.info.name.to_string(), in_flight: n as usize, capacity: capacity as usize }
        })?;
        let running = Running(Arc::clone(&self.running));
        let generated = Arc::clone(&self.generated);
        let n = sampling.max_tokens.unwrap_or(DEFAULT_TOKENS);
        let n_logged = log.as_ref().map_or(0, |log| u32::try_from(log.n_tokens()).unwrap_or(u32::MAX));
        let pieces = stream::iter(1..=n).map(move |i| {
            generated.fetch_add(1, Ordering::Relaxed);
            if let Some(log) = log.as_ref().filter(|_| i > n_logged) {
                let top = (0..256).take(log.n_top().unwrap_or(0)).map(|token| (token, -256f32.ln())).collect();
                log.push(Logged { token: i, logprob: -256f32.ln(), top });
            }
            let text = if i == 1 { format!("word{i}") } else { format!(" word{i}") };
            Ok(AnswerEvent::Piece { text, n_tokens: 1 })
        });
        let usage = Usage { input_tokens, cached_tokens: 0, output_tokens: n };
        let end = stream::iter([Ok(AnswerEvent::Finished(Finished { reason: FinishReason::Length, usage }))]);
        Ok(pieces
            .chain(end)
            .inspect(move |_| {
                let _ = &running;
            })
            .boxed())
    }
}

impl InferenceEngine for FakeEngine {
    fn submit(&self, request: GenerateRequest) -> Result<AnswerStream, InferenceError> {
        self.answer(u32::try_from(request.prompt.n_bytes()).unwrap_or(u32::MAX), &request.sampling, request.log)
    }

    fn tokens(&self, prompt: &Prompt) -> Result<Vec<TokenId>, InferenceError> {
        match prompt {
            Prompt::Text(text) => self.tokens_within(text),
            Prompt::Chat(messages) => Ok(messages.iter().flat_map(|m| m.content.bytes()).map(TokenId::from).collect()),
        }
    }

    /// Each byte is one.
    fn tokens_within(&self, text: &str) -> Result<Vec<TokenId>, InferenceError> {
        Ok(text.bytes().map(TokenId::from).collect())
    }

    fn bytes_of(&self, tokens: &[TokenId]) -> Vec<u8> {
        tokens.iter().filter_map(|token| u8::try_from(*token).ok()).collect()
    }

    fn extend(&self, request: ExtendRequest) -> Result<AnswerStream, InferenceError> {
        self.answer(u32::try_from(request.tokens.len()).unwrap_or(u32::MAX), &request.sampling, Some(request.log))
    }

    /// Every token is as likely as any other of 256.
    fn measure(&self, request: MeasureRequest) -> MeasureFuture {
        let logprob = -256f32.ln();
        let n = request.tokens.len();
        let logprobs = vec![logprob; n.saturating_sub(request.n_given)];
        let top = (0..256).take(request.n_top).map(|token| (token, logprob)).collect();
        let input_tokens = u32::try_from(n).unwrap_or(u32::MAX);
        let measured = Measured { logprobs, next: Distribution { top, entropy: -logprob }, input_tokens, cached_tokens: 0 };
        Box::pin(async move { Ok(measured) })
    }

    fn embed(&self, text: String) -> EmbedFuture {
        Box::pin(
            async move { Ok(Embedding { values: vec![0.5; 4], input_tokens: u32::try_from(text.len()).unwrap_or(u32::MAX) }) },
        )
    }

    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn load(&self) -> EngineLoad {
        EngineLoad {
            n_running: self.running.load(Ordering::Acquire),
            n_generated_tokens: self.generated.load(Ordering::Relaxed),
            ..EngineLoad::default()
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{InferenceError, Instant, RequestId, Sampling, Share};

/// A token, by its place in a model's vocabulary.
pub type TokenId = u32;

/// What an agent does with a text that it holds as tokens: go on with it.
#[derive(Clone, Debug)]
pub struct ExtendRequest {
    /// Identity for logs.
    pub id: RequestId,
    /// The text so far. At least one token, and room for one more.
    pub tokens: Vec<TokenId>,
    /// How tokens are chosen and when it ends.
    pub sampling: Sampling,
    /// Which tokens may be chosen at all.
    pub mask: Option<Mask>,
    /// Whose work it is.
    pub share: Share,
    /// After this it ends with [`InferenceError::DeadlineExceeded`].
    pub deadline: Option<Instant>,
    /// Where the tokens are written down.
    pub log: TokenLog,
}

/// Which tokens may be chosen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// These and no others.
    Only(Vec<TokenId>),
    /// All but these.
    Without(Vec<TokenId>),
}

/// Tokens as they are chosen, which a stream's pieces tell only as text. The first tokens belong to the first piece, as many as it says; those
/// that follow the last piece showed nothing.
#[derive(Clone, Debug, Default)]
pub struct TokenLog {
    tokens: Arc<Mutex<Vec<Logged>>>,
    /// How many of the likeliest tokens it is told beside each; `None`: not even how likely that one was.
    n_top: Option<usize>,
}

/// A token as it was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// Which.
    pub token: TokenId,
    /// Natural logarithm of its probability before any sampling option; 0 where the log does not want to know.
    pub logprob: f32,
    /// The likeliest tokens in its place and the natural logarithms of their probabilities, likeliest first; as many as the log wants.
    pub top: Box<[(TokenId, f32)]>,
}

/// How likely a model finds a text that is there already.
#[derive(Clone, Debug)]
pub struct MeasureRequest {
    /// Identity for logs.
    pub id: RequestId,
    /// The text.
    pub tokens: Vec<TokenId>,
    /// The first so many are taken as given, at least one; each one behind them is measured.
    pub n_given: usize,
    /// How many of the tokens that could follow the whole text to tell, likeliest first.
    pub n_top: usize,
    /// Whose work it is.
    pub share: Share,
    /// After this it ends with [`InferenceError::DeadlineExceeded`].
    pub deadline: Option<Instant>,
}

/// What a model makes of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Natural logarithm of the probability of each token behind the given ones, under all that stand before it.
    pub logprobs: Vec<f32>,
    /// What could follow the text.
    pub next: Distribution,
    /// Tokens of the text, and how many of them did not have to be computed.
    pub input_tokens: u32,
    /// See [`crate::Usage::cached_tokens`].
    pub cached_tokens: u32,
}

/// Probabilities of the next token, before any sampling option.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// The likeliest tokens and the natural logarithms of their probabilities, likeliest first.
    pub top: Vec<(TokenId, f32)>,
    /// Of all tokens, in nats: 0 when one is certain, `ln(n_vocab)` when all are equally likely.
    pub entropy: f32,
}

/// A measurement under way. Dropping it gives it up.
pub type MeasureFuture = Pin<Box<dyn Future<Output = Result<Measured, InferenceError>> + Send>>;

// === impl TokenLog ===

impl TokenLog {
    /// One that is told how likely each token was, and the `n_top` likeliest beside it. Both take time.
    pub fn with_logprobs(n_top: usize) -> Self {
        Self { n_top: Some(n_top), ..Self::default() }
    }

    /// How many of the likeliest tokens it is told beside each; `None`: not even how likely that one was.
    pub fn n_top(&self) -> Option<usize> {
        self.n_top
    }

    /// Writes one more down.
    pub fn push(&self, logged: Logged) {
        self.lock().push(logged);
    }

    /// Those from place `start` on, at most `n`.
    pub fn from(&self, start: usize, n: usize) -> Vec<Logged> {
        self.lock().iter().skip(start).take(n).cloned().collect()
    }

    /// Tokens written down so far.
    pub fn n_tokens(&self) -> usize {
        self.lock().len()
    }

    /// A log that holds the same now, and goes its own way from here on.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self { tokens: Arc::new(Mutex::new(self.lock().clone())), n_top: self.n_top }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Logged>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Logged {
    /// One of which nothing more is to be known.
    pub fn bare(token: TokenId) -> Self {
        Self { token, logprob: 0.0, top: Box::default() }
    }
}

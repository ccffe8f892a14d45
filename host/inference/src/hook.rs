//! What may look at each token of a generation, and change it.

use std::time::Instant;

use crate::{ModelName, RequestId, Sampling, Share, TenantName, TokenId};

/// Hooks that generations begin with.
pub trait TokenHooks: Send + Sync + 'static {
    /// One for a generation that begins; `None`: nobody wants to see its tokens. Takes tens of microseconds at most when there is one.
    fn begin(&self, generation: &Generation<'_>) -> Option<Box<dyn TokenHook>>;
}

/// A generation, as hooks may know it.
#[derive(Clone, Copy, Debug)]
pub struct Generation<'a> {
    /// Identity.
    pub id: &'a RequestId,
    /// Which model generates.
    pub model: &'a ModelName,
    /// Whose it is.
    pub tenant: &'a TenantName,
    /// UTF-8 bytes of the prompt; 0 where it is known as tokens only.
    pub n_prompt_bytes: usize,
    /// Messages of its conversation; 0 for text.
    pub n_messages: usize,
    /// Tokens to generate at most.
    pub max_tokens: Option<u32>,
    /// Whether it must follow a schema or a grammar.
    pub constrained: bool,
    /// When it must end.
    pub deadline: Option<Instant>,
}

impl<'a> Generation<'a> {
    /// One that goes on with tokens.
    pub fn of_tokens(
        id: &'a RequestId,
        model: &'a ModelName,
        share: &'a Share,
        sampling: &Sampling,
        deadline: Option<Instant>,
    ) -> Self {
        let (max_tokens, constrained) = (sampling.max_tokens, sampling.constraint.is_some());
        Self { id, model, tenant: &share.tenant, n_prompt_bytes: 0, n_messages: 0, max_tokens, constrained, deadline }
    }
}

/// Sees the tokens of one generation in order, on the thread that chooses them. A hook that fails says nothing from then on.
pub trait TokenHook: Send {
    /// How many of the likeliest tokens it wants to see before each choice.
    fn n_likeliest(&self) -> usize;

    /// Which of the likeliest tokens must not be chosen.
    fn mask(&mut self, likeliest: &[LikelyToken]) -> Vec<TokenId>;

    /// It left nothing to choose from, and the choice was made without it.
    fn overruled(&mut self);

    /// What becomes of a token that was chosen. `text` may be a part of a character.
    fn on_token(&mut self, token: TokenId, text: &[u8], position: u32) -> TokenVerdict;
}

/// A token that could come next.
#[derive(Clone, Debug, PartialEq)]
pub struct LikelyToken {
    /// Which.
    pub id: TokenId,
    /// What it says.
    pub text: Vec<u8>,
    /// Natural logarithm of its probability before any sampling option.
    pub logprob: f32,
}

/// What becomes of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenVerdict {
    /// It stays.
    Proceed,
    /// The generation ends before it.
    Stop,
    /// Another is chosen in its place.
    Again,
    /// This text comes in its place, and the generation goes on from there.
    Splice(String),
}

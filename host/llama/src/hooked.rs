//! A generation whose tokens somebody looks at, and may change.

use std::{collections::VecDeque, sync::Arc};

use llambo_inference::{Generation, LikelyToken, TokenHook, TokenHooks, TokenVerdict};

use crate::{engine::LlamaEngine, ffi::Token, load::LoadedModel, measure, sampler::likeliest};

/// The hook of a generation, and the tokens that it put in the place of others.
pub(crate) struct Hooked {
    hook: Box<dyn TokenHook>,
    /// They come next, whatever the model says.
    spliced: VecDeque<Token>,
}

/// What becomes of a token that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// This one comes.
    Take(Token),
    /// Another one is to be chosen.
    Again,
    /// The generation ends.
    Stop,
}

impl LlamaEngine {
    /// From now on each generation begins with a hook of these, where they want to see it.
    #[must_use]
    pub fn with_hooks(mut self, hooks: Arc<dyn TokenHooks>) -> Self {
        self.hooks = Some(hooks);
        self
    }

    /// The hook that a generation begins with.
    pub(crate) fn hook(&self, generation: &Generation<'_>) -> Option<Hooked> {
        let hook = self.hooks.as_ref()?.begin(generation)?;
        Some(Hooked { hook, spliced: VecDeque::new() })
    }
}

impl Hooked {
    /// Before a token is chosen: what must not be. `logits` are those of the model, `[n_vocab]`.
    pub(crate) fn forbidden(&mut self, logits: &[f32], model: &LoadedModel) -> Vec<usize> {
        let n = self.hook.n_likeliest();
        if n == 0 || !self.spliced.is_empty() {
            return Vec::new();
        }
        let likely = |(id, _)| {
            let logprob = measure::logprob(logits, id);
            LikelyToken { id, text: model.pieces.get(id as usize).map(|piece| piece.to_vec()).unwrap_or_default(), logprob }
        };
        let shown: Vec<LikelyToken> = likeliest(logits, n).map(likely).collect();
        let forbidden = self.hook.mask(&shown);
        // of those that it was shown: others are none of its business
        forbidden.into_iter().filter(|id| shown.iter().any(|likely| likely.id == *id)).map(|id| id as usize).collect()
    }

    /// The token that comes next in any case.
    pub(crate) fn spliced(&mut self) -> Option<Token> {
        self.spliced.pop_front()
    }

    /// A token stands already, whatever the hook says of it.
    pub(crate) fn see(&mut self, token: Token, position: u32, model: &LoadedModel) {
        let Ok(id) = u32::try_from(token) else { return };
        self.hook.on_token(id, model.pieces.get(id as usize).map_or(&[][..], |piece| piece), position);
    }

    /// It left nothing to choose from.
    pub(crate) fn overrule(&mut self) {
        self.hook.overruled();
    }

    /// What the hook says of a token. A text in its place must not be constrained otherwise: then another token is chosen.
    pub(crate) fn rule(&mut self, token: Token, position: u32, is_constrained: bool, model: &LoadedModel) -> Ruling {
        let Ok(id) = u32::try_from(token) else { return Ruling::Take(token) };
        let piece = model.pieces.get(id as usize).map_or(&[][..], |piece| piece);
        match self.hook.on_token(id, piece, position) {
            TokenVerdict::Proceed => Ruling::Take(token),
            TokenVerdict::Stop => Ruling::Stop,
            TokenVerdict::Again => Ruling::Again,
            TokenVerdict::Splice(_) if is_constrained => Ruling::Again,
            TokenVerdict::Splice(text) => {
                // a text that is too long for the model, or has no tokens, takes no token's place
                self.spliced = model.tokens_within(&text).unwrap_or_default().into();
                self.spliced.pop_front().map_or(Ruling::Again, Ruling::Take)
            }
        }
    }
}

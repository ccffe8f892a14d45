//! The seat of token hooks: each generation begins with an instance of the live one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use llambo_inference::{Generation, LikelyToken, TokenHook, TokenHooks, TokenId, TokenVerdict};
use llambo_strategy::{Fallback, RequestFacts, Role};

use crate::{
    installed::Installed,
    instance::Failure,
    occupants::Occupants,
    worlds::{Hook, HookModule, Said},
};

/// Tokens that a hook may refuse in a row; then the answer ends.
const REFUSALS: u32 = 16;
/// As how many failed calls that counts: a hook that does so again and again is suspended.
const OF_WHICH_FAILED: usize = 3;

pub(crate) type Hooking = Installed<HookModule>;

/// Where token hooks are.
pub(crate) struct HookSeat {
    pub(crate) occupants: Occupants<HookModule>,
    started: Instant,
}

/// The hook of one generation.
struct Hooked {
    policy: Arc<Hooking>,
    /// `None` once it failed: a new instance would not know what was before.
    hook: Option<Hook>,
    refusals: u32,
}

impl HookSeat {
    pub(crate) fn new() -> Self {
        Self { occupants: Occupants::none(), started: Instant::now() }
    }

    fn facts(&self, generation: &Generation<'_>) -> RequestFacts {
        let left = generation.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        RequestFacts {
            n_prompt_bytes: u32::try_from(generation.n_prompt_bytes).unwrap_or(u32::MAX),
            n_messages: u32::try_from(generation.n_messages).unwrap_or(u32::MAX),
            max_tokens: generation.max_tokens,
            constrained: generation.constrained,
            deadline_ms: left.map(|left| u32::try_from(left.as_millis()).unwrap_or(u32::MAX)),
            now_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            ..RequestFacts::new(generation.id.clone(), generation.model.clone(), generation.tenant.clone())
        }
    }
}

impl TokenHooks for HookSeat {
    fn begin(&self, generation: &Generation<'_>) -> Option<Box<dyn TokenHook>> {
        if !self.occupants.is_taken() {
            return None;
        }
        let policy = self.occupants.look(|table| table.live.as_ref().map(|entry| Arc::clone(&entry.policy)))?;
        let facts = self.facts(generation);
        let hook = policy.watch(Role::Live, |module| module.begin(&facts)).ok()?;
        Some(Box::new(Hooked { policy, hook: Some(hook), refusals: 0 }))
    }
}

impl Hooked {
    /// Asks the hook; without one, or when it fails, nothing.
    fn ask<T>(&mut self, ask: impl FnOnce(&mut Hook) -> Result<T, Failure>) -> Option<T> {
        let hook = self.hook.as_mut()?;
        let asked = self.policy.watch(Role::Live, |_| ask(hook));
        if asked.is_err() {
            self.hook = None;
        }
        asked.ok()
    }
}

impl TokenHook for Hooked {
    fn n_likeliest(&self) -> usize {
        self.hook.as_ref().map_or(0, Hook::n_likeliest)
    }

    fn mask(&mut self, likeliest: &[LikelyToken]) -> Vec<TokenId> {
        self.ask(|hook| hook.mask(likeliest)).unwrap_or_default()
    }

    fn overruled(&mut self) {
        let detail = "it left no token to choose from, where the answer must follow a schema or a grammar";
        self.policy.failed(Role::Live, &Failure::new(Fallback::Nonsense, detail), Duration::ZERO);
    }

    fn on_token(&mut self, token: TokenId, text: &[u8], position: u32) -> TokenVerdict {
        let said = self.ask(|hook| hook.on_token(token, text, position)).unwrap_or(Said::Proceed);
        if said != Said::Splice(String::new()) {
            self.refusals = 0;
        }
        match said {
            Said::Proceed => TokenVerdict::Proceed,
            Said::Stop => TokenVerdict::Stop,
            Said::Splice(text) if !text.is_empty() => TokenVerdict::Splice(text),
            Said::Splice(_) if self.refusals < REFUSALS => {
                self.refusals += 1;
                TokenVerdict::Again
            }
            Said::Splice(_) => {
                let detail = format!("it refused {REFUSALS} tokens in a row, and the answer ends");
                self.policy.failed_in(OF_WHICH_FAILED, Role::Live, &Failure::new(Fallback::Nonsense, detail), Duration::ZERO);
                TokenVerdict::Stop
            }
        }
    }
}

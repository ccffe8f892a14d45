use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
};

use llambo_inference::{LikelyToken, TokenId};
use llambo_strategy::{Fallback, RequestFacts};

use super::request;
use crate::{
    bindings::exports::llambo::policy::hooking::{Choice, Guest, GuestIndices, Token, Verdict},
    installed::Instances,
    instance::{Blueprint, Failure, Instance},
    machine::{Linked, Machine},
    state::Terms,
};

/// Likeliest tokens that a hook may ask for: beyond them hardly anything is ever chosen.
const MOST_LIKELIEST: u32 = 64;
/// Of a text that takes a token's place.
const SPLICE_BYTES: usize = 1024;

/// `llambo:policy/hooking`: an instance for each generation.
pub(crate) struct HookModule {
    blueprint: Blueprint<GuestIndices>,
    n_instances: Arc<AtomicU32>,
    largest_bytes: AtomicUsize,
}

/// The instance of one generation.
pub(crate) struct Hook {
    instance: Instance<Guest>,
    n_likeliest: u32,
    n_instances: Arc<AtomicU32>,
}

/// What a hook says of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Proceed,
    Stop,
    Splice(String),
}

impl HookModule {
    pub(crate) const INTERFACE: &'static str = "llambo:policy/hooking@0.1.0";

    pub(crate) fn new(machine: &Arc<Machine>, terms: &Arc<Terms>, linked: &Linked) -> Result<Self, String> {
        Ok(Self {
            blueprint: Blueprint::new(machine, terms, linked, Self::INTERFACE, GuestIndices::new)?,
            n_instances: Arc::default(),
            largest_bytes: AtomicUsize::new(0),
        })
    }

    pub(crate) fn begin(&self, facts: &RequestFacts) -> Result<Hook, Failure> {
        let mut instance = self.blueprint.instance(|indices, store, instance| indices.load(store, instance))?;
        let facts = request(facts);
        let n_likeliest = instance.call(|guest, store| guest.call_begin(store, &facts))?;
        if n_likeliest > MOST_LIKELIEST {
            let detail = format!("it wants to see {n_likeliest} tokens, and {MOST_LIKELIEST} are the most");
            return Err(Failure::new(Fallback::Nonsense, detail));
        }
        self.largest_bytes.fetch_max(instance.state().memory_bytes, Relaxed);
        self.n_instances.fetch_add(1, Relaxed);
        let n_instances = Arc::clone(&self.n_instances);
        Ok(Hook { instance, n_likeliest, n_instances })
    }
}

impl Instances for HookModule {
    fn instances(&self) -> (u32, u64) {
        (self.n_instances.load(Relaxed), self.largest_bytes.load(Relaxed) as u64)
    }
}

impl Hook {
    pub(crate) fn n_likeliest(&self) -> usize {
        self.n_likeliest as usize
    }

    pub(crate) fn mask(&mut self, likeliest: &[LikelyToken]) -> Result<Vec<TokenId>, Failure> {
        let choice = |likely: &LikelyToken| Choice { id: likely.id, text: likely.text.clone(), logprob: likely.logprob };
        let likeliest: Vec<Choice> = likeliest.iter().map(choice).collect();
        self.instance.call(|guest, store| guest.call_mask(store, &likeliest))
    }

    pub(crate) fn on_token(&mut self, id: TokenId, text: &[u8], position: u32) -> Result<Said, Failure> {
        let token = Token { id, text: text.to_vec(), position };
        let verdict = self.instance.call(|guest, store| guest.call_on_token(store, &token))?;
        Ok(match verdict {
            Verdict::Proceed => Said::Proceed,
            Verdict::Stop => Said::Stop,
            Verdict::Splice(text) if text.len() > SPLICE_BYTES => {
                let detail = format!("it splices {} bytes, and {SPLICE_BYTES} are the most", text.len());
                return Err(Failure::new(Fallback::Nonsense, detail));
            }
            Verdict::Splice(text) => Said::Splice(text),
        })
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.n_instances.fetch_sub(1, Relaxed);
    }
}

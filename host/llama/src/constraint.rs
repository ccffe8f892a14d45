//! Forms that a text must have: JSON Schema through llguidance, GBNF through `gbnf`.

use std::{num::NonZero, sync::Arc, thread};

use llambo_inference::Constraint;
use llguidance::{Matcher, ParserFactory, api::TopLevelGrammar};
use tokio::runtime::{Handle, RuntimeFlavor};
use toktrie::{ApproximateTokEnv, TokRxInfo, TokTrie};

use crate::{
    error::LlamaError,
    ffi::{Model, Token},
    gbnf::{Vocabulary, Walk},
    schema,
    turns::Turns,
};

/// White space between the parts of a JSON text. Bounded: small models like to stay in it, as long as they are let.
const WHITESPACE: &str = r"[ \n]{1,12}";

/// Addresses for the stack of a compiler; only what it touches takes memory. 200 `$ref`s in a row take about 700 KiB.
const COMPILER_STACK_BYTES: usize = 32 << 20;
/// Compilations that wait for others of the same model; more are refused.
const MAX_WAITING: usize = 64;

/// Compiles constraints for one model; the vocabulary's trie is built once.
pub(crate) struct Constraints {
    model: Arc<Model>,
    factory: ParserFactory,
    vocabulary: Arc<Vocabulary>,
    /// Compilations at once: half of the cores, so that no burst of schemas takes all of them.
    turns: Turns,
}

/// A constraint at some point of a text.
pub(crate) enum ActiveConstraint {
    Schema(Box<Matcher>),
    Gbnf { walk: Box<Walk>, vocabulary: Arc<Vocabulary>, model: Arc<Model> },
}

/// Whether a text may or must end after a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Open,
    Complete,
}

impl Constraints {
    pub(crate) fn new(model: &Arc<Model>) -> Result<Self, LlamaError> {
        let n_vocab = u32::try_from(model.n_vocab()).unwrap_or(u32::MAX);
        let eos = model.eos().and_then(|t| u32::try_from(t).ok()).unwrap_or(0);
        let tokens = 0..i32::try_from(n_vocab).unwrap_or(i32::MAX);
        let mut words: Vec<Vec<u8>> = tokens.clone().map(|token| model.piece(token, true)).collect();
        let texts = tokens.clone().zip(&words).map(|(token, word)| (!model.is_end(token)).then_some(word.as_slice()));
        let vocabulary = Arc::new(Vocabulary::new(texts));
        for (token, word) in tokens.zip(&mut words) {
            if model.is_control(token) || model.is_end(token) {
                word.insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
            }
        }
        let trie = TokTrie::from(&TokRxInfo::new(n_vocab, eos), &words);
        let environment: toktrie::TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory =
            ParserFactory::new_simple(&environment).map_err(|e| LlamaError::Grammar(format!("this vocabulary: {e}")))?;
        factory.quiet();
        let n_cores = thread::available_parallelism().map_or(1, NonZero::get);
        Ok(Self { model: Arc::clone(model), factory, vocabulary, turns: Turns::new(n_cores / 2, MAX_WAITING) })
    }

    /// # Errors
    /// The schema or grammar cannot be understood, or too many are being compiled.
    pub(crate) fn compile(&self, constraint: &Constraint) -> Result<ActiveConstraint, LlamaError> {
        aside(|| {
            let busy = || {
                let (in_flight, capacity) = self.turns.load();
                LlamaError::Busy { in_flight, capacity }
            };
            let _turn = self.turns.take().ok_or_else(busy)?;
            // compilers of grammars and schemas call themselves; how deep a client can make them go should not depend on whose
            // stack this runs on
            thread::scope(|scope| {
                let compiler = thread::Builder::new().name("llambo-compile".into()).stack_size(COMPILER_STACK_BYTES);
                let compiler = compiler.spawn_scoped(scope, || self.compile_here(constraint)).map_err(LlamaError::Thread)?;
                compiler.join().unwrap_or_else(|_| Err(LlamaError::Grammar("its compiler gave up".into())))
            })
        })
    }

    fn compile_here(&self, constraint: &Constraint) -> Result<ActiveConstraint, LlamaError> {
        match constraint {
            Constraint::Gbnf(text) => {
                let walk = Box::new(Walk::new(text).map_err(LlamaError::Grammar)?);
                let (vocabulary, model) = (Arc::clone(&self.vocabulary), Arc::clone(&self.model));
                Ok(ActiveConstraint::Gbnf { walk, vocabulary, model })
            }
            Constraint::JsonSchema(text) => {
                let mut schema: serde_json::Value =
                    serde_json::from_str(text).map_err(|e| LlamaError::Grammar(format!("the schema is not JSON: {e}")))?;
                schema::check(&schema).map_err(LlamaError::Grammar)?;
                if let Some(object) = schema.as_object_mut() {
                    // a schema that brings its own settings means them
                    object.entry("x-guidance").or_insert_with(|| serde_json::json!({ "whitespace_pattern": WHITESPACE }));
                }
                let parser = self.factory.create_parser(TopLevelGrammar::from_json_schema(schema));
                let parser =
                    parser.map_err(|e| LlamaError::Grammar(format!("the JSON Schema: {}", first_line(&e.to_string()))))?;
                Ok(ActiveConstraint::Schema(Box::new(Matcher::new(Ok(parser)))))
            }
        }
    }
}

/// The cause, without the state of the library behind it.
fn first_line(error: &str) -> String {
    error.lines().next().unwrap_or_default().chars().take(200).collect()
}

/// Blocks without keeping other tasks of this thread from going on.
#[expect(
    clippy::disallowed_methods,
    reason = "a request is checked on its caller's thread, which waits for nothing else; most have no constraint"
)]
fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl ActiveConstraint {
    /// Sets the logits of all tokens that may not come next to minus infinity. `logits` is `[n_vocab]`.
    pub(crate) fn mask(&mut self, logits: &mut [f32]) -> Result<(), LlamaError> {
        match self {
            Self::Schema(matcher) => {
                let allowed = matcher.compute_mask_or_eos().map_err(|e| LlamaError::Grammar(first_line(&e.to_string())))?;
                for (token, logit) in (0u32..).zip(logits.iter_mut()) {
                    if !allowed.is_allowed(token) {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
            Self::Gbnf { walk, vocabulary, .. } => {
                let refuse = |token: u32| {
                    if let Some(logit) = logits.get_mut(token as usize) {
                        *logit = f32::NEG_INFINITY;
                    }
                };
                walk.refused(vocabulary, refuse).map_err(LlamaError::Grammar)?;
            }
        }
        Ok(())
    }

    /// Moves on by a token that was not masked.
    pub(crate) fn accept(&mut self, token: Token) -> Result<Progress, LlamaError> {
        match self {
            Self::Schema(matcher) => {
                let id = u32::try_from(token).map_err(|e| LlamaError::Grammar(e.to_string()))?;
                matcher.consume_token(id).map_err(|e| LlamaError::Grammar(first_line(&e.to_string())))?;
                Ok(if matcher.is_stopped() { Progress::Complete } else { Progress::Open })
            }
            Self::Gbnf { walk, model, .. } => {
                let is_allowed = if model.is_end(token) {
                    walk.can_end()
                } else {
                    let text = model.piece(token, true);
                    !text.is_empty() && walk.accept(&text).map_err(LlamaError::Grammar)?
                };
                let refused = || LlamaError::Grammar(format!("it does not allow token {token} here"));
                if is_allowed { Ok(Progress::Open) } else { Err(refused()) }
            }
        }
    }
}

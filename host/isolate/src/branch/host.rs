//! The calls of `llambo:engine`, as guests make them. Every call is charged to the guest's budget.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use llambo_inference::{
    Distribution, ExtendRequest, FinishReason, InferenceEngine, InferenceError, Mask, MeasureRequest, Measured, ModelName,
    Prompt, TokenId, Usage,
};
use wasmtime::{Result, component::Resource};

use super::{
    Branch, Growing,
    check::{check_length, fitting, message},
    token_bytes,
};
use crate::{
    bindings::llambo::engine::branches::{self, Beginning, Candidate, Continuation, Error, Piece, Scored},
    journal::Fingerprint,
    nn::{DEFAULT, MAX_SESSIONS, Options, Session},
    state::GuestState,
};

/// Continuations that are scored in one call.
const MAX_CONTINUATIONS: usize = 64;
/// Tokens that a distribution names at most.
const MAX_TOP: u32 = 1024;
const MAX_SNAPSHOTS: usize = 256;
/// Messages of a conversation that is opened at once.
const MAX_MESSAGES: usize = 4096;
/// Bytes of host memory that putting a message into a template can take: for each byte of it, and for itself.
const RENDER_FACTOR: usize = 4;
const MESSAGE_BYTES: usize = 1024;
/// Bytes of a snapshot's name.
const MAX_NAME: usize = 256;

type Told<T> = Result<std::result::Result<T, Error>>;

impl branches::Host for GuestState {
    fn restore(&mut self, name: String) -> Told<Resource<Branch>> {
        self.budget.charge_call()?;
        let Some(branch) = self.snapshots.get(&name).map(Branch::fork) else {
            return Ok(Err(Error::NotFound(format!("there is no snapshot `{name}`"))));
        };
        self.hold(branch).map(Ok)
    }

    fn forget(&mut self, name: String) -> Result<bool> {
        self.budget.charge_call()?;
        let forgotten = self.snapshots.remove(&name);
        if let Some(branch) = &forgotten {
            self.budget.release(branch.n_bytes() + name.len());
        }
        Ok(forgotten.is_some())
    }

    fn snapshots(&mut self) -> Result<Vec<String>> {
        self.budget.charge_call()?;
        Ok(self.snapshots.keys().cloned().collect())
    }
}

impl branches::HostBranch for GuestState {
    async fn open(&mut self, model: String, beginning: Beginning) -> Told<Resource<Branch>> {
        self.budget.charge_call()?;
        let model = (model != DEFAULT).then(|| ModelName::from(model));
        let rendering_bytes = match &beginning {
            Beginning::Chat(messages) if messages.len() > MAX_MESSAGES => {
                let what = format!("a conversation of {} messages is too long; give at most {MAX_MESSAGES}", messages.len());
                return Ok(Err(Error::TooLong(what)));
            }
            Beginning::Chat(messages) => messages.iter().map(|m| m.content.len() * RENDER_FACTOR + MESSAGE_BYTES).sum(),
            Beginning::Text(_) | Beginning::Tokens(_) => 0,
        };
        let read = move |engine: &dyn InferenceEngine| match beginning {
            Beginning::Text(text) => engine.tokens(&Prompt::Text(text)),
            Beginning::Chat(messages) => {
                engine.tokens(&Prompt::Chat(messages.into_iter().map(message).collect::<std::result::Result<_, _>>()?))
            }
            Beginning::Tokens(tokens) if tokens.is_empty() => {
                Err(InferenceError::InvalidRequest("there are no tokens; give at least one".into()))
            }
            Beginning::Tokens(tokens) => fitting(engine, tokens),
        };
        self.budget.hold(rendering_bytes)?;
        let read = self.with_engine(model.clone(), read).await;
        self.budget.release(rendering_bytes);
        match read? {
            Ok(tokens) => self.hold(Branch::new(model, tokens)).map(Ok),
            Err(error) => self.fail_branch(error),
        }
    }

    fn fork(&mut self, this: Resource<Branch>) -> Result<Resource<Branch>> {
        self.budget.charge_call()?;
        let fork = self.table.get(&this)?.fork();
        self.hold(fork)
    }

    fn length(&mut self, this: Resource<Branch>) -> Result<u32> {
        self.budget.charge_call()?;
        Ok(u32::try_from(self.table.get(&this)?.tokens.len()).unwrap_or(u32::MAX))
    }

    fn tokens(&mut self, this: Resource<Branch>, start: u32, count: u32) -> Result<Vec<TokenId>> {
        self.budget.charge_call()?;
        let tokens = &self.table.get(&this)?.tokens;
        Ok(tokens.iter().skip(start as usize).take(count as usize).copied().collect())
    }

    fn bytes(&mut self, this: Resource<Branch>, start: u32) -> Result<Vec<u8>> {
        self.budget.charge_call()?;
        let branch = self.table.get(&this)?;
        let (model, tokens) = (branch.model.clone(), branch.tokens.get(start as usize..).unwrap_or_default().to_vec());
        // a model that was unloaded since says nothing any more
        Ok(self.engine(model).map(|engine| engine.bytes_of(&tokens)).unwrap_or_default())
    }

    async fn append(&mut self, this: Resource<Branch>, text: String) -> Told<u32> {
        self.budget.charge_call()?;
        self.stop_growing(&this)?;
        let model = self.table.get(&this)?.model.clone();
        let n_before = self.table.get(&this)?.tokens.len();
        let read = move |engine: &dyn InferenceEngine| {
            let tokens = engine.tokens_within(&text)?;
            check_length(engine, n_before + tokens.len()).map(|()| tokens)
        };
        match self.with_engine(model, read).await? {
            Ok(tokens) => {
                self.add(&this, &tokens)?;
                Ok(Ok(u32::try_from(tokens.len()).unwrap_or(u32::MAX)))
            }
            Err(error) => self.fail_branch(error),
        }
    }

    fn append_tokens(&mut self, this: Resource<Branch>, tokens: Vec<TokenId>) -> Told<()> {
        self.budget.charge_call()?;
        self.call()?.last_error = None;
        self.stop_growing(&this)?;
        let branch = self.table.get(&this)?;
        let (model, n_before) = (branch.model.clone(), branch.tokens.len());
        let checked = self.engine(model).and_then(|engine| {
            check_length(engine.as_ref(), n_before + tokens.len())?;
            fitting(engine.as_ref(), tokens)
        });
        match checked {
            Ok(tokens) => self.add(&this, &tokens).map(Ok),
            Err(error) => self.fail_branch(error),
        }
    }

    fn truncate(&mut self, this: Resource<Branch>, length: u32) -> Told<()> {
        self.budget.charge_call()?;
        self.stop_growing(&this)?;
        let tokens = &mut self.table.get_mut(&this)?.tokens;
        let (n, length) = (tokens.len(), length as usize);
        if !(1..=n).contains(&length) {
            return Ok(Err(Error::Invalid(format!("a branch of {n} tokens cannot be cut to {length}"))));
        }
        tokens.truncate(length);
        // what is not charged is not kept
        tokens.shrink_to_fit();
        self.budget.release(token_bytes(n - length));
        Ok(Ok(()))
    }

    async fn generate(&mut self, this: Resource<Branch>, options: String, mask: Option<branches::Mask>) -> Told<()> {
        self.budget.charge_call()?;
        self.stop_growing(&this)?;
        let options = match if options.is_empty() { Ok(Options::default()) } else { Options::parse(options.as_bytes()) } {
            Ok(options) if options.embedding => return Ok(Err(Error::Invalid("a branch has no embedding; use wasi:nn".into()))),
            Ok(options) => options,
            Err(error) => return Ok(Err(Error::Invalid(error))),
        };
        if let Err(error) = self.call()?.may_start() {
            return self.fail_branch(error);
        }
        let branch = self.table.get(&this)?;
        let (model, tokens, wants_logprobs) = (branch.model.clone(), branch.tokens.clone(), options.logprobs);
        let call = self.call()?;
        let (id, share, deadline, place) = (call.id.clone(), call.share.clone(), call.deadline, call.next_place());
        let mask = mask.map(|mask| match mask {
            branches::Mask::Only(tokens) => Mask::Only(tokens),
            branches::Mask::Without(tokens) => Mask::Without(tokens),
        });
        let n_begun = tokens.len();
        let start = move |engine: &dyn InferenceEngine| {
            let mut sampling = options.sampling.resolve(&engine.info().sampling)?;
            let asked = Fingerprint::of(&(&engine.info().name, &tokens, &mask));
            let log = place.begin(asked, &mut sampling, wants_logprobs.then_some(0)).log;
            let written = log.clone();
            let events = engine.extend(ExtendRequest { id, tokens, sampling, mask, share, deadline, log: written })?;
            Ok((Session::over(events).holding(n_begun, engine.info().kv_bytes_per_token), log))
        };
        match self.with_engine(model, start).await? {
            Ok((session, log)) => {
                self.table.get_mut(&this)?.growing = Some(Growing { log, wants_logprobs, n_taken: 0 });
                self.begin_session(this.rep(), session)?;
                Ok(Ok(()))
            }
            Err(error) => self.fail_branch(error),
        }
    }

    async fn next(&mut self, this: Resource<Branch>) -> Told<Option<Piece>> {
        self.budget.charge_call()?;
        self.call()?.last_error = None;
        let Some(session) = self.call()?.sessions.get_mut(&this.rep()) else {
            // what went on ended with its request
            self.table.get_mut(&this)?.growing = None;
            return Ok(Ok(None));
        };
        let output = match session.next().await {
            Ok(output) => output,
            Err(error) => {
                self.stop_growing(&this)?;
                return self.fail_branch(error);
            }
        };
        self.note_tokens(output.n_tokens)?;
        let call = self.call()?;
        if let Some(finished) = output.finished {
            call.usage += finished.usage;
            call.sessions.remove(&this.rep());
        }
        let Some(growing) = &mut self.table.get_mut(&this)?.growing else { return Ok(Ok(None)) };
        // the end tells of tokens that showed nothing as well
        let n = if output.finished.is_some() { usize::MAX } else { output.n_tokens as usize };
        let logged = growing.log.from(growing.n_taken, n);
        growing.n_taken += logged.len();
        let logprobs = if growing.wants_logprobs { logged.iter().map(|one| one.logprob).collect() } else { Vec::new() };
        let tokens: Vec<TokenId> = logged.iter().map(|one| one.token).collect();
        if output.finished.is_some() {
            self.table.get_mut(&this)?.growing = None;
        }
        self.add(&this, &tokens)?;
        let finish = output.finished.map(|finished| match finished.reason {
            FinishReason::Stop => branches::FinishReason::Stop,
            FinishReason::Length => branches::FinishReason::Length,
        });
        Ok(Ok(Some(Piece { text: output.text, tokens, logprobs, finish })))
    }

    async fn distribution(&mut self, this: Resource<Branch>, top: u32) -> Told<branches::Distribution> {
        self.budget.charge_call()?;
        let branch = self.table.get(&this)?;
        let (model, tokens) = (branch.model.clone(), branch.tokens.clone());
        let asked = self.measure(model, tokens, vec![Vec::new()], top.min(MAX_TOP)).await?;
        Ok(asked.map(|mut measured| {
            let Distribution { top, entropy } = measured.pop().map(|one| one.next).unwrap_or_default();
            let top = top.into_iter().map(|(token, logprob)| Candidate { token, logprob }).collect();
            branches::Distribution { top, entropy }
        }))
    }

    async fn score(&mut self, this: Resource<Branch>, continuations: Vec<Continuation>) -> Told<Vec<Scored>> {
        self.budget.charge_call()?;
        let n = continuations.len();
        if n > MAX_CONTINUATIONS {
            return Ok(Err(Error::Invalid(format!(
                "{n} continuations cannot be scored at once; give at most {MAX_CONTINUATIONS}"
            ))));
        }
        let branch = self.table.get(&this)?;
        let (model, tokens) = (branch.model.clone(), branch.tokens.clone());
        let n_given = tokens.len();
        let read = move |engine: &dyn InferenceEngine| -> std::result::Result<Vec<Vec<TokenId>>, InferenceError> {
            let one = |continuation: Continuation| {
                let more = match continuation {
                    Continuation::Text(text) => engine.tokens_within(&text)?,
                    Continuation::Tokens(tokens) => tokens,
                };
                check_length(engine, n_given + more.len())?;
                fitting(engine, more)
            };
            continuations.into_iter().map(one).collect()
        };
        let continuations = match self.with_engine(model.clone(), read).await? {
            Ok(continuations) => continuations,
            Err(error) => return self.fail_branch(error),
        };
        let held = token_bytes(continuations.iter().map(Vec::len).sum());
        self.budget.hold(held)?;
        let asked = self.measure(model, tokens, continuations.clone(), 0).await;
        self.budget.release(held);
        let scored = |(tokens, measured): (Vec<TokenId>, Measured)| Scored { tokens, logprobs: measured.logprobs };
        Ok(asked?.map(|measured| continuations.into_iter().zip(measured).map(scored).collect()))
    }

    fn save(&mut self, this: Resource<Branch>, name: String) -> Told<()> {
        self.budget.charge_call()?;
        if name.len() > MAX_NAME {
            return Ok(Err(Error::Invalid(format!(
                "a snapshot's name of {} bytes is too long; {MAX_NAME} are allowed",
                name.len()
            ))));
        }
        if self.snapshots.len() >= MAX_SNAPSHOTS && !self.snapshots.contains_key(&name) {
            return Ok(Err(Error::Invalid(format!("there are {MAX_SNAPSHOTS} snapshots, the most there may be; forget one"))));
        }
        let branch = self.table.get(&this)?.fork();
        self.budget.hold(branch.n_bytes() + name.len())?;
        let n_name = name.len();
        if let Some(old) = self.snapshots.insert(name, branch) {
            self.budget.release(old.n_bytes() + n_name);
        }
        Ok(Ok(()))
    }

    fn drop(&mut self, this: Resource<Branch>) -> Result<()> {
        self.give_up(this.rep());
        self.take(this).map(drop)
    }
}

// === impl GuestState ===

impl GuestState {
    fn fail_branch<T>(&mut self, error: InferenceError) -> Told<T> {
        let shown = Error::from(&error);
        // a guest that gives up because of it need not be able to describe it
        self.call()?.last_error = Some(error);
        Ok(Err(shown))
    }

    /// Does what may take long on a thread that is made for it: templates, tokenizers and grammars.
    async fn with_engine<T: Send + 'static>(
        &mut self,
        model: Option<ModelName>,
        work: impl FnOnce(&dyn InferenceEngine) -> std::result::Result<T, InferenceError> + Send + 'static,
    ) -> Result<std::result::Result<T, InferenceError>> {
        self.call()?.last_error = None;
        let engine = match self.engine(model) {
            Ok(engine) => engine,
            Err(error) => return Ok(Err(error)),
        };
        let done = tokio::task::spawn_blocking(move || work(engine.as_ref())).await;
        Ok(done.unwrap_or_else(|error| Err(InferenceError::Backend(error.to_string()))))
    }

    /// Measures a text with each of several continuations beside each other, as many at a time as the request may start.
    async fn measure(
        &mut self,
        model: Option<ModelName>,
        tokens: Vec<TokenId>,
        continuations: Vec<Vec<TokenId>>,
        n_top: u32,
    ) -> Told<Vec<Measured>> {
        self.call()?.last_error = None;
        let engine: Arc<dyn InferenceEngine> = match self.engine(model) {
            Ok(engine) => engine,
            Err(error) => return self.fail_branch(error),
        };
        let call = self.call()?;
        let (id, share, deadline) = (call.id.clone(), call.share.clone(), call.deadline);
        let window = MAX_SESSIONS.saturating_sub(call.sessions.len()).max(1);
        let at_once = tokens.len() * window.min(continuations.len());
        self.check_kv(engine.info().kv_bytes_per_token.saturating_mul(at_once as u64))?;
        // made, and started, when the window gets to it
        let asked = continuations.into_iter().map(|more| {
            let (id, share) = (id.clone(), share.clone());
            let (tokens, n_given) = ([&tokens[..], &more[..]].concat(), tokens.len());
            engine.measure(MeasureRequest { id, tokens, n_given, n_top: n_top as usize, share, deadline })
        });
        let measured: std::result::Result<Vec<Measured>, InferenceError> =
            stream::iter(asked).buffered(window).try_collect().await;
        match measured {
            Ok(measured) => {
                let call = self.call()?;
                for one in &measured {
                    call.usage += Usage { input_tokens: one.input_tokens, cached_tokens: one.cached_tokens, output_tokens: 0 };
                }
                Ok(Ok(measured))
            }
            Err(error) => self.fail_branch(error),
        }
    }

    /// Makes tokens part of a branch, and of what its guest is charged for.
    fn add(&mut self, this: &Resource<Branch>, tokens: &[TokenId]) -> Result<()> {
        self.budget.hold(token_bytes(tokens.len()))?;
        let branch = self.table.get_mut(this)?;
        branch.tokens.reserve_exact(tokens.len());
        branch.tokens.extend_from_slice(tokens);
        Ok(())
    }

    fn stop_growing(&mut self, this: &Resource<Branch>) -> Result<()> {
        self.give_up(this.rep());
        self.table.get_mut(this)?.growing = None;
        Ok(())
    }
}

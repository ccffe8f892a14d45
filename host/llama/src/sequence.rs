//! One sequence of the batch: `prefill -> decode -> ended`, paused while its reader is behind.

use std::collections::VecDeque;

use llambo_inference::{
    AnswerEvent, FinishReason, Finished, GenerateRequest, InferenceError, Instant, RequestId, SamplingError, Share, Usage,
};

use crate::{
    constraint::{ActiveConstraint, Progress},
    error::LlamaError,
    ffi::Token,
    load::LoadedModel,
    sampler::{Candidate, Sampler},
    stream::EventSender,
    text::{Added, TextAssembler},
};

/// A checked and tokenized request with all the state of its generation.
pub(crate) struct Sequence {
    pub(crate) id: RequestId,
    pub(crate) share: Share,
    /// The prompt, and what was generated.
    pub(crate) tokens: Vec<Token>,
    pub(crate) n_prompt: usize,
    /// Tokens whose keys and values are in its stream.
    pub(crate) n_fed: usize,
    pub(crate) n_generated: u32,
    /// Of these, what it had generated when it got its place.
    pub(crate) n_generated_before: u32,
    /// Prompt tokens that did not have to be computed; `None` before it got a place.
    n_cached: Option<usize>,
    max_tokens: u32,
    ignore_end: bool,
    pub(crate) deadline: Option<Instant>,
    /// Since when its reader has been behind.
    pub(crate) paused_since: Option<Instant>,
    /// Events the channel had no room for.
    unsent: VecDeque<AnswerEvent>,
    sampler: Sampler,
    constraint: Option<ActiveConstraint>,
    text: TextAssembler,
    /// Tokens whose text was held back.
    n_held: u32,
    pub(crate) ended: bool,
    pub(crate) events: EventSender,
}

impl Sequence {
    /// # Errors
    /// What is wrong with the request.
    pub(crate) fn new(
        request: GenerateRequest,
        model: &LoadedModel,
        seed: u64,
        events: EventSender,
    ) -> Result<Self, InferenceError> {
        let prompt = model.tokens(&request.prompt)?;
        let sampling = request.sampling;
        if let Some(bias) = sampling.logit_bias.iter().find(|b| b.token >= model.info.n_vocab) {
            return Err(InferenceError::InvalidOption(SamplingError {
                option: "logit_bias",
                found: format!("token {}", bias.token),
                allowed: format!("one of the tokens 0 to {} of `{}`", model.info.n_vocab - 1, model.info.name).into(),
            }));
        }
        let constraint = sampling.constraint.as_ref().map(|c| model.constraints.compile(c)).transpose()?;
        let room = u32::try_from(model.info.n_context as usize - prompt.len()).unwrap_or(0);
        Ok(Self {
            id: request.id,
            share: request.share,
            n_prompt: prompt.len(),
            n_fed: 0,
            n_generated: 0,
            n_generated_before: 0,
            n_cached: None,
            max_tokens: sampling.max_tokens.unwrap_or(u32::MAX).min(room),
            ignore_end: sampling.ignore_eos && constraint.is_none(),
            deadline: request.deadline,
            paused_since: None,
            unsent: VecDeque::new(),
            sampler: Sampler::new(&sampling, sampling.seed.unwrap_or(seed), &prompt),
            constraint,
            text: TextAssembler::new(sampling.stop),
            n_held: 0,
            ended: false,
            events,
            tokens: prompt,
        })
    }

    /// It has its place, with the keys and values of its first `n_fed` tokens.
    pub(crate) fn start(&mut self, n_fed: usize) {
        self.n_fed = n_fed;
        self.n_generated_before = self.n_generated;
        self.n_cached.get_or_insert(n_fed);
    }

    /// Tokens still to be computed.
    pub(crate) fn n_unfed(&self) -> usize {
        self.tokens.len() - self.n_fed
    }

    /// Tokens to be computed before the next one can be chosen, when that is more than the one chosen last.
    pub(crate) fn n_to_prefill(&self) -> usize {
        let is_decoding = self.n_generated > 0 && self.n_unfed() <= 1;
        if self.ended || is_decoding { 0 } else { self.n_unfed() }
    }

    /// Whether its next token can be computed.
    pub(crate) fn can_decode(&self) -> bool {
        !self.ended && self.paused_since.is_none() && self.n_unfed() == 1 && self.n_generated > 0
    }

    /// Takes the next of its tokens to be computed, and where it stands.
    pub(crate) fn feed(&mut self) -> (Token, usize) {
        let position = self.n_fed;
        self.n_fed += 1;
        (self.tokens[position], position)
    }

    /// Tokens generated since it got its place.
    pub(crate) fn n_generated_since(&self) -> u32 {
        self.n_generated - self.n_generated_before
    }

    /// Takes the next token from its logits: `[n_vocab]` f32, changed in place.
    pub(crate) fn take_token(
        &mut self,
        logits: &mut [f32],
        candidates: &mut Vec<Candidate>,
        model: &LoadedModel,
        now: Instant,
    ) -> Result<(), LlamaError> {
        self.sampler.adjust(logits);
        if let Some(constraint) = &mut self.constraint {
            constraint.mask(logits)?;
        }
        let chosen = self.sampler.choose(logits, candidates).and_then(|t| Token::try_from(t).ok());
        let token = chosen.ok_or_else(|| {
            let is_damaged = logits.iter().any(|logit| logit.is_nan());
            let stuck = || LlamaError::Grammar("no token of this vocabulary can follow".into());
            if is_damaged { LlamaError::NotNumbers } else { stuck() }
        })?;
        self.n_generated += 1;
        if model.model.is_end(token) && !self.ignore_end {
            self.end(FinishReason::Stop, now);
            return Ok(());
        }
        self.tokens.push(token);
        self.sampler.accept(token);
        let progress = self.constraint.as_mut().map_or(Ok(Progress::Open), |c| c.accept(token))?;
        self.n_held += 1;
        let piece = usize::try_from(token).ok().and_then(|t| model.pieces.get(t)).map_or(&[][..], |p| p);
        match self.text.push(piece) {
            Added::Text(text) => self.emit_text(text, now),
            Added::Stopped(text) => {
                self.emit_text(text, now);
                self.text = TextAssembler::new(Vec::new());
                self.end(FinishReason::Stop, now);
                return Ok(());
            }
        }
        if progress == Progress::Complete {
            self.end(FinishReason::Stop, now);
        } else if self.n_generated >= self.max_tokens {
            self.end(FinishReason::Length, now);
        }
        Ok(())
    }

    fn end(&mut self, reason: FinishReason, now: Instant) {
        let rest = self.text.finish();
        self.emit_text(rest, now);
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let usage = Usage {
            input_tokens: narrow(self.n_prompt),
            cached_tokens: narrow(self.n_cached.unwrap_or(0)),
            output_tokens: self.n_generated,
        };
        self.ended = true;
        self.emit(AnswerEvent::Finished(Finished { reason, usage }), now);
    }

    fn emit_text(&mut self, text: String, now: Instant) {
        if !text.is_empty() {
            let n_tokens = std::mem::take(&mut self.n_held);
            self.emit(AnswerEvent::Piece { text, n_tokens }, now);
        }
    }

    fn emit(&mut self, event: AnswerEvent, now: Instant) {
        self.unsent.push_back(event);
        self.flush(now);
    }

    /// Sends what it can of what is unsent. Afterwards the sequence is paused exactly if something is left.
    pub(crate) fn flush(&mut self, now: Instant) {
        while let Some(event) = self.unsent.pop_front() {
            if let Err(event) = self.events.send(event) {
                self.unsent.push_front(event);
                self.paused_since.get_or_insert(now);
                return;
            }
        }
        self.paused_since = None;
    }

    /// Whether everything was said and handed over.
    pub(crate) fn is_delivered(&self) -> bool {
        self.ended && self.unsent.is_empty()
    }
}

//! One sequence of the batch: `prefill -> decode -> ended`, paused while its reader is behind. A measurement ends with its prefill.

use std::collections::VecDeque;

use llambo_inference::{AnswerEvent, FinishReason, Finished, Instant, RequestId, Sampling, Share, TokenId, TokenLog, Usage};

use crate::{
    constraint::{ActiveConstraint, Progress},
    error::LlamaError,
    ffi::Token,
    load::LoadedModel,
    measure::{self, Measuring},
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
    /// It generates nothing, and is measured instead.
    measuring: Option<Box<Measuring>>,
    log: Option<TokenLog>,
    /// What a smaller model guessed to follow `tokens`; computed with the step at hand.
    guesses: Vec<Token>,
    text: TextAssembler,
    /// Tokens whose text was held back.
    n_held: u32,
    pub(crate) ended: bool,
    pub(crate) events: EventSender,
}

/// What a sequence is made of, checked.
pub(crate) struct Beginning {
    pub(crate) id: RequestId,
    pub(crate) share: Share,
    pub(crate) deadline: Option<Instant>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) task: Task,
}

/// What is to be done with its tokens.
#[expect(clippy::large_enum_variant, reason = "made once for a request, and taken apart at once")]
pub(crate) enum Task {
    Generate {
        sampler: Sampler,
        /// At least 1, and no more than its context has room for.
        max_tokens: u32,
        ignore_end: bool,
        constraint: Option<ActiveConstraint>,
        stop: Vec<String>,
        log: Option<TokenLog>,
    },
    Measure(Measuring),
}

impl Sequence {
    pub(crate) fn new(beginning: Beginning, events: EventSender) -> Self {
        let Beginning { id, share, deadline, tokens, task } = beginning;
        let mut sequence = Self {
            id,
            share,
            n_prompt: tokens.len(),
            tokens,
            n_fed: 0,
            n_generated: 0,
            n_generated_before: 0,
            n_cached: None,
            max_tokens: 0,
            ignore_end: false,
            deadline,
            paused_since: None,
            unsent: VecDeque::new(),
            sampler: Sampler::new(&Sampling::greedy(1), 0, &[]),
            constraint: None,
            measuring: None,
            log: None,
            guesses: Vec::new(),
            text: TextAssembler::new(Vec::new()),
            n_held: 0,
            ended: false,
            events,
        };
        match task {
            Task::Measure(measuring) => sequence.measuring = Some(Box::new(measuring)),
            Task::Generate { sampler, max_tokens, ignore_end, constraint, stop, log } => {
                sequence.ignore_end = ignore_end && constraint.is_none();
                (sequence.sampler, sequence.max_tokens, sequence.constraint) = (sampler, max_tokens, constraint);
                (sequence.text, sequence.log) = (TextAssembler::new(stop), log);
            }
        }
        sequence
    }

    /// It has its place, with the keys and values of its first `n_fed` tokens.
    pub(crate) fn start(&mut self, n_fed: usize) {
        self.n_fed = n_fed;
        self.n_generated_before = self.n_generated;
        self.n_cached.get_or_insert(n_fed);
    }

    /// How many of its tokens need not be computed when their keys and values are there: all but those whose logits are wanted.
    pub(crate) fn n_reusable(&self) -> usize {
        self.measuring.as_ref().map_or(self.tokens.len() - 1, |m| m.first_output())
    }

    /// Whether the logits behind the token at `position` are wanted.
    pub(crate) fn wants_logits(&self, position: usize) -> bool {
        position >= self.n_reusable()
    }

    pub(crate) fn is_measured(&self) -> bool {
        self.measuring.is_some()
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

    /// Guesses that could be of use, at most: the last token is chosen and not guessed.
    pub(crate) fn n_guessable(&self) -> usize {
        (self.max_tokens - self.n_generated).saturating_sub(1) as usize
    }

    pub(crate) fn has_guesses(&self) -> bool {
        !self.guesses.is_empty()
    }

    /// Takes guesses to be computed with the next step.
    pub(crate) fn guess(&mut self, guesses: Vec<Token>) {
        self.guesses = guesses;
    }

    /// Guesses to be computed, each with where it stands, behind what `feed` gave.
    pub(crate) fn feed_guesses(&self) -> impl Iterator<Item = (Token, usize)> {
        self.guesses.iter().copied().zip(self.n_fed..)
    }

    /// Whether the next row of logits is still its own: the token chosen from row `n`, counted from 0, is the one guessed there.
    pub(crate) fn guessed_right(&self, n: usize) -> bool {
        !self.ended && self.guesses.get(n).is_some_and(|guess| self.tokens.last() == Some(guess))
    }

    /// Ends a step with guesses, of which the first `n_right` were right: their keys and values stay. Says how many tokens those are in all.
    pub(crate) fn settle_guesses(&mut self, n_right: usize) -> usize {
        self.guesses.clear();
        self.n_fed = (self.n_fed + n_right).min(self.tokens.len());
        self.n_fed
    }

    /// Tokens generated since it got its place.
    pub(crate) fn n_generated_since(&self) -> u32 {
        self.n_generated - self.n_generated_before
    }

    /// Takes one row of logits, `[n_vocab]` f32, changed in place: chooses the next token, or measures the one that is there.
    pub(crate) fn take_logits(
        &mut self,
        logits: &mut [f32],
        candidates: &mut Vec<Candidate>,
        model: &LoadedModel,
        now: Instant,
    ) -> Result<(), LlamaError> {
        let Some(measuring) = &mut self.measuring else { return self.take_token(logits, candidates, model, now) };
        if let Some(next) = measuring.take(logits, &self.tokens)? {
            let usage = self.usage();
            if let Some(measuring) = &mut self.measuring {
                measuring.finish(next, usage.input_tokens, usage.cached_tokens);
            }
            self.end(FinishReason::Length, now);
        }
        Ok(())
    }

    fn take_token(
        &mut self,
        logits: &mut [f32],
        candidates: &mut Vec<Candidate>,
        model: &LoadedModel,
        now: Instant,
    ) -> Result<(), LlamaError> {
        // what the sampler makes of them is not how likely they were
        let raw = self.log.as_ref().filter(|log| log.wants_logprobs()).map(|_| logits.to_vec());
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
        if let (Some(log), Ok(token)) = (&self.log, TokenId::try_from(token)) {
            log.push(token, raw.map_or(0.0, |raw| measure::logprob(&raw, token)));
        }
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
        self.ended = true;
        self.emit(AnswerEvent::Finished(Finished { reason, usage: self.usage() }), now);
    }

    fn usage(&self) -> Usage {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (input_tokens, cached_tokens) = (narrow(self.n_prompt), narrow(self.n_cached.unwrap_or(0)));
        Usage { input_tokens, cached_tokens, output_tokens: self.n_generated }
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

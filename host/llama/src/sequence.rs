//! One sequence of the batch: `prefill -> decode -> ended`, paused while its reader is behind. A measurement ends with its prefill.

use std::collections::VecDeque;

use llambo_inference::{
    AnswerEvent, FinishReason, Finished, Instant, Logged, RequestId, Sampling, Share, TokenId, TokenLog, TraceContext, Usage,
};

use crate::{
    constraint::{ActiveConstraint, Progress},
    error::LlamaError,
    ffi::Token,
    hooked::{Hooked, Ruling},
    load::LoadedModel,
    measure::{self, Measuring},
    sampler::{Candidate, Sampler},
    stream::EventSender,
    text::{Added, TextAssembler},
    traced::Traced,
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
    hooked: Option<Hooked>,
    /// What a smaller model guessed to follow `tokens`; computed with the step at hand.
    guesses: Vec<Token>,
    text: TextAssembler,
    is_replaying: bool,
    /// Tokens whose text was held back.
    n_held: u32,
    traced: Traced,
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
    /// Who looks at its tokens.
    pub(crate) hook: Option<Hooked>,
    /// The trace that it is part of.
    pub(crate) trace: Option<TraceContext>,
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
        let Beginning { id, share, deadline, tokens, task, hook, trace } = beginning;
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
            hooked: hook,
            guesses: Vec::new(),
            text: TextAssembler::new(Vec::new()),
            is_replaying: false,
            n_held: 0,
            traced: Traced::new(trace),
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
        self.traced.placed(n_fed);
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
        let raw = self.log.as_ref().and_then(TokenLog::n_top).map(|n_top| (logits.to_vec(), n_top));
        let forbidden = self.hooked.as_mut().map(|hooked| hooked.forbidden(logits, model)).unwrap_or_default();
        self.sampler.adjust(logits);
        if let Some(constraint) = &mut self.constraint {
            constraint.mask(logits)?;
        }
        let token = self.choose(logits, candidates, forbidden, model)?;
        self.n_generated += 1;
        self.traced.chose(now);
        let Some(token) = token.filter(|token| self.ignore_end || !model.model.is_end(*token)) else {
            self.end(FinishReason::Stop, now);
            return Ok(());
        };
        if let (Some(log), Ok(token)) = (&self.log, TokenId::try_from(token)) {
            log.push(raw.map_or_else(|| Logged::bare(token), |(raw, n_top)| measure::logged(&raw, token, n_top)));
        }
        self.settle(token, model, now)
    }

    /// Goes on behind the tokens that its log holds already: whatever follows from them happens again, but for what they took to compute.
    pub(crate) fn replay(&mut self, model: &LoadedModel, now: Instant) -> Result<(), LlamaError> {
        let logged = self.log.as_ref().map(|log| log.from(0, usize::MAX)).unwrap_or_default();
        self.is_replaying = true;
        for Logged { token, .. } in logged {
            let Some(token) = Token::try_from(token).ok().filter(|_| !self.ended) else { break };
            self.sampler.skip();
            if let Some(hooked) = &mut self.hooked {
                hooked.see(token, self.n_generated, model);
            }
            self.n_generated += 1;
            self.settle(token, model, now)?;
        }
        self.is_replaying = false;
        Ok(())
    }

    /// What was said while it went on behind its log, where that was all.
    pub(crate) fn into_said(self) -> impl Iterator<Item = AnswerEvent> {
        self.unsent.into_iter()
    }

    /// The token stands: what follows from it.
    fn settle(&mut self, token: Token, model: &LoadedModel, now: Instant) -> Result<(), LlamaError> {
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

    /// The next token, as far as its hook lets it; `None`: the hook ends the text here.
    fn choose(
        &mut self,
        logits: &mut [f32],
        candidates: &mut Vec<Candidate>,
        forbidden: Vec<usize>,
        model: &LoadedModel,
    ) -> Result<Option<Token>, LlamaError> {
        if let Some(token) = self.hooked.as_mut().and_then(Hooked::spliced) {
            return Ok(Some(token));
        }
        // what the hook takes away, to be given back where it takes everything
        let mut withheld: Vec<(usize, f32)> = Vec::new();
        let mut take = |token: usize, logits: &mut [f32]| {
            if let Some(logit) = logits.get_mut(token) {
                withheld.push((token, std::mem::replace(logit, f32::NEG_INFINITY)));
            }
        };
        for token in forbidden {
            take(token, logits);
        }
        while let Some(token) = self.sampler.choose(logits, candidates).and_then(|t| Token::try_from(t).ok()) {
            let Some(hooked) = self.hooked.as_mut().filter(|_| !model.model.is_end(token)) else { return Ok(Some(token)) };
            match hooked.rule(token, self.n_generated, self.constraint.is_some(), model) {
                Ruling::Take(token) => return Ok(Some(token)),
                Ruling::Stop => return Ok(None),
                Ruling::Again => take(usize::try_from(token).unwrap_or(usize::MAX), logits),
            }
        }
        if let (Some(hooked), false) = (&mut self.hooked, withheld.is_empty()) {
            hooked.overrule();
            // the last first: a token that was named twice had its own logit at first
            for (token, logit) in withheld.into_iter().rev() {
                logits[token] = logit;
            }
            let chosen = self.sampler.choose(logits, candidates).and_then(|t| Token::try_from(t).ok());
            if chosen.is_some() {
                return Ok(chosen);
            }
        }
        let is_damaged = logits.iter().any(|logit| logit.is_nan());
        let stuck = || LlamaError::Grammar("no token of this vocabulary can follow".into());
        Err(if is_damaged { LlamaError::NotNumbers } else { stuck() })
    }

    fn end(&mut self, reason: FinishReason, now: Instant) {
        let rest = self.text.finish();
        self.emit_text(rest, now);
        self.ended = true;
        self.traced.ended(self.usage(), reason);
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
        match (self.is_replaying, self.unsent.back_mut(), event) {
            (true, Some(AnswerEvent::Piece { text, n_tokens }), AnswerEvent::Piece { text: more, n_tokens: n_more }) => {
                text.push_str(&more);
                *n_tokens = n_tokens.saturating_add(n_more);
            }
            (_, _, event) => self.unsent.push_back(event),
        }
        if !self.is_replaying {
            self.flush(now);
        }
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

//! Guesses of a smaller model: it says what it would say, and the large one checks all of it in one call. What comes out is what the large one
//! says by itself; only the time differs.

use std::{sync::Arc, time::Duration};

use llambo_catalog::ModelFile;
use llambo_inference::{ModelName, TenantName};
use metrics::{Counter, counter};

use crate::{
    error::LlamaError,
    ffi::{Batch, Context, ContextParams, Model, Token},
    kv::radix::common,
    load::EngineSettings,
    sampler,
    sequence::Sequence,
    step::{
        slots::Slots,
        speculate::{MOST_SEQUENCES, Worth},
    },
};

/// Tokens in one call at most.
const MOST_TOKENS: u32 = 512;

/// A smaller model that guesses for a larger one.
#[derive(Clone, Debug)]
pub struct DraftSettings {
    /// Its file. It must have the same vocabulary.
    pub file: ModelFile,
    /// Tokens guessed at a time, at least 1.
    pub n_tokens: u32,
}

/// The smaller model, with what it has read of the sequences it guesses for.
pub(crate) struct Drafter {
    context: Context,
    batch: Batch,
    n_tokens: usize,
    streams: Vec<Stream>,
}

/// A stream of the smaller model.
#[derive(Clone, Default)]
struct Stream {
    /// For which place of the batch, and for whom: what was computed for one tenant is never another's beginning.
    owner: Option<(usize, TenantName)>,
    tokens: Vec<Token>,
}

/// A sequence to be guessed for.
struct Asked<'a> {
    id: usize,
    tenant: &'a TenantName,
    tokens: &'a [Token],
}

impl<'a> Asked<'a> {
    fn of(id: usize, sequence: &'a Sequence) -> Self {
        Self { id, tenant: &sequence.share.tenant, tokens: &sequence.tokens }
    }
}

/// Guesses where it pays. Without a smaller model it never does.
pub(crate) struct Guesser {
    drafter: Option<Drafter>,
    worth: Worth,
    guessed: Counter,
    guessed_right: Counter,
    n_guessed: usize,
    /// The step at hand took longer because the smaller model has a long text to read.
    is_reading: bool,
}

// === impl Guesser ===

impl Guesser {
    pub(crate) fn new(drafter: Option<Drafter>, model: &ModelName) -> Self {
        let name = model.to_string();
        Self {
            drafter,
            worth: Worth::default(),
            guessed: counter!("llambo_llama_guessed_tokens_total", "model" => name.clone()),
            guessed_right: counter!("llambo_llama_guessed_right_tokens_total", "model" => name),
            n_guessed: 0,
            is_reading: false,
        }
    }

    /// Gives the `n_ready` sequences that can decode their guesses, if these are likely to save time. Whether it did.
    pub(crate) fn guess(&mut self, slots: &mut Slots, n_ready: usize) -> bool {
        let Some(drafter) = &mut self.drafter else { return false };
        if !self.worth.guess(n_ready) {
            return false;
        }
        let ready =
            || slots.iter().enumerate().filter_map(|(id, slot)| Some((id, slot.as_deref()?))).filter(|(_, s)| s.can_decode());
        let most = ready().map(|(_, sequence)| sequence.n_guessable()).min().unwrap_or(0);
        if most == 0 {
            return false;
        }
        let sequences: Vec<Asked<'_>> = ready().map(|(id, sequence)| Asked::of(id, sequence)).collect();
        let guesses = match drafter.guess(&sequences, most) {
            Ok(Some(guesses)) => guesses,
            Ok(None) => {
                self.is_reading = true;
                self.worth.was_no_try(n_ready);
                return false;
            }
            Err(error) => {
                tracing::warn!(%error, "the draft model cannot guess and is given up");
                self.drafter = None;
                return false;
            }
        };
        let ids: Vec<usize> = sequences.into_iter().map(|asked| asked.id).collect();
        self.n_guessed = guesses.iter().map(Vec::len).sum();
        for (id, guesses) in ids.into_iter().zip(guesses) {
            if let Some(sequence) = &mut slots[id] {
                sequence.guess(guesses);
            }
        }
        true
    }

    /// The step took so long, guessing included, and gave so many tokens.
    pub(crate) fn learn(&mut self, n_ready: usize, is_guessed: bool, n_tokens: usize, took: Duration) {
        if self.drafter.is_none() || std::mem::take(&mut self.is_reading) {
            return;
        }
        self.worth.learn(n_ready, is_guessed, n_tokens, took);
        if is_guessed {
            self.guessed.increment(self.n_guessed as u64);
            self.guessed_right.increment(n_tokens.saturating_sub(n_ready) as u64);
        }
    }
}

// === impl Drafter ===

impl Drafter {
    /// Loads the smaller model.
    ///
    /// # Errors
    /// Its file, or a vocabulary that is not that of `large`.
    pub(crate) fn load(
        draft: &DraftSettings,
        large: &Model,
        settings: &EngineSettings,
        n_context: u32,
    ) -> Result<Arc<Model>, LlamaError> {
        let layers = i32::try_from(settings.n_gpu_layers).unwrap_or(i32::MAX);
        let model = Model::load(draft.file.path(), layers, &settings.devices)?;
        let refuse = |why: String| {
            let path = draft.file.path().display();
            Err(LlamaError::Settings(format!("`{path}` cannot guess for `{}`: {why}", settings.name)))
        };
        let piece =
            |model: &Model, token: usize| Token::try_from(token).map(|token| model.piece(token, true)).unwrap_or_default();
        if model.n_vocab() != large.n_vocab() {
            return refuse(format!("its vocabulary has {} tokens instead of {}", model.n_vocab(), large.n_vocab()));
        }
        if let Some(token) = (0..large.n_vocab()).find(|&token| piece(&model, token) != piece(large, token)) {
            return refuse(format!("token {token} of its vocabulary is another one"));
        }
        if model.n_context_trained() < n_context {
            return refuse(format!("it was trained for {} tokens, and `context` is {n_context}", model.n_context_trained()));
        }
        if model.forgets_only_all() || large.forgets_only_all() {
            return refuse("models that cannot take back tokens cannot check guesses".into());
        }
        Ok(Arc::new(model))
    }

    pub(crate) fn new(model: &Arc<Model>, n_tokens: u32, n_context: u32, n_threads: i32) -> Result<Self, LlamaError> {
        let n_sequences = u32::try_from(MOST_SEQUENCES).unwrap_or(1);
        let params = ContextParams { n_sequences, n_context, n_batch: MOST_TOKENS, n_threads, kv_q8: false, pooled: false };
        Ok(Self {
            context: Context::new(model, params)?,
            batch: Batch::default(),
            n_tokens: n_tokens as usize,
            streams: vec![Stream::default(); MOST_SEQUENCES],
        })
    }

    /// Guesses how these sequences go on: the same number of tokens for each, `most` at most. None while there is more to be read of them than one call takes.
    fn guess(&mut self, sequences: &[Asked<'_>], most: usize) -> Result<Option<Vec<Vec<Token>>>, LlamaError> {
        let places: Vec<usize> = self.places(sequences);
        let mut guesses = vec![Vec::new(); sequences.len()];
        let mut next: Vec<Token> = Vec::with_capacity(sequences.len());
        for (&place, asked) in places.iter().zip(sequences) {
            match self.read(place, asked.tokens)? {
                Some(token) => next.push(token),
                None => return Ok(None),
            }
        }
        for round in 0..self.n_tokens.min(most) {
            for (guess, &token) in guesses.iter_mut().zip(&next) {
                guess.push(token);
            }
            if round + 1 < self.n_tokens.min(most) {
                next = self.step(&places, &next)?;
            }
        }
        Ok(Some(guesses))
    }

    /// A stream for each, the one it had if it has one still.
    fn places(&mut self, sequences: &[Asked<'_>]) -> Vec<usize> {
        let owns = |stream: &Stream, asked: &Asked<'_>| {
            stream.owner.as_ref().is_some_and(|(id, tenant)| *id == asked.id && tenant == asked.tenant)
        };
        let is_wanted = |stream: &Stream| sequences.iter().any(|asked| owns(stream, asked));
        let mut free: Vec<usize> = (0..self.streams.len()).filter(|&place| !is_wanted(&self.streams[place])).collect();
        let mut places = Vec::with_capacity(sequences.len());
        for asked in sequences {
            let owned = self.streams.iter().position(|stream| owns(stream, asked));
            let place = owned.or_else(|| free.pop()).unwrap_or(0);
            if owned.is_none() {
                self.context.forget(place);
                self.streams[place] = Stream { owner: Some((asked.id, asked.tenant.clone())), tokens: Vec::new() };
            }
            places.push(place);
        }
        places
    }

    /// Brings a stream up to `tokens`, and says what would come next. None when it is not there yet: a long text is read in several steps,
    /// since others wait for their next token meanwhile.
    fn read(&mut self, place: usize, tokens: &[Token]) -> Result<Option<Token>, LlamaError> {
        let n_known = common(&self.streams[place].tokens, tokens).min(tokens.len().saturating_sub(1));
        if n_known < self.streams[place].tokens.len() {
            self.context.truncate(place, n_known);
            self.streams[place].tokens.truncate(n_known);
        }
        let end = tokens.len().min(n_known + MOST_TOKENS as usize);
        let mut output = 0;
        self.batch.clear();
        for (position, &token) in tokens.iter().enumerate().take(end).skip(n_known) {
            output = self.batch.push(token, position, place, position + 1 == tokens.len());
            self.streams[place].tokens.push(token);
        }
        self.decode()?;
        if end < tokens.len() { Ok(None) } else { self.best(output).map(Some) }
    }

    /// One more token for each stream, and what would come after it.
    fn step(&mut self, places: &[usize], next: &[Token]) -> Result<Vec<Token>, LlamaError> {
        self.batch.clear();
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_by_key(|&i| places[i]);
        let mut outputs = vec![0; places.len()];
        for i in order {
            let (place, token) = (places[i], next[i]);
            outputs[i] = self.batch.push(token, self.streams[place].tokens.len(), place, true);
            self.streams[place].tokens.push(token);
        }
        self.decode()?;
        outputs.into_iter().map(|place| self.best(place)).collect()
    }

    fn decode(&mut self) -> Result<(), LlamaError> {
        let done = self.context.decode(&mut self.batch);
        if done.is_err() {
            // what is in the streams now is not known
            for (place, stream) in self.streams.iter_mut().enumerate() {
                self.context.forget(place);
                *stream = Stream::default();
            }
        }
        done
    }

    fn best(&mut self, place: usize) -> Result<Token, LlamaError> {
        let logits = self.context.logits(std::iter::once(place)).pop().flatten();
        let token = logits.and_then(|logits| sampler::argmax(logits)).and_then(|token| Token::try_from(token).ok());
        token.ok_or(LlamaError::NotNumbers)
    }
}

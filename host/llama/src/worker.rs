//! The engine's thread: owns the context and every sequence in it.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Relaxed},
        mpsc::Receiver,
    },
    thread,
    time::Duration,
};

use llambo_inference::{Embedding, InferenceError, Instant};
use metrics::{Histogram, histogram};
use tokio::sync::oneshot;

use crate::{
    embed::Embedder,
    engine::Board,
    error::LlamaError,
    ffi::{Batch, Context, Token},
    load::{LoadedModel, PREFILL_TOKENS},
    sampler::Candidate,
    sequence::Sequence,
    step::{
        admit::{Slots, admit},
        assemble::{self, Outputs},
        retire::{Fate, fate, next_check},
    },
};

/// What the engine's thread is asked to do.
pub(crate) enum Command {
    Generate(Box<Sequence>),
    Embed { tokens: Vec<Token>, reply: oneshot::Sender<Result<Embedding, InferenceError>> },
}

pub(crate) struct Worker {
    model: Arc<LoadedModel>,
    context: Context,
    embedder: Embedder,
    inbox: Receiver<Command>,
    board: Arc<Board>,
    stall_timeout: Duration,
    slots: Slots,
    waiting: VecDeque<Box<Sequence>>,
    /// Ended, but their readers have not taken everything yet. They hold no place in the cache.
    #[expect(clippy::vec_box, reason = "sequences come in boxes and move between lists; their size should not move with them")]
    delivering: Vec<Box<Sequence>>,
    batch: Batch,
    outputs: Outputs,
    fillers: Vec<usize>,
    candidates: Vec<Candidate>,
    prefill_seconds: Histogram,
    decode_seconds: Histogram,
    batch_sequences: Histogram,
}

impl Worker {
    pub(crate) fn new(
        model: Arc<LoadedModel>,
        context: Context,
        embedder: Embedder,
        inbox: Receiver<Command>,
        board: Arc<Board>,
        stall_timeout: Duration,
    ) -> Self {
        let name = model.info.name.to_string();
        Self {
            slots: (0..model.info.n_sequences).map(|_| None).collect(),
            prefill_seconds: histogram!("llambo_llama_prefill_step_seconds", "model" => name.clone()),
            decode_seconds: histogram!("llambo_llama_decode_step_seconds", "model" => name.clone()),
            batch_sequences: histogram!("llambo_llama_batch_sequences", "model" => name),
            model,
            context,
            embedder,
            inbox,
            board,
            stall_timeout,
            waiting: VecDeque::new(),
            delivering: Vec::new(),
            batch: Batch::default(),
            outputs: Outputs::new(),
            fillers: Vec::new(),
            candidates: Vec::new(),
        }
    }

    /// Works until the engine is closed, and sleeps whenever there is nothing to compute.
    pub(crate) fn run(mut self) {
        while !self.board.is_closing.load(Acquire) {
            self.take_commands();
            self.retire();
            admit(&mut self.waiting, &mut self.slots);
            self.publish();
            let mut worked = self.prefill();
            worked |= self.decode();
            if !worked {
                self.sleep();
            }
        }
        // whoever is left learns it from the dropped senders
    }

    fn take_commands(&mut self) {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Generate(sequence) => self.waiting.push_back(sequence),
                Command::Embed { tokens, reply } if !reply.is_closed() => {
                    // whoever asked may be gone by then: nothing to do
                    let _ = reply.send(self.embedder.embed(&self.model.model, &tokens));
                    self.board.n_prompt_tokens.fetch_add(tokens.len() as u64, Relaxed);
                }
                Command::Embed { .. } => {}
            }
        }
    }

    fn retire(&mut self) {
        let (now, stall) = (Instant::now(), self.stall_timeout);
        for id in 0..self.slots.len() {
            let Some(mut sequence) = self.slots[id].take() else { continue };
            match fate(&mut sequence, now, stall) {
                Fate::Stays if sequence.ended => {
                    self.context.forget(id);
                    self.delivering.push(sequence);
                }
                Fate::Stays => self.slots[id] = Some(sequence),
                Fate::Delivered => {
                    self.context.forget(id);
                    self.leave(&sequence);
                }
                Fate::Ends(error) => {
                    self.context.forget(id);
                    self.end(sequence, error);
                }
            }
        }
        let judge = |worker: &mut Self, mut sequence: Box<Sequence>| match fate(&mut sequence, now, stall) {
            Fate::Stays => Some(sequence),
            Fate::Delivered => {
                worker.leave(&sequence);
                None
            }
            Fate::Ends(error) => {
                worker.end(sequence, error);
                None
            }
        };
        for sequence in std::mem::take(&mut self.delivering) {
            let kept = judge(self, sequence);
            self.delivering.extend(kept);
        }
        for sequence in std::mem::take(&mut self.waiting) {
            let kept = judge(self, sequence);
            self.waiting.extend(kept);
        }
    }

    /// One call with prompt tokens. Returns whether there were any.
    fn prefill(&mut self) -> bool {
        let budget = (PREFILL_TOKENS as usize).min(self.context.n_batch());
        assemble::prefill(&mut self.slots, budget, &mut self.batch, &mut self.outputs);
        if self.batch.is_empty() {
            return false;
        }
        let n = self.batch.len() as u64;
        let begun = Instant::now();
        let done = self.context.decode(&mut self.batch);
        self.prefill_seconds.record(begun.elapsed());
        self.board.n_prompt_tokens.fetch_add(n, Relaxed);
        self.sample(done);
        true
    }

    /// One call with the next token of every sequence that is ready. Returns whether there were any.
    fn decode(&mut self) -> bool {
        assemble::decode(&self.slots, &mut self.batch, &mut self.outputs, &mut self.fillers);
        if self.batch.is_empty() {
            return false;
        }
        let begun = Instant::now();
        let done = self.context.decode(&mut self.batch);
        self.decode_seconds.record(begun.elapsed());
        self.batch_sequences.record(self.outputs.len() as f64);
        for id in self.fillers.drain(..) {
            self.context.forget(id);
        }
        self.sample(done);
        true
    }

    /// Gives every output its sequence. A failed call ends the sequences that were in it.
    fn sample(&mut self, done: Result<(), LlamaError>) {
        let now = Instant::now();
        let failed = done.err().map(InferenceError::from);
        for (id, place) in std::mem::take(&mut self.outputs) {
            let Some(mut sequence) = self.slots[id].take() else { continue };
            let taken = match (&failed, self.context.logits(place)) {
                (Some(error), _) => Err(error.clone()),
                (None, None) => Err(LlamaError::BadBatch("an output is missing").into()),
                (None, Some(logits)) => {
                    self.board.n_generated_tokens.fetch_add(1, Relaxed);
                    sequence.take_token(logits, &mut self.candidates, &self.model, now).map_err(InferenceError::from)
                }
            };
            match taken {
                Ok(()) => self.slots[id] = Some(sequence),
                Err(error) => {
                    self.context.forget(id);
                    self.end(sequence, error);
                }
            }
        }
    }

    fn end(&self, sequence: Box<Sequence>, error: InferenceError) {
        self.leave(&sequence);
        tracing::debug!(
            request_id = %sequence.id, model = %self.model.info.name, seq_state = "ended early", n_prompt = sequence.prompt.len(),
            n_generated = sequence.n_generated, reason = error.reason(), "sequence ended"
        );
        sequence.events.fail(error);
    }

    fn leave(&self, _: &Sequence) {
        self.board.n_in_flight.fetch_sub(1, Relaxed);
    }

    fn publish(&self) {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let running = self.slots.iter().flatten();
        self.board.n_running.store(narrow(running.clone().count()), Relaxed);
        self.board.n_waiting.store(narrow(self.waiting.len()), Relaxed);
        self.board.n_kv_used.store(running.map(|s| s.n_cached() as u64).sum(), Relaxed);
    }

    /// Until a command, a reader or the next deadline. A wake-up between the last look and here is not lost: it makes `park` return at once.
    fn sleep(&self) {
        let all = self.slots.iter().flatten().chain(&self.delivering).chain(&self.waiting);
        match all.filter_map(|s| next_check(s, self.stall_timeout)).min() {
            Some(when) => thread::park_timeout(when.saturating_duration_since(Instant::now())),
            None => thread::park(),
        }
    }
}

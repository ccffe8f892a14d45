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

use llambo_inference::{InferenceError, Instant, TenantName};
use metrics::{Counter, Histogram, counter, histogram};
use rayon::{
    ThreadPool,
    iter::{IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator},
};
use tokio::sync::oneshot;

use crate::{
    choose::Choosing,
    draft::Guesser,
    embed::{Embed, Embedder},
    engine::Board,
    error::LlamaError,
    ffi::{Batch, Token},
    kv::{
        streams::Streams,
        travel::{Export, Exports},
    },
    load::LoadedModel,
    sampler::Candidate,
    sequence::Sequence,
    step::{
        admit,
        assemble::{self, Filler, Outputs},
        fair::Accounts,
        pace::Pace,
        retire::{Fate, fate, next_check},
        slots::Slots,
    },
};

/// From so many sequences on they choose their tokens on several threads: below, waking these takes longer.
const CHOOSE_TOGETHER: usize = 8;

/// What the engine's thread is asked to do.
pub(crate) enum Command {
    Generate(Box<Sequence>),
    Embed(Embed),
    Export(Export),
    Import { tenant: TenantName, tokens: Vec<Token>, bytes: Vec<u8>, reply: oneshot::Sender<bool> },
}

/// What helps the thread, each at its own task.
pub(crate) struct Tools {
    pub(crate) embedder: Embedder,
    pub(crate) guesser: Guesser,
    /// Threads that choose tokens; `None` where there is one core for all.
    pub(crate) choosers: Option<ThreadPool>,
}

pub(crate) struct Worker {
    model: Arc<LoadedModel>,
    streams: Streams,
    embedder: Embedder,
    inbox: Receiver<Command>,
    exports: Exports,
    board: Arc<Board>,
    stall_timeout: Duration,
    accounts: Accounts,
    guesser: Guesser,
    pace: Pace,
    slots: Slots,
    waiting: VecDeque<Box<Sequence>>,
    /// Ended, but their readers have not taken everything yet. They hold no place in the cache.
    #[expect(clippy::vec_box, reason = "sequences come in boxes and move between lists; their size should not move with them")]
    delivering: Vec<Box<Sequence>>,
    batch: Batch,
    outputs: Outputs,
    fillers: Vec<Filler>,
    candidates: Vec<Candidate>,
    /// Threads that choose tokens; `None` where there is one core for all.
    choosers: Option<ThreadPool>,
    prefill_seconds: Histogram,
    decode_seconds: Histogram,
    batch_sequences: Histogram,
    displaced: Counter,
}

impl Worker {
    pub(crate) fn new(
        model: Arc<LoadedModel>,
        streams: Streams,
        tools: Tools,
        inbox: Receiver<Command>,
        board: Arc<Board>,
        stall_timeout: Duration,
    ) -> Self {
        let Tools { embedder, guesser, choosers } = tools;
        let name = model.info.name.to_string();
        Self {
            slots: (0..model.info.n_sequences).map(|_| None).collect(),
            prefill_seconds: histogram!("llambo_llama_prefill_step_seconds", "model" => name.clone()),
            decode_seconds: histogram!("llambo_llama_decode_step_seconds", "model" => name.clone()),
            batch_sequences: histogram!("llambo_llama_batch_sequences", "model" => name.clone()),
            displaced: counter!("llambo_llama_displaced_sequences_total", "model" => name),
            model,
            streams,
            accounts: Accounts::default(),
            guesser,
            pace: Pace::default(),
            embedder,
            inbox,
            exports: Exports::default(),
            board,
            stall_timeout,
            waiting: VecDeque::new(),
            delivering: Vec::new(),
            batch: Batch::default(),
            outputs: Outputs::new(),
            fillers: Vec::new(),
            candidates: Vec::new(),
            choosers,
        }
    }

    /// Works until the engine is closed, and sleeps whenever there is nothing to compute.
    pub(crate) fn run(mut self) {
        while !self.board.is_closing.load(Acquire) {
            self.take_commands();
            self.streams.settle();
            self.exports.serve(&mut self.streams, &self.slots, &self.model.kv_kind);
            self.retire();
            self.admit();
            self.publish();
            let nobody_decoded = !self.slots.iter().flatten().any(|sequence| sequence.can_decode());
            let mut worked = self.prefill();
            if worked && nobody_decoded && self.starts_more() {
                // those that waited for what was just computed had better come along
                continue;
            }
            worked |= self.decode();
            if let Some(n_tokens) = self.embedder.serve_one(&self.model.model) {
                self.board.n_prompt_tokens.fetch_add(n_tokens, Relaxed);
                worked = true;
            }
            if !worked && !self.streams.copy_ahead(&self.slots) {
                self.sleep();
            }
        }
        // whoever is left learns it from the dropped senders
    }

    fn take_commands(&mut self) {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Generate(sequence) => {
                    self.accounts.enter(&sequence.share);
                    self.waiting.push_back(sequence);
                }
                Command::Embed(embed) => self.embedder.ask(embed, &self.model.info.name),
                Command::Export(export) => self.exports.ask(export),
                Command::Import { tenant, tokens, bytes, reply } => {
                    // whoever asked may be gone by then: nothing to do
                    let _ = reply.send(self.streams.import(&tenant, &tokens, bytes));
                }
            }
        }
    }

    fn retire(&mut self) {
        let (now, stall) = (Instant::now(), self.stall_timeout);
        for id in 0..self.slots.len() {
            let Some(mut sequence) = self.slots[id].take() else { continue };
            match fate(&mut sequence, now, stall) {
                Fate::Stays if sequence.ended => {
                    self.streams.leave(id, &sequence);
                    self.delivering.push(sequence);
                }
                Fate::Stays => self.slots[id] = Some(sequence),
                Fate::Delivered => {
                    self.streams.leave(id, &sequence);
                    self.leave(&sequence);
                }
                Fate::Ends(error) => {
                    self.streams.leave(id, &sequence);
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

    /// Gives streams to those whose turn it is, and takes them from those who had theirs.
    fn admit(&mut self) {
        while admit::has_room(&self.slots) && !self.waiting.is_empty() {
            let may_start = |sequence: &Sequence| !self.streams.is_worth_waiting(&self.slots, sequence);
            let Some(i) = admit::next(&self.waiting, &self.accounts, may_start) else { break };
            if self.slots.iter().all(Option::is_some) {
                let Some(id) = admit::displaced(&self.slots, &self.accounts, &self.waiting[i]) else { break };
                let Some(sequence) = self.slots[id].take() else { break };
                self.streams.leave(id, &sequence);
                self.displaced.increment(1);
                self.waiting.push_back(sequence);
            }
            let Some(mut sequence) = self.waiting.remove(i) else { break };
            let Some((id, n_fed)) = self.streams.start(&self.slots, &sequence) else { break };
            sequence.start(n_fed);
            self.board.n_cached_tokens.fetch_add(n_fed as u64, Relaxed);
            self.accounts.charge(&sequence.share, sequence.n_unfed(), 0);
            self.slots[id] = Some(sequence);
        }
    }

    /// Whether a sequence that waits could have a free stream now.
    fn starts_more(&mut self) -> bool {
        let may_start = |sequence: &Sequence| !self.streams.is_worth_waiting(&self.slots, sequence);
        self.slots.iter().any(Option::is_none) && admit::next(&self.waiting, &self.accounts, may_start).is_some()
    }

    /// One call with prompt tokens. Returns whether there were any.
    fn prefill(&mut self) -> bool {
        let others_decode = self.slots.iter().flatten().any(|sequence| sequence.can_decode());
        let budget = self.pace.budget(others_decode).min(self.streams.context.n_batch());
        assemble::prefill(&mut self.slots, &self.accounts, budget, &mut self.batch, &mut self.outputs);
        if self.batch.is_empty() {
            return false;
        }
        let begun = Instant::now();
        let done = self.streams.context.decode(&mut self.batch);
        self.prefill_seconds.record(begun.elapsed());
        self.board.n_prompt_tokens.fetch_add(self.batch.len() as u64, Relaxed);
        self.note_computed(&done);
        self.sample(done);
        // with what is done with the logits, of which a measurement has many
        self.pace.learn(self.batch.len(), begun.elapsed());
        true
    }

    /// A call was made: others may start from the prompts that are whole now. A failed call ends all that were in it, prompts that were in it only in
    /// part too.
    fn note_computed(&mut self, done: &Result<(), LlamaError>) {
        if done.is_err() {
            self.outputs = self.batch.sequences().map(|id| (id, 0)).collect();
            return;
        }
        let mut last = None;
        for &(id, _) in &self.outputs {
            // a measurement has many
            if let Some(sequence) = self.slots[id].as_ref().filter(|s| s.n_generated == 0)
                && last.replace(id) != Some(id)
            {
                self.streams.computed(id, sequence);
            }
        }
    }

    /// One call with the next token of every sequence that is ready, and with what may come behind it. Returns whether there were any.
    fn decode(&mut self) -> bool {
        let begun = Instant::now();
        let n_ready = self.slots.iter().flatten().filter(|sequence| sequence.can_decode()).count();
        let is_guessed = self.guesser.guess(&mut self.slots, n_ready);
        let free = |id| self.streams.n_kept(id);
        assemble::decode(&mut self.slots, free, &mut self.batch, &mut self.outputs, &mut self.fillers);
        if self.batch.is_empty() {
            return false;
        }
        let called = Instant::now();
        let done = self.streams.context.decode(&mut self.batch);
        let took = called.elapsed();
        self.decode_seconds.record(took);
        if !is_guessed {
            self.pace.learn_decode(took);
        }
        self.batch_sequences.record(n_ready as f64);
        let n_decoded = self.outputs.iter().filter(|(id, _)| self.slots[*id].as_ref().is_some_and(|s| s.n_generated > 0)).count();
        let n_read = self.batch.len() - self.fillers.len() - n_decoded;
        self.board.n_prompt_tokens.fetch_add(n_read as u64, Relaxed);
        self.note_computed(&done);
        for filler in self.fillers.drain(..) {
            self.streams.truncate(filler.id, filler.n_kept);
        }
        let n_taken = self.sample(done);
        self.guesser.learn(n_ready, is_guessed, n_taken, begun.elapsed());
        true
    }

    /// Gives every output its sequence, and lets it choose its next token. A failed call ends the sequences that were in it.
    /// Says how many tokens were chosen.
    fn sample(&mut self, done: Result<(), LlamaError>) -> usize {
        let mut n_taken = 0;
        let now = Instant::now();
        let outputs = std::mem::take(&mut self.outputs);
        let failed = done.err().map(InferenceError::from);
        let rows = self.streams.context.logits(outputs.iter().map(|(_, place)| *place));
        let mut choosing: Vec<Choosing<'_>> = Vec::with_capacity(outputs.len());
        for (&(id, _), logits) in outputs.iter().zip(rows) {
            match self.slots[id].take() {
                Some(sequence) => choosing.push(Choosing { id, sequence, logits, more: Vec::new(), taken: Ok(0) }),
                None => {
                    if let Some(one) = choosing.iter_mut().find(|one| one.id == id) {
                        one.more.push(logits);
                    }
                }
            }
        }
        let model = self.model.as_ref();
        let choose =
            |candidates: &mut Vec<Candidate>, one: &mut Choosing<'_>| one.choose(failed.as_ref(), candidates, model, now);
        match &self.choosers {
            Some(choosers) if choosing.len() >= CHOOSE_TOGETHER => choosers.install(|| {
                let all = choosing.par_iter_mut().with_min_len(CHOOSE_TOGETHER / 2);
                all.for_each_init(Vec::new, choose);
            }),
            _ => choosing.iter_mut().for_each(|one| choose(&mut self.candidates, one)),
        }
        let chosen: Vec<_> = choosing.into_iter().map(|one| (one.id, one.sequence, one.taken)).collect();
        for (id, mut sequence, taken) in chosen {
            match taken {
                Ok(n) => {
                    if sequence.has_guesses() {
                        let n_fed = sequence.settle_guesses(n - 1);
                        self.streams.take_back(id, n_fed);
                    }
                    if !sequence.is_measured() {
                        self.board.n_generated_tokens.fetch_add(n as u64, Relaxed);
                        self.accounts.charge(&sequence.share, 0, n);
                        n_taken += n;
                    }
                    self.slots[id] = Some(sequence);
                }
                Err(error) => {
                    self.streams.forget(id);
                    self.end(sequence, error);
                }
            }
        }
        n_taken
    }

    fn end(&mut self, sequence: Box<Sequence>, error: InferenceError) {
        self.leave(&sequence);
        tracing::debug!(
            request_id = %sequence.id, model = %self.model.info.name, seq_state = "ended early", n_prompt = sequence.n_prompt,
            n_generated = sequence.n_generated, reason = error.reason(), "sequence ended"
        );
        sequence.events.fail(error);
    }

    fn leave(&mut self, sequence: &Sequence) {
        self.accounts.leave(&sequence.share);
        self.board.n_in_flight.fetch_sub(1, Relaxed);
    }

    fn publish(&self) {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let running = self.slots.iter().flatten();
        self.board.n_running.store(narrow(running.clone().count()), Relaxed);
        self.board.n_waiting.store(narrow(self.waiting.len()), Relaxed);
        self.board.n_kv_used.store(running.map(|s| s.n_fed as u64).sum(), Relaxed);
        let kept = self.streams.kept();
        self.board.kv_memory_bytes.store(kept.memory, Relaxed);
        self.board.kv_disk_bytes.store(kept.disk, Relaxed);
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

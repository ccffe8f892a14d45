//! The handle of an engine: checks requests, hands them to its thread, and joins it in the end.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use futures::StreamExt;
use llambo_catalog::ModelFile;
use llambo_inference::{
    AnswerStream, EmbedFuture, EngineLoad, ExportFuture, ExtendRequest, GenerateRequest, Generation, ImportFuture,
    InferenceEngine, InferenceError, Instant, KeptState, Mask, MeasureFuture, MeasureRequest, ModelInfo, ModelName, Prompt,
    Sampling, SamplingError, TenantName, TokenHooks, TokenId, TokenLog,
};
use tokio::sync::oneshot;

use crate::{
    cores::{choosers, stay_on_the_last},
    draft::{Drafter, Guesser},
    embed::{Embed, Embedder, MAX_EMBED_TOKENS},
    ending::EngineThread,
    error::LlamaError,
    ffi::{Context, ContextParams, Token},
    kv::{
        allowance::Allowances,
        disk::Disk,
        kept::{Budgets, KeptIndex},
        streams::Streams,
        travel::{Export, is_of_kind},
    },
    load::{EngineSettings, KvType, LoadedModel},
    measure::{Measuring, checked},
    sampler::{Sampler, TokenSet},
    sequence::{Beginning, Sequence, Task},
    step::pace::MOST_TOKENS,
    stream,
    worker::{Command, Tools, Worker},
};

/// A loaded model and the thread that decodes for it. When it and the last stream from it are dropped, the thread ends and
/// the weights are freed.
pub struct LlamaEngine {
    handle: Arc<Handle>,
    pub(crate) hooks: Option<Arc<dyn TokenHooks>>,
}

/// What streams keep alive.
pub(crate) struct Handle {
    model: Arc<LoadedModel>,
    commands: SyncSender<Command>,
    board: Arc<Board>,
    capacity: u32,
    thread: Mutex<EngineThread>,
    waker: thread::Thread,
}

/// Numbers that the thread writes and others read.
#[derive(Default)]
pub(crate) struct Board {
    pub(crate) is_closing: AtomicBool,
    /// Submitted and not yet left.
    pub(crate) n_in_flight: AtomicU32,
    pub(crate) n_running: AtomicU32,
    pub(crate) n_waiting: AtomicU32,
    pub(crate) n_kv_used: AtomicU64,
    pub(crate) n_prompt_tokens: AtomicU64,
    pub(crate) n_generated_tokens: AtomicU64,
    pub(crate) n_cached_tokens: AtomicU64,
    pub(crate) kv_memory_bytes: AtomicU64,
    pub(crate) kv_disk_bytes: AtomicU64,
}

impl LlamaEngine {
    /// Loads `file` and starts its thread. Takes as long as reading the weights; call it where blocking is allowed.
    ///
    /// # Errors
    /// The file, the settings, or too little memory for the KV cache.
    pub fn load(file: &ModelFile, settings: &EngineSettings) -> Result<Self, LlamaError> {
        let model = Arc::new(LoadedModel::load(file, settings)?);
        let n_threads = i32::try_from(settings.n_threads.clamp(1, 512)).unwrap_or(1);
        let params = ContextParams {
            n_sequences: settings.n_sequences,
            n_context: model.info.n_context,
            n_batch: u32::try_from(MOST_TOKENS).unwrap_or(u32::MAX).max(settings.n_sequences),
            n_threads,
            kv_q8: settings.kv_type == KvType::Q8,
            pooled: false,
        };
        let capacity = settings.n_sequences.saturating_add(settings.n_waiting);
        // room for every request that `n_in_flight` lets in, and as many embeddings
        let (commands, inbox) = sync_channel(2 * capacity as usize);
        let board = Arc::<Board>::default();
        let (ready, is_ready) = sync_channel(1);
        let (gone, is_gone) = sync_channel::<()>(1);
        let (shared, seen, stall) = (Arc::clone(&model), Arc::clone(&board), settings.stall_timeout);
        let budgets = Budgets { memory: settings.kv_memory_bytes, disk: settings.kv_disk_bytes };
        let kept = KeptIndex::new(params.n_sequences as usize, budgets, Allowances::new(&settings.kv_allowances));
        let folder = settings.kv_folder.clone().filter(|_| budgets.disk > 0);
        let thread = thread::Builder::new()
            .name(format!("llama {}", settings.name))
            .spawn(move || {
                let _gone = gone;
                // made here, because a context stays on its thread
                let context = match Context::new(&shared.model, params) {
                    Ok(context) => context,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let disk = folder.map(|folder| {
                    Disk::open(&folder, shared.kv_kind, thread::current()).map_err(|error| LlamaError::KvFolder { folder, error })
                });
                let disk = match disk.transpose() {
                    Ok(disk) => disk,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let streams = Streams::new(context, kept, disk);
                let draft = shared.draft.as_ref();
                let drafter = draft.map(|(model, n)| Drafter::new(model, *n, params.n_context, n_threads));
                let guesser = match drafter.transpose() {
                    Ok(drafter) => Guesser::new(drafter, &shared.info.name),
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let embedder = Embedder::new(shared.info.n_context, n_threads, capacity as usize);
                let tools = Tools { embedder, guesser, choosers: choosers(n_threads) };
                let worker = Worker::new(shared, streams, tools, inbox, seen, stall);
                if ready.send(Ok(())).is_ok() {
                    stay_on_the_last(n_threads);
                    worker.run();
                }
            })
            .map_err(LlamaError::Thread)?;
        let died = || LlamaError::Settings(format!("the engine thread of `{}` ended while it started", settings.name));
        is_ready.recv().map_err(|_| died())??;
        let info = &model.info;
        tracing::debug!(
            model = %info.name, n_params = info.n_params, n_context = info.n_context, n_sequences = info.n_sequences,
            digest = info.digest, "engine thread runs"
        );
        let waker = thread.thread().clone();
        let thread = Mutex::new(EngineThread::new(thread, is_gone));
        let handle = Arc::new(Handle { model, commands, board, capacity, thread, waker });
        Ok(Self { handle, hooks: None })
    }

    fn send(&self, command: Command) -> Result<(), InferenceError> {
        self.handle.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => self.full(),
            TrySendError::Disconnected(_) => InferenceError::Stopped(self.handle.name().to_string()),
        })?;
        self.handle.wake();
        Ok(())
    }

    /// Hands a sequence to the thread, if there is room for one more.
    fn enter(&self, beginning: Beginning) -> Result<AnswerStream, InferenceError> {
        check_deadline(beginning.deadline)?;
        let (sender, reader) = stream::channel(Arc::clone(&self.handle));
        let mut sequence = Box::new(Sequence::new(beginning, sender));
        sequence.replay(&self.handle.model, Instant::now())?;
        if sequence.ended {
            return Ok(futures::stream::iter(sequence.into_said().map(Ok)).boxed());
        }
        let board = &self.handle.board;
        let admitted = board.n_in_flight.fetch_update(AcqRel, Acquire, |n| (n < self.handle.capacity).then_some(n + 1));
        admitted.map_err(|_| self.full())?;
        if let Err(error) = self.send(Command::Generate(sequence)) {
            board.n_in_flight.fetch_sub(1, Relaxed);
            return Err(error);
        }
        Ok(Box::pin(reader))
    }

    /// What is to be done with `tokens`, checked against the model.
    fn generation(
        &self,
        tokens: &[Token],
        sampling: Sampling,
        mask: Option<Mask>,
        log: Option<TokenLog>,
    ) -> Result<Task, InferenceError> {
        let model = &self.handle.model;
        if let Some(bias) = sampling.logit_bias.iter().find(|b| b.token >= model.info.n_vocab) {
            return Err(InferenceError::InvalidOption(SamplingError {
                option: "logit_bias",
                found: format!("token {}", bias.token),
                allowed: format!("one of the tokens 0 to {} of `{}`", model.info.n_vocab - 1, model.info.name).into(),
            }));
        }
        let mask = mask.map(|mask| TokenSet::new(&mask, model.info.n_vocab)).transpose().map_err(|token| self.unknown(token))?;
        let room = u32::try_from(model.info.n_context as usize - tokens.len()).unwrap_or(0);
        let seed = sampling.seed.unwrap_or_else(rand::random);
        Ok(Task::Generate {
            sampler: Sampler::new(&sampling, seed, tokens).masked(mask),
            max_tokens: sampling.max_tokens.unwrap_or(u32::MAX).min(room),
            ignore_end: sampling.ignore_eos,
            constraint: sampling.constraint.as_ref().map(|c| model.constraints.compile(c)).transpose()?,
            stop: sampling.stop,
            log,
        })
    }

    /// Tokens that a caller holds, if they can be computed and leave `room` for more.
    fn checked(&self, tokens: &[TokenId], room: usize) -> Result<Vec<Token>, InferenceError> {
        let info = &self.handle.model.info;
        if tokens.is_empty() {
            return Err(InferenceError::InvalidRequest("there are no tokens; begin with a text".into()));
        }
        if tokens.len() + room > info.n_context as usize {
            let (model, n_prompt) = (info.name.clone(), tokens.len() as u64);
            return Err(InferenceError::PromptTooLong { model, n_prompt, n_context: info.n_context });
        }
        checked(tokens, info.n_vocab).map_err(|token| self.unknown(token))
    }

    fn unknown(&self, token: TokenId) -> InferenceError {
        let info = &self.handle.model.info;
        let last = info.n_vocab - 1;
        InferenceError::InvalidRequest(format!("there is no token {token}; those of `{}` are 0 to {last}", info.name))
    }

    fn embeddable(&self, text: String) -> Result<Vec<Token>, InferenceError> {
        let model = &self.handle.model;
        let name = &model.info.name;
        if !model.embeddings {
            let what = format!("`{name}` was loaded with `embeddings: false`; ask another model, or set it to true and restart");
            return Err(InferenceError::InvalidRequest(what));
        }
        let tokens = model.tokens(&Prompt::Text(text))?;
        if tokens.len() > MAX_EMBED_TOKENS as usize {
            let (model, n_prompt) = (name.clone(), tokens.len() as u64);
            return Err(InferenceError::PromptTooLong { model, n_prompt, n_context: MAX_EMBED_TOKENS });
        }
        Ok(tokens)
    }

    fn full(&self) -> InferenceError {
        InferenceError::Full {
            what: self.handle.name().to_string(),
            in_flight: self.handle.board.n_in_flight.load(Relaxed) as usize,
            capacity: self.handle.capacity as usize,
        }
    }
}

fn check_deadline(deadline: Option<Instant>) -> Result<(), InferenceError> {
    match deadline {
        Some(deadline) if deadline <= Instant::now() => Err(InferenceError::DeadlineExceeded { n_generated: 0 }),
        _ => Ok(()),
    }
}

fn published(tokens: &[Token]) -> Vec<TokenId> {
    tokens.iter().filter_map(|token| TokenId::try_from(*token).ok()).collect()
}

impl InferenceEngine for LlamaEngine {
    fn submit(&self, request: GenerateRequest) -> Result<AnswerStream, InferenceError> {
        // a late request is not even read
        check_deadline(request.deadline)?;
        let tokens = self.handle.model.tokens(&request.prompt)?;
        let GenerateRequest { id, share, deadline, sampling, prompt, log, routing, .. } = request;
        let generation = Generation {
            n_prompt_bytes: prompt.n_bytes(),
            n_messages: prompt.n_messages(),
            ..Generation::of_tokens(&id, self.handle.name(), &share, &sampling, deadline)
        };
        let task = self.generation(&tokens, sampling, None, log)?;
        let hook = self.hook(&generation);
        let trace = routing.trace;
        self.enter(Beginning { id, share, deadline, tokens, task, hook, trace })
    }

    fn tokens(&self, prompt: &Prompt) -> Result<Vec<TokenId>, InferenceError> {
        Ok(published(&self.handle.model.tokens(prompt)?))
    }

    fn tokens_within(&self, text: &str) -> Result<Vec<TokenId>, InferenceError> {
        Ok(published(&self.handle.model.tokens_within(text)?))
    }

    fn bytes_of(&self, tokens: &[TokenId]) -> Vec<u8> {
        let pieces = &self.handle.model.pieces;
        tokens.iter().filter_map(|token| pieces.get(*token as usize)).flat_map(|piece| piece.iter().copied()).collect()
    }

    fn extend(&self, request: ExtendRequest) -> Result<AnswerStream, InferenceError> {
        let tokens = self.checked(&request.tokens, 1)?;
        let ExtendRequest { id, share, deadline, sampling, mask, log, .. } = request;
        let generation = Generation::of_tokens(&id, self.handle.name(), &share, &sampling, deadline);
        let task = self.generation(&tokens, sampling, mask, Some(log))?;
        let hook = self.hook(&generation);
        self.enter(Beginning { id, share, deadline, tokens, task, hook, trace: None })
    }

    fn measure(&self, request: MeasureRequest) -> MeasureFuture {
        let (reply, told) = oneshot::channel();
        let entered = self.checked(&request.tokens, 0).and_then(|tokens| {
            if !(1..=tokens.len()).contains(&request.n_given) {
                let what = format!("{} of {} tokens cannot be given; give at least one", request.n_given, tokens.len());
                return Err(InferenceError::InvalidRequest(what));
            }
            let task = Task::Measure(Measuring::new(request.n_given, request.n_top, reply));
            let MeasureRequest { id, share, deadline, .. } = request;
            self.enter(Beginning { id, share, deadline, tokens, task, hook: None, trace: None })
        });
        let handle = Arc::clone(&self.handle);
        Box::pin(async move {
            let mut events = entered?;
            // it says nothing until it has ended
            while let Some(event) = events.next().await {
                event?;
            }
            told.await.map_err(|_| InferenceError::Stopped(handle.name().to_string()))
        })
    }

    fn embed(&self, text: String) -> EmbedFuture {
        let (reply, answer) = oneshot::channel();
        let sent = self.embeddable(text).and_then(|tokens| self.send(Command::Embed(Embed { tokens, reply })));
        let handle = Arc::clone(&self.handle);
        Box::pin(async move {
            sent?;
            answer.await.unwrap_or_else(|_| Err(InferenceError::Stopped(handle.name().to_string())))
        })
    }

    fn export(&self, tenant: TenantName, tokens: Vec<TokenId>) -> ExportFuture {
        let (reply, answer) = oneshot::channel();
        let asked = self.checked(&tokens, 0).and_then(|tokens| self.send(Command::Export(Export { tenant, tokens, reply })));
        let handle = Arc::clone(&self.handle);
        Box::pin(async move {
            asked?;
            answer.await.map_err(|_| InferenceError::Stopped(handle.name().to_string()))
        })
    }

    fn import(&self, tenant: TenantName, state: KeptState) -> ImportFuture {
        let KeptState { kind, tokens, bytes } = state;
        if !is_of_kind(&kind, &self.handle.model.kv_kind) {
            return Box::pin(async { Ok(false) });
        }
        let (reply, answer) = oneshot::channel();
        let asked = self.checked(&tokens, 0).and_then(|tokens| self.send(Command::Import { tenant, tokens, bytes, reply }));
        let handle = Arc::clone(&self.handle);
        Box::pin(async move {
            asked?;
            answer.await.map_err(|_| InferenceError::Stopped(handle.name().to_string()))
        })
    }

    fn info(&self) -> &ModelInfo {
        &self.handle.model.info
    }

    fn load(&self) -> EngineLoad {
        let board = &self.handle.board;
        let info = &self.handle.model.info;
        EngineLoad {
            n_running: board.n_running.load(Relaxed),
            n_waiting: board.n_waiting.load(Relaxed),
            n_kv_used: board.n_kv_used.load(Relaxed),
            n_kv_total: u64::from(info.n_context) * u64::from(info.n_sequences),
            n_prompt_tokens: board.n_prompt_tokens.load(Relaxed),
            n_generated_tokens: board.n_generated_tokens.load(Relaxed),
            n_cached_tokens: board.n_cached_tokens.load(Relaxed),
            kv_memory_bytes: board.kv_memory_bytes.load(Relaxed),
            kv_disk_bytes: board.kv_disk_bytes.load(Relaxed),
        }
    }
}

// === impl Handle ===

impl Handle {
    pub(crate) fn name(&self) -> &ModelName {
        &self.model.info.name
    }

    /// Makes the thread look again.
    pub(crate) fn wake(&self) {
        self.waker.unpark();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.board.is_closing.store(true, Release);
        self.wake();
        self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).end(&self.model.info.name);
    }
}

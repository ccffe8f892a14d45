//! What happens in an execution context: inputs kept, generations run, outputs fetched.

use std::sync::Arc;

use llambo_inference::{FinishReason, Finished, InferenceEngine, InferenceError, ModelName, Prompt};

use super::{
    Errno, Graph, Handles, Refused,
    options::{Options, Unfit},
};
use crate::{nn::Output, state::GuestState};

/// Where `compute` happens.
#[derive(Default)]
pub(super) struct ExecutionContext {
    model: Option<ModelName>,
    options: Options,
    prompt: Option<String>,
    /// Tokens of the prompt, once somebody asked.
    n_input: Option<u32>,
    n_output: u32,
    /// Everything generated since `compute` began, and the last piece of it.
    text: Vec<u8>,
    piece: Vec<u8>,
    /// What was begun since the inputs were set.
    generation: Option<Generation>,
}

#[derive(Clone, Copy)]
struct Generation {
    /// Tokens of the model's context.
    n_context: u32,
    /// How it ended, once it has.
    ended: Option<Errno>,
}

/// A guest's handles with its budget and its request.
pub(super) struct Calls<'a> {
    pub(super) guest: &'a mut GuestState,
    pub(super) handles: &'a mut Handles,
}

// === impl ExecutionContext ===

impl ExecutionContext {
    fn n_bytes(&self) -> usize {
        let prompt = self.prompt.as_ref().map_or(0, String::len);
        size_of::<Self>() + self.options.n_bytes() + prompt + self.text.len() + self.piece.len()
    }
}

// === impl Calls ===

impl Calls<'_> {
    pub(super) fn load(&mut self, name: &str, options: &[u8]) -> Result<u32, Refused> {
        let model = self.guest.model_named(name).map_err(|error| self.failed(error))?;
        let mut graph = Graph { model, options: Options::default() };
        if !options.is_empty() {
            graph.options.add(options).map_err(|unfit| self.unfit(unfit))?;
        }
        self.guest.budget.hold(graph.options.n_bytes())?;
        Handles::add(&mut self.handles.graphs, graph)
    }

    pub(super) fn unload(&mut self, graph: u32) -> Result<(), Refused> {
        let n_bytes = self.handles.graph(graph)?.options.n_bytes();
        self.handles.graphs[graph as usize] = None;
        self.guest.budget.release(n_bytes);
        Ok(())
    }

    pub(super) fn open(&mut self, graph: u32) -> Result<u32, Refused> {
        let Graph { model, options } = self.handles.graph(graph)?.clone();
        let context = ExecutionContext { model, options, ..ExecutionContext::default() };
        self.guest.budget.hold(context.n_bytes())?;
        Handles::add(&mut self.handles.contexts, context)
    }

    pub(super) fn close(&mut self, context: u32) -> Result<(), Refused> {
        let n_bytes = self.handles.context(context)?.n_bytes();
        self.guest.give_up(context);
        self.handles.contexts[context as usize] = None;
        self.guest.budget.release(n_bytes);
        Ok(())
    }

    /// Changes a context, and what it is charged.
    fn change<T>(&mut self, context: u32, change: impl FnOnce(&mut ExecutionContext) -> T) -> Result<T, Refused> {
        let held = self.handles.context(context)?;
        let before = held.n_bytes();
        let done = change(held);
        let after = held.n_bytes();
        self.guest.budget.hold(after)?;
        self.guest.budget.release(before);
        Ok(done)
    }

    /// Input 0 is the prompt, input 1 options.
    pub(super) fn set_input(&mut self, context: u32, index: u32, data: Vec<u8>) -> Result<(), Refused> {
        self.handles.context(context)?;
        self.guest.give_up(context);
        match index {
            0 => {
                let invalid = |_| Refused::Told(Errno::InvalidArgument);
                let prompt = String::from_utf8(data).map_err(invalid)?;
                self.change(context, |context| {
                    let (model, options) = (context.model.take(), std::mem::take(&mut context.options));
                    *context = ExecutionContext { model, options, prompt: Some(prompt), ..ExecutionContext::default() };
                })
            }
            1 => {
                let added = self.change(context, |context| {
                    context.generation = None;
                    context.options.add(&data)
                })?;
                added.map_err(|unfit| self.unfit(unfit))
            }
            _ => Err(Refused::Told(Errno::InvalidArgument)),
        }
    }

    /// The whole answer, or the embedding.
    pub(super) async fn compute(&mut self, context: u32) -> Result<(), Refused> {
        if self.handles.context(context)?.options.embedding() {
            return self.embed(context).await;
        }
        self.guest.give_up(context);
        self.change(context, |context| (context.generation, context.text, context.n_output) = (None, Vec::new(), 0))?;
        loop {
            match self.compute_single(context).await {
                Ok(()) => {
                    if self.handles.context(context)?.options.stream_stdout() {
                        let piece = self.handles.context(context)?.piece.clone();
                        self.guest.call()?.voice.say(&piece).await?;
                    }
                }
                Err(Refused::Told(Errno::EndOfSequence)) => return Ok(()),
                Err(refused) => return Err(refused),
            }
        }
    }

    /// The next piece of the answer, a token or a few.
    pub(super) async fn compute_single(&mut self, context: u32) -> Result<(), Refused> {
        let Generation { n_context, ended } = match self.handles.context(context)?.generation {
            Some(generation) => generation,
            None => self.begin(context).await?,
        };
        let Some(session) = self.guest.call()?.sessions.get_mut(&context) else {
            return Err(Refused::Told(ended.unwrap_or(Errno::EndOfSequence)));
        };
        let Output { text, n_tokens, finished } = match session.next().await {
            Ok(output) => output,
            Err(error) => {
                self.guest.give_up(context);
                return Err(self.failed(error));
            }
        };
        self.guest.note_tokens(n_tokens)?;
        self.change(context, |context| {
            context.n_output = context.n_output.saturating_add(n_tokens);
            context.piece = text.into_bytes();
            context.text.extend_from_slice(&context.piece);
        })?;
        let Some(finished) = finished else { return Ok(()) };
        let call = self.guest.call()?;
        call.sessions.remove(&context);
        call.usage += finished.usage;
        call.finish_reason = finished.reason;
        let held = self.handles.context(context)?;
        let ended = end(finished, n_context);
        held.n_input = Some(finished.usage.input_tokens);
        held.generation = Some(Generation { n_context, ended: Some(ended) });
        // with text, the end is told by the next call
        if held.piece.is_empty() { Err(Refused::Told(ended)) } else { Ok(()) }
    }

    async fn begin(&mut self, context: u32) -> Result<Generation, Refused> {
        let held = self.handles.context(context)?;
        let (model, prompt, options) = (held.model.clone(), held.prompt.clone(), held.options.clone());
        let engine = self.engine(model)?;
        let generation = Generation { n_context: engine.info().n_context, ended: None };
        let prompt = prompt.ok_or(Refused::Told(Errno::InvalidArgument))?;
        let sampling = options.over(&self.guest.call()?.sampling).map_err(|unfit| self.unfit(unfit))?;
        let started = self.guest.generate(engine, Prompt::Text(prompt), move |_| Ok(sampling), true, false).await?;
        match started {
            Ok(session) => self.guest.begin_session(context, session)?,
            Err(error) => return Err(self.failed(error)),
        }
        self.change(context, |context| {
            (context.generation, context.n_output) = (Some(generation), 0);
            context.text.clear();
        })?;
        Ok(generation)
    }

    async fn embed(&mut self, context: u32) -> Result<(), Refused> {
        let held = self.handles.context(context)?;
        let prompt = held.prompt.clone().ok_or(Refused::Told(Errno::InvalidArgument))?;
        let model = held.model.clone();
        let engine = self.engine(model)?;
        let embedding = match self.guest.embedding(engine, prompt).await? {
            Ok(embedding) => embedding,
            Err(error) => return Err(self.failed(error)),
        };
        let json = serde_json::json!({ "n_embedding": embedding.values.len(), "embedding": embedding.values });
        self.change(context, |context| {
            context.text = json.to_string().into_bytes();
            (context.n_input, context.n_output) = (Some(embedding.input_tokens), 0);
        })
    }

    /// Ends what runs, and leaves what was generated to be fetched.
    pub(super) fn fini_single(&mut self, context: u32) -> Result<(), Refused> {
        self.handles.context(context)?.generation = None;
        self.guest.give_up(context);
        Ok(())
    }

    /// Output 0 is the text, output 1 what is known about it.
    pub(super) async fn output(&mut self, context: u32, index: u32, is_single: bool) -> Result<Vec<u8>, Refused> {
        let held = self.handles.context(context)?;
        match index {
            0 if is_single => Ok(held.piece.clone()),
            0 => Ok(held.text.clone()),
            1 => {
                let (n_output, n_input) = (held.n_output, self.n_input(context).await?);
                let json = serde_json::json!({
                    "input_tokens": n_input,
                    "output_tokens": n_output,
                    "llama_build_number": 0,
                    "llama_commit": concat!("llambo-", env!("CARGO_PKG_VERSION")),
                });
                Ok(json.to_string().into_bytes())
            }
            _ => Err(Refused::Told(Errno::InvalidArgument)),
        }
    }

    async fn n_input(&mut self, context: u32) -> Result<u32, Refused> {
        let held = self.handles.context(context)?;
        let (model, prompt) = (held.model.clone(), held.prompt.clone());
        match (held.n_input, prompt) {
            (Some(n), _) => Ok(n),
            (None, None) => Ok(0),
            (None, Some(prompt)) => {
                let engine = self.engine(model)?;
                let read = tokio::task::spawn_blocking(move || engine.tokens(&Prompt::Text(prompt))).await;
                let n = match read.map_err(|e| wasmtime::format_err!("{e}"))? {
                    Ok(tokens) => u32::try_from(tokens.len()).unwrap_or(u32::MAX),
                    Err(error) => return Err(self.failed(error)),
                };
                self.handles.context(context)?.n_input = Some(n);
                Ok(n)
            }
        }
    }

    fn engine(&mut self, model: Option<ModelName>) -> Result<Arc<dyn InferenceEngine>, Refused> {
        self.guest.engine(model).map_err(|error| self.failed(error))
    }

    /// Remembers the cause: a guest that gives up because of a number cannot describe it.
    fn failed(&mut self, error: InferenceError) -> Refused {
        let errno = Errno::from(&error);
        match self.guest.call() {
            Ok(call) => {
                call.last_error = Some(error);
                Refused::Told(errno)
            }
            Err(trap) => Refused::Trap(trap),
        }
    }

    fn unfit(&mut self, unfit: Unfit) -> Refused {
        let (errno, what) = match unfit {
            Unfit::Invalid(what) => (Errno::InvalidArgument, what),
            Unfit::Denied(what) => (Errno::UnsupportedOperation, what),
        };
        let _ = self.failed(InferenceError::InvalidRequest(what));
        Refused::Told(errno)
    }
}

/// How WasmEdge calls the end of a generation.
fn end(finished: Finished, n_context: u32) -> Errno {
    let n_tokens = finished.usage.input_tokens.saturating_add(finished.usage.output_tokens);
    match finished.reason {
        FinishReason::Length if n_tokens >= n_context => Errno::ContextFull,
        _ => Errno::EndOfSequence,
    }
}

#[cfg(test)]
mod tests {
    use llambo_inference::Usage;

    use super::*;

    #[test]
    fn only_a_full_context_is_called_full() {
        let ended = |reason, output_tokens| {
            end(Finished { reason, usage: Usage { input_tokens: 10, cached_tokens: 0, output_tokens } }, 64)
        };
        assert_eq!(ended(FinishReason::Length, 54), Errno::ContextFull);
        assert_eq!(ended(FinishReason::Length, 53), Errno::EndOfSequence);
        assert_eq!(ended(FinishReason::Stop, 54), Errno::EndOfSequence);
    }
}

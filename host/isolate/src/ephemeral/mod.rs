//! `wasi_ephemeral_nn` for core modules, as WasmEdge's guests call it: numbers for handles, numbers for errors, pointers for everything else.
//!
//! The same engine and the same sessions are behind it as behind `wasi:nn` for components. What a guest asks for in its options comes on top of
//! what the client asked for; what an option says about threads, layers or files of the host is the host's business and has no effect.

mod context;
mod link;
mod options;

use llambo_inference::{InferenceError, ModelName};

use self::context::ExecutionContext;
pub(crate) use self::link::{MODULE, add_to_linker};
#[cfg(fuzzing)]
pub(crate) use self::options::Options;
use crate::{limits::Exhausted, state::GuestState};

/// Handles of both kinds that a guest may hold.
const MAX_HANDLES: usize = 4096;

/// What a function returns when it is not 0: those of the proposal, then those that WasmEdge added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errno {
    InvalidArgument = 1,
    InvalidEncoding = 2,
    RuntimeError = 5,
    UnsupportedOperation = 6,
    EndOfSequence = 100,
    ContextFull = 101,
    PromptTooLong = 102,
    ModelNotFound = 103,
}

/// Why a call comes to nothing: an error that the guest sees, or its end.
#[derive(Debug)]
pub(crate) enum Refused {
    Told(Errno),
    Trap(wasmtime::Error),
}

/// What a guest holds.
#[derive(Default)]
pub(crate) struct Handles {
    graphs: Vec<Option<Graph>>,
    contexts: Vec<Option<ExecutionContext>>,
}

/// A model by name, and the options for it.
#[derive(Clone)]
struct Graph {
    /// `None` is `default`: whichever model the request at hand names.
    model: Option<ModelName>,
    options: options::Options,
}

/// What the functions work on.
pub(crate) trait Holder {
    fn parts(&mut self) -> (&mut GuestState, &mut Handles);
}

// === impl Handles ===

impl Handles {
    fn add<T>(list: &mut Vec<Option<T>>, value: T) -> Result<u32, Refused> {
        let place = list.iter().position(Option::is_none).unwrap_or(list.len());
        if place >= MAX_HANDLES {
            let detail = format!("holds {MAX_HANDLES} graphs or execution contexts, the most there may be");
            return Err(Refused::Trap(Exhausted { reason: "MEMORY_EXHAUSTED", detail }.into()));
        }
        if place == list.len() {
            list.push(None);
        }
        list[place] = Some(value);
        Ok(u32::try_from(place).unwrap_or(u32::MAX))
    }

    fn graph(&self, handle: u32) -> Result<&Graph, Refused> {
        self.graphs.get(handle as usize).and_then(Option::as_ref).ok_or(Refused::Told(Errno::InvalidArgument))
    }

    fn context(&mut self, handle: u32) -> Result<&mut ExecutionContext, Refused> {
        self.contexts.get_mut(handle as usize).and_then(Option::as_mut).ok_or(Refused::Told(Errno::InvalidArgument))
    }
}

// === impl Refused ===

impl From<Exhausted> for Refused {
    fn from(exhausted: Exhausted) -> Self {
        Self::Trap(exhausted.into())
    }
}

impl From<wasmtime::Error> for Refused {
    fn from(error: wasmtime::Error) -> Self {
        Self::Trap(error)
    }
}

impl From<&InferenceError> for Errno {
    fn from(error: &InferenceError) -> Self {
        match error {
            InferenceError::InvalidRequest(_) | InferenceError::InvalidOption(_) => Self::InvalidArgument,
            InferenceError::PromptTooLong { .. } => Self::PromptTooLong,
            InferenceError::UnknownModel { .. } => Self::ModelNotFound,
            _ => Self::RuntimeError,
        }
    }
}

//! Commands: core modules for `wasi_snapshot_preview1` that know nothing of llambo. Each request runs one from its start to its exit, in a fresh
//! instance: the prompt comes as argument and on standard input, and what it prints is the answer.
//!
//! Nothing is preopened, there is no network, and the environment is what the type's configuration says.

mod pipes;

use std::sync::Arc;

use llambo_inference::{Finished, GenerateRequest, InferenceError, Prompt, Role, shortened};
use wasmtime::{CallHook, Engine, InstancePre, Linker, Module, Store, Trap};
use wasmtime_wasi::{I32Exit, WasiCtx, p1::WasiP1Ctx, p2::pipe::MemoryInputPipe};

use self::pipes::{Stderr, stdout};
use crate::{
    NodeType,
    cpu::CpuMeter,
    ephemeral::{self, Handles, Holder},
    guest::{Ended, FAILURE_BYTES, why},
    output::Voice,
    slab::OnStack,
    state::{Call, GuestState, MAX_RANDOM_BYTES},
};

/// The imports that a command may have.
const IMPORTS: [&str; 2] = ["wasi_snapshot_preview1", ephemeral::MODULE];
/// What an argument may be made of.
const PROMPT: &str = "{prompt}";

/// The data of a command's store.
pub(crate) struct CommandState {
    guest: GuestState,
    handles: Handles,
    wasi: WasiP1Ctx,
}

/// A command compiled for one pool, with its imports resolved.
#[derive(Clone)]
pub(crate) struct Command(InstancePre<CommandState>);

impl Holder for CommandState {
    fn parts(&mut self) -> (&mut GuestState, &mut Handles) {
        (&mut self.guest, &mut self.handles)
    }
}

// === impl Command ===

impl Command {
    /// Looks at a compiled module.
    ///
    /// # Errors
    /// What it imports that there is not, or lacks that it should have.
    pub(crate) fn new(engine: &Engine, module: &Module) -> Result<Self, String> {
        for import in module.imports() {
            let (from, name) = (import.module(), import.name());
            if !IMPORTS.contains(&from) {
                return Err(format!("it imports `{name}` of `{from}`, and there are {} and {} here", IMPORTS[0], IMPORTS[1]));
            }
        }
        let exports = |name: &str| module.get_export(name);
        if exports("_start").and_then(|e| e.func().map(|f| f.params().len() + f.results().len())) != Some(0) {
            return Err("it is a core module without `_start`: a command has it, and a guest of llambo is a component".into());
        }
        if exports("memory").is_none_or(|e| e.memory().is_none()) {
            return Err("it exports no memory with the name `memory`".into());
        }
        let mut linker = Linker::<CommandState>::new(engine);
        let added = wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state| &mut state.wasi);
        let pre = added.and_then(|()| ephemeral::add_to_linker(&mut linker)).and_then(|()| linker.instantiate_pre(module));
        pre.map(Self).map_err(|error| format!("{error:#}"))
    }

    /// Answers one request in an instance of its own.
    pub(crate) async fn answer(
        &self,
        engine: &Engine,
        node_type: &NodeType,
        meter: Arc<CpuMeter>,
        request: GenerateRequest,
        voice: Voice,
    ) -> Ended {
        let _ticking = node_type.pools.ticker.running();
        let (stderr, deadline) = (Stderr::default(), request.deadline);
        let mut store = Self::store(engine, node_type, request, voice, &stderr);
        node_type.slice(&mut store, Arc::clone(&meter));
        let mut parked = None;
        let returned = meter.run(OnStack::new(run(&self.0, &mut store), &mut parked), deadline).await;
        let Some(call) = store.data_mut().guest.end_call() else {
            return Ended { result: Err(InferenceError::Cancelled), usable: false };
        };
        call.voice.finish().await;
        let exit = returned.map(|returned| returned.map_or_else(Exit::of, |()| Exit::Code(0)));
        let (result, usable) = match exit {
            None => (Err(InferenceError::DeadlineExceeded { n_generated: call.usage.output_tokens }), false),
            Some(Exit::Code(0)) => (Ok(Finished { reason: call.finish_reason, usage: call.usage }), true),
            Some(Exit::Code(code)) => {
                (Err(call.last_error.unwrap_or_else(|| gave_up(&format!("it exited with {code}"), &stderr))), true)
            }
            // how a panic ends: what caused it is known better here
            Some(Exit::Trap(trap)) if trap.downcast_ref() == Some(&Trap::UnreachableCodeReached) => {
                let cause = call.last_error.unwrap_or_else(|| gave_up("it panicked", &stderr));
                (Err(cause), false)
            }
            Some(Exit::Trap(trap)) => (Err(why(&trap, &node_type.limits)), false),
        };
        Ended { result, usable }
    }

    fn store(
        engine: &Engine,
        node_type: &NodeType,
        request: GenerateRequest,
        voice: Voice,
        stderr: &Stderr,
    ) -> Store<CommandState> {
        let prompt = prompt(&request.prompt);
        let settings = node_type.settings();
        let mut wasi = WasiCtx::builder();
        wasi.max_random_size(MAX_RANDOM_BYTES).arg(node_type.module_name());
        for argument in &settings.args {
            wasi.arg(argument.replace(PROMPT, prompt));
        }
        for (name, value) in &settings.env {
            wasi.env(name, value);
        }
        wasi.stdin(MemoryInputPipe::new(format!("{prompt}\n")));
        wasi.stdout(stdout(voice.clone())).stderr(stderr.stream());
        let mut guest = GuestState::new(Arc::clone(&node_type.limits), node_type.models.clone(), false);
        guest.call = Some(Box::new(Call::new(request, voice)));
        let state = CommandState { guest, handles: Handles::default(), wasi: wasi.build_p1() };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.guest.budget);
        store.set_hostcall_fuel(node_type.limits.call_bytes());
        // WASI's own functions count as well
        store.call_hook(|mut store, hook| match hook {
            CallHook::CallingHost => Ok(store.data_mut().guest.budget.charge_call()?),
            _ => Ok(()),
        });
        store
    }
}

async fn run(command: &InstancePre<CommandState>, store: &mut Store<CommandState>) -> wasmtime::Result<()> {
    let instance = command.instantiate_async(&mut *store).await?;
    let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
    start.call_async(store, ()).await
}

/// How a command came to its end.
enum Exit {
    Code(i32),
    Trap(wasmtime::Error),
}

impl Exit {
    fn of(error: wasmtime::Error) -> Self {
        match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(code)) => Self::Code(*code),
            None => Self::Trap(error),
        }
    }
}

fn gave_up(what: &str, stderr: &Stderr) -> InferenceError {
    let said = stderr.tail();
    let detail = if said.is_empty() { what.to_owned() } else { format!("{what}: {}", shortened(said, FAILURE_BYTES)) };
    InferenceError::Guest { reason: "GUEST_ERROR", detail }
}

/// What a command is asked: the text, or what the user said last.
fn prompt(prompt: &Prompt) -> &str {
    match prompt {
        Prompt::Text(text) => text,
        Prompt::Chat(messages) => {
            let asked = messages.iter().rev().find(|message| message.role == Role::User).or(messages.last());
            asked.map_or("", |message| &message.content)
        }
    }
}

//! A guest module: bytes on the way in, a template ready to be instantiated in each pool on the way out.

use std::{
    fmt::Write,
    path::Path,
    sync::{Arc, OnceLock},
};

use sha2::{Digest, Sha256};
use wasmtime::{
    Engine,
    component::{Component, HasSelf, Linker},
};

use crate::{
    SandboxError,
    bindings::{self, EnginePre},
    command::Command,
    hibernate::{Doors, Instrumented, instrument},
    limits::Limits,
    state::GuestState,
};

/// The engine a type runs unless it names another module.
const DEFAULT_ENGINE: &[u8] = include_bytes!("../../../guest/prebuilt/default-engine.wasm");

/// A guest module that was read and not compiled yet.
#[derive(Clone)]
pub struct Module {
    name: Arc<str>,
    bytes: Arc<[u8]>,
    /// Once somebody asked.
    sha256: Arc<OnceLock<String>>,
}

/// A module compiled for one pool, with its imports resolved.
pub(crate) enum Template {
    /// Of the world `llambo:guest/engine`.
    Component { pre: EnginePre<GuestState>, needs_wasi: bool, doors: Option<Doors> },
    /// A core module that knows nothing of llambo.
    Command(Command),
}

// === impl Module ===

impl Module {
    /// `builtin:default`: applies the model's chat template and the client's options, and streams.
    pub fn default_engine() -> Self {
        Self::from_bytes("builtin:default", DEFAULT_ENGINE)
    }

    /// A module in memory; `name` is what errors call it.
    pub fn from_bytes(name: &str, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { name: name.into(), bytes: bytes.into(), sha256: Arc::default() }
    }

    /// A component in a file. Blocks while it is read.
    pub fn open(path: &Path) -> Result<Self, SandboxError> {
        match std::fs::read(path) {
            Ok(bytes) => {
                let module = Self::from_bytes(&path.display().to_string(), bytes);
                module.check_kind().map(|()| module)
            }
            Err(source) => Err(SandboxError::Unreadable { path: path.to_owned(), source }),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn unfit(&self, detail: String) -> SandboxError {
        SandboxError::Module { name: self.name.to_string(), detail }
    }

    /// Whether it is WebAssembly, by its first bytes.
    fn check_kind(&self) -> Result<(), SandboxError> {
        if self.bytes.starts_with(b"\0asm") { Ok(()) } else { Err(self.unfit("it is not WebAssembly".into())) }
    }

    /// `component`, or `command` for a core module, which is started for each request.
    pub fn kind(&self) -> &'static str {
        if self.is_component() { "component" } else { "command" }
    }

    fn is_component(&self) -> bool {
        self.bytes.get(6) == Some(&1)
    }

    /// SHA-256 of it, in hex.
    pub(crate) fn sha256(&self) -> &str {
        self.sha256.get_or_init(|| {
            Sha256::digest(&self.bytes).iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            })
        })
    }

    /// Compiles it, or takes it compiled from the cache; with doors to its state where it is to be hibernated. Blocks.
    pub(crate) fn template(&self, engine: &Engine, limits: &Limits, hibernates: bool) -> Result<Template, SandboxError> {
        let unfit = |detail| self.unfit(detail);
        self.check_kind()?;
        if !self.is_component() {
            let module = wasmtime::Module::from_binary(engine, &self.bytes).map_err(|e| unfit(format!("{e:#}")))?;
            limits.admit(&module.resources_required()).map_err(unfit)?;
            return Command::new(engine, &module).map(Template::Command).map_err(unfit);
        }
        let doors = hibernates.then(|| instrument(&self.bytes).map_err(|e| unfit(format!("it cannot be hibernated: {}", e.0))));
        let doors = doors.transpose()?;
        let bytes = doors.as_ref().map_or(&*self.bytes, |instrumented| &instrumented.bytes);
        let component = Component::from_binary(engine, bytes).map_err(|e| unfit(format!("{e:#}")))?;
        if let Some(needs) = component.resources_required() {
            limits.admit(&needs).map_err(unfit)?;
        }
        let imports = component.component_type();
        let needs_wasi = imports.imports(engine).any(|(name, _)| name.starts_with("wasi:") && !name.starts_with("wasi:nn/"));
        let mut linker = Linker::<GuestState>::new(engine);
        bindings::Engine::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(|e| unfit(format!("{e:#}")))?;
        if needs_wasi {
            wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(|e| unfit(format!("{e:#}")))?;
        }
        let pre = linker.instantiate_pre(&component).and_then(EnginePre::new).map_err(|e| unfit(format!("{e:#}")))?;
        let doors = doors.map(|Instrumented { has_memory, globals, .. }| Doors { has_memory, globals });
        Ok(Template::Component { pre, needs_wasi, doors })
    }
}

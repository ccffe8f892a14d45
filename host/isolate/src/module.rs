//! A guest module: bytes on the way in, a template ready to be instantiated in each pool on the way out.

use std::{path::Path, sync::Arc};

use wasmtime::{
    Engine,
    component::{Component, HasSelf, Linker},
};

use crate::{
    SandboxError,
    bindings::{self, EnginePre},
    state::GuestState,
};

/// The engine a type runs unless it names another module.
const DEFAULT_ENGINE: &[u8] = include_bytes!("../../../guest/prebuilt/default-engine.wasm");

/// A guest module that was read and not compiled yet.
#[derive(Clone)]
pub struct Module {
    name: Arc<str>,
    bytes: Arc<[u8]>,
}

/// A module compiled for one pool, with its imports resolved.
pub(crate) struct Template {
    pub(crate) pre: EnginePre<GuestState>,
    pub(crate) needs_wasi: bool,
}

// === impl Module ===

impl Module {
    /// `builtin:default`: applies the model's chat template and the client's options, and streams.
    pub fn default_engine() -> Self {
        Self::from_bytes("builtin:default", DEFAULT_ENGINE)
    }

    /// A component in memory; `name` is what errors call it.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Self {
        Self { name: name.into(), bytes: bytes.into() }
    }

    /// A component in a file. Blocks while it is read.
    pub fn open(path: &Path) -> Result<Self, SandboxError> {
        match std::fs::read(path) {
            Ok(bytes) => {
                let module = Self::from_bytes(&path.display().to_string(), &bytes);
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

    /// Whether it is a component at all, by its first bytes.
    fn check_kind(&self) -> Result<(), SandboxError> {
        if !self.bytes.starts_with(b"\0asm") {
            return Err(self.unfit("it is not WebAssembly".into()));
        }
        // byte 6 tells a component from a core module
        if self.bytes.get(6) != Some(&1) {
            return Err(self.unfit("it is a core module; a guest is a component of the world `llambo:guest/engine`".into()));
        }
        Ok(())
    }

    /// Compiles it, or takes it compiled from the cache. Blocks.
    pub(crate) fn template(&self, engine: &Engine) -> Result<Template, SandboxError> {
        let unfit = |detail| self.unfit(detail);
        self.check_kind()?;
        let component = Component::from_binary(engine, &self.bytes).map_err(|e| unfit(format!("{e:#}")))?;
        let imports = component.component_type();
        let needs_wasi = imports.imports(engine).any(|(name, _)| name.starts_with("wasi:") && !name.starts_with("wasi:nn/"));
        let mut linker = Linker::<GuestState>::new(engine);
        bindings::Engine::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(|e| unfit(format!("{e:#}")))?;
        if needs_wasi {
            wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(|e| unfit(format!("{e:#}")))?;
        }
        let pre = linker.instantiate_pre(&component).and_then(EnginePre::new).map_err(|e| unfit(format!("{e:#}")))?;
        Ok(Template { pre, needs_wasi })
    }
}

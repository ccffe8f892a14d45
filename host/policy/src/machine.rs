//! The wasmtime engine that policies run in, and what of a module is checked before it runs.

use std::sync::Arc;

use llambo_strategy::PolicyKind;
use wasmtime::{
    Config, Engine, Store,
    component::{Component, HasSelf, InstancePre, Linker, types::ComponentItem},
};

use crate::{
    bindings::Every,
    clock::Clock,
    state::{State, Terms},
    told::Told,
    worlds::interfaces,
};

/// What policies may import.
const HOST: &str = "llambo:policy/host@0.1.0";
const STACK_BYTES: usize = 256 << 10;
/// Of the package's name, what all its interfaces begin with.
const PACKAGE: &str = "llambo:policy/";

/// What all policies run in.
pub(crate) struct Machine {
    engine: Engine,
    linker: Linker<State>,
    clock: Clock,
    /// Who is told of what becomes of policies.
    pub(crate) told: Told,
}

/// A module, compiled and linked.
pub(crate) struct Linked {
    pub(crate) pre: InstancePre<State>,
    /// Names of what it exports.
    exports: Vec<String>,
    imports: Vec<String>,
}

impl Machine {
    pub(crate) fn start() -> Result<Arc<Self>, String> {
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .max_wasm_stack(STACK_BYTES)
            .memory_reservation(1 << 20)
            .memory_reservation_for_growth(0)
            .memory_guard_size(64 << 10)
            .concurrency_support(false)
            .wasm_backtrace_max_frames(None);
        let broken = |e: wasmtime::Error| format!("{e:#}");
        let engine = Engine::new(&config).map_err(broken)?;
        let mut linker = Linker::new(&engine);
        Every::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut State| state).map_err(broken)?;
        let clock = Clock::start(engine.weak()).map_err(|e| e.to_string())?;
        Ok(Arc::new(Self { engine, linker, clock, told: Told::default() }))
    }

    /// Compiles a module. Takes a second for each few megabytes.
    pub(crate) fn link(&self, wasm: &[u8]) -> Result<Linked, String> {
        if !wasm.starts_with(b"\0asm") {
            return Err("it is not WebAssembly".into());
        }
        if wasm.get(4..8) == Some(&[1, 0, 0, 0]) {
            return Err(
                "it is a core module, and a policy is a component; link it with `wasm-component-ld`, as guest/POLICIES.md tells"
                    .into(),
            );
        }
        let component = Component::from_binary(&self.engine, wasm).map_err(|e| format!("it does not compile: {e:#}"))?;
        let kind = component.component_type();
        let named = |(name, item): (&str, _)| match item {
            ComponentItem::ComponentInstance(_) | ComponentItem::ComponentFunc(_) => Some(name.to_owned()),
            _ => None,
        };
        let exports: Vec<String> = kind.exports(&self.engine).filter_map(|(name, item)| named((name, item.ty))).collect();
        let imports: Vec<String> = kind.imports(&self.engine).filter_map(|(name, item)| named((name, item.ty))).collect();
        if let Some(foreign) = imports.iter().find(|name| !name.starts_with(PACKAGE)) {
            return Err(format!("it imports `{foreign}`, and a policy may import `{HOST}` only: there is no WASI"));
        }
        if let Some(other) = imports.iter().find(|name| !fits(name, HOST) && name.starts_with("llambo:policy/host@")) {
            return Err(format!("it is made for `{other}`, and this host has `{HOST}`; build it for that one"));
        }
        let pre = self.linker.instantiate_pre(&component).map_err(|e| format!("it does not fit this host: {e:#}"))?;
        Ok(Linked { pre, exports, imports })
    }

    /// Where an instance lives.
    pub(crate) fn store(&self, terms: &Arc<Terms>) -> Store<State> {
        let mut store = Store::new(&self.engine, State::new(Arc::clone(terms)));
        store.limiter(|state| state);
        store.epoch_deadline_callback(|mut store| store.data_mut().on_tick());
        store
    }

    /// Everything that runs in a store from now on counts as one call.
    pub(crate) fn begin_call(&self, store: &mut Store<State>) {
        self.clock.call_begins();
        store.data_mut().stopwatch.reset();
        store.set_epoch_deadline(1);
    }
}

impl Linked {
    /// Whether it exports an interface, or why it is no policy that does.
    pub(crate) fn must_export(&self, wanted: &[&'static str]) -> Result<&'static str, String> {
        if let Some(found) = wanted.iter().find(|name| self.exports.iter().any(|export| fits(export, name))) {
            return Ok(found);
        }
        let (package, _) = wanted[0].split_once('@').unwrap_or_default();
        if let Some(other) = self.exports.iter().find(|export| export.split('@').next() == Some(package)) {
            return Err(format!("it is made for `{other}`, and this host has `{}`; build it for that one", wanted[0]));
        }
        let exports = if self.exports.is_empty() { "nothing".to_owned() } else { format!("`{}`", self.exports.join("`, `")) };
        let hint = match self.exports.iter().find_map(|name| kind_of(name)) {
            Some(kind) => format!("; load it `--as {kind}`"),
            None if self.imports.is_empty() && self.exports.is_empty() => String::new(),
            None => "; build it for a world of wit/policy.wit".into(),
        };
        Err(format!("it exports {exports}, and must export `{}`{hint}", wanted.join("` or `")))
    }
}

/// Whether an interface is the wanted one, in that version or one that it goes on working with: below 1.0 these have the same minor version.
fn fits(export: &str, wanted: &str) -> bool {
    let compatible = |name: &str| {
        let (name, version) = name.split_once('@')?;
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
        Some((name.to_owned(), numbers.next()??, numbers.next()??))
    };
    compatible(export).is_some() && compatible(export) == compatible(wanted)
}

/// Which kind an interface of ours belongs to, in whichever version.
fn kind_of(interface: &str) -> Option<PolicyKind> {
    let name = |interface: &str| interface.split('@').next().map(str::to_owned);
    PolicyKind::ALL.into_iter().find(|kind| interfaces(*kind).iter().any(|known| name(known) == name(interface)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_fit_within_their_minor_version() {
        let wanted = "llambo:policy/balancing@0.1.0";
        for (export, does) in [
            ("llambo:policy/balancing@0.1.0", true),
            ("llambo:policy/balancing@0.1.7", true),
            ("llambo:policy/balancing@0.2.0", false),
            ("llambo:policy/balancing@1.1.0", false),
            ("llambo:policy/tracking@0.1.0", false),
            ("llambo:policy/balancing", false),
            ("llambo:policy/balancing@x", false),
        ] {
            assert_eq!(fits(export, wanted), does, "{export}");
        }
    }
}

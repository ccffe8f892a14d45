//! The core module that reads and sets the state of others, and how it becomes functions of the component.

use wasm_encoder::{
    Alias, CanonicalFunctionSection, CanonicalOption, CodeSection, Component, ComponentAliasSection, ComponentExportKind,
    ComponentExportSection, ComponentTypeSection, ComponentValType, ConstExpr, EntityType, ExportKind, ExportSection, Function,
    FunctionSection, GlobalSection, GlobalType, ImportSection, InstanceSection, InstructionSink, MemArg, MemoryType, Module,
    ModuleArg, ModuleSection, PrimitiveValType, TypeSection, ValType,
};

use super::instrument::{MEMORY, global_name};

/// The type of a global. Its value travels as 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Kind {
    I32,
    I64,
    F32,
    F64,
}

/// A mutable global of a core instance.
pub(super) struct Global {
    pub(super) instance: u32,
    pub(super) index: u32,
    pub(super) kind: Kind,
}

/// What is to be accessed.
#[derive(Default)]
pub(super) struct Accessor {
    /// The instance that has the memory.
    pub(super) memory: Option<u32>,
    pub(super) globals: Vec<Global>,
}

/// How many of each the component has already.
pub(super) struct Counts {
    pub(super) modules: u32,
    pub(super) instances: u32,
    pub(super) core_functions: u32,
    pub(super) core_memories: u32,
    pub(super) types: u32,
    pub(super) functions: u32,
}

/// Functions of the component. Bytes are read by way of eight others (`scratch`), which are read before and put back afterwards; they are written
/// where the last `aim` said.
pub(crate) const SIZE: &str = "llambo-memory-size";
pub(crate) const GROW: &str = "llambo-memory-grow";
pub(crate) const PEEK: &str = "llambo-memory-peek";
pub(crate) const POKE: &str = "llambo-memory-poke";
pub(crate) const READ: &str = "llambo-memory-read";
pub(crate) const AIM: &str = "llambo-memory-aim";
pub(crate) const WRITE: &str = "llambo-memory-write";

/// Where the eight bytes are.
pub(crate) const SCRATCH: u32 = 8;

pub(crate) fn getter(n: usize) -> String {
    format!("llambo-global{n}-get")
}

pub(crate) fn setter(n: usize) -> String {
    format!("llambo-global{n}-set")
}

const REALLOC: &str = "realloc";

/// One function: its core type, its type in the component, and what it does.
struct Entry {
    name: String,
    core: (&'static [ValType], Option<ValType>),
    params: &'static [(&'static str, Param)],
    result: Option<Param>,
    code: Box<dyn Fn(&mut InstructionSink<'_>)>,
}

#[derive(Clone, Copy)]
enum Param {
    U32,
    U64,
    Bytes,
}

// === impl Kind ===

impl Kind {
    fn val_type(self) -> ValType {
        match self {
            Self::I32 => ValType::I32,
            Self::I64 => ValType::I64,
            Self::F32 => ValType::F32,
            Self::F64 => ValType::F64,
        }
    }

    fn push_bits(self, code: &mut InstructionSink<'_>) {
        match self {
            Self::I32 => code.i64_extend_i32_u(),
            Self::I64 => code,
            Self::F32 => code.i32_reinterpret_f32().i64_extend_i32_u(),
            Self::F64 => code.i64_reinterpret_f64(),
        };
    }

    fn take_bits(self, code: &mut InstructionSink<'_>) {
        match self {
            Self::I32 => code.i32_wrap_i64(),
            Self::I64 => code,
            Self::F32 => code.i32_wrap_i64().f32_reinterpret_i32(),
            Self::F64 => code.f64_reinterpret_i64(),
        };
    }
}

// === impl Accessor ===

impl Accessor {
    /// Adds the module, an instance of it, and its functions to a component that has `before`.
    pub(super) fn add_to(&self, out: &mut Component, before: &Counts) {
        let entries = self.entries();
        let module = self.module(&entries);
        out.section(&ModuleSection(&module));
        let mut of: Vec<u32> = self.memory.into_iter().chain(self.globals.iter().map(|global| global.instance)).collect();
        of.sort_unstable();
        of.dedup();
        let mut instances = InstanceSection::new();
        let args: Vec<_> = of.iter().map(|n| (from(*n), ModuleArg::Instance(*n))).collect();
        instances.instantiate(before.modules, args);
        out.section(&instances);

        let (mut aliases, mut types) = (ComponentAliasSection::new(), ComponentTypeSection::new());
        let (mut canonical, mut exports) = (CanonicalFunctionSection::new(), ComponentExportSection::new());
        let instance = before.instances;
        let mut options = Vec::new();
        let mut next_function = before.core_functions;
        if self.memory.is_some() {
            aliases.alias(Alias::CoreInstanceExport { instance, kind: ExportKind::Memory, name: MEMORY });
            aliases.alias(Alias::CoreInstanceExport { instance, kind: ExportKind::Func, name: REALLOC });
            options = vec![CanonicalOption::Memory(before.core_memories), CanonicalOption::Realloc(next_function)];
            next_function += 1;
        }
        types.ty().defined_type().list(PrimitiveValType::U8);
        let bytes = ComponentValType::Type(before.types);
        let value = |param| match param {
            Param::U32 => ComponentValType::Primitive(PrimitiveValType::U32),
            Param::U64 => ComponentValType::Primitive(PrimitiveValType::U64),
            Param::Bytes => bytes,
        };
        for ((entry, core), n) in entries.iter().zip(next_function..).zip(0u32..) {
            aliases.alias(Alias::CoreInstanceExport { instance, kind: ExportKind::Func, name: &entry.name });
            let params: Vec<_> = entry.params.iter().map(|(name, param)| (*name, value(*param))).collect();
            types.ty().function().params(params).result(entry.result.map(value));
            let uses_memory =
                matches!(entry.result, Some(Param::Bytes)) || entry.params.iter().any(|(_, p)| matches!(p, Param::Bytes));
            let options = if uses_memory { options.clone() } else { Vec::new() };
            canonical.lift(core, before.types + 1 + n, options);
            exports.export(entry.name.as_str(), ComponentExportKind::Func, before.functions + n, None);
        }
        out.section(&aliases);
        out.section(&types);
        out.section(&canonical);
        out.section(&exports);
    }

    fn entries(&self) -> Vec<Entry> {
        use ValType::{I32, I64};
        let mut entries = Vec::new();
        let mut add = |name: &str, core, params, result, code: Box<dyn Fn(&mut InstructionSink<'_>)>| {
            entries.push(Entry { name: name.to_owned(), core, params, result, code });
        };
        let at_64 = MemArg { offset: 0, align: 0, memory_index: 0 };
        let field = |offset| MemArg { offset, align: 0, memory_index: 0 };
        if self.memory.is_some() {
            // the accessor's own global, behind all that it imports
            let target = u32::try_from(self.globals.len()).unwrap_or(u32::MAX);
            add(
                SIZE,
                (&[], Some(I32)),
                &[],
                Some(Param::U32),
                Box::new(|c| {
                    c.memory_size(0);
                }),
            );
            add(
                GROW,
                (&[I32], Some(I32)),
                &[("pages", Param::U32)],
                Some(Param::U32),
                Box::new(|c| {
                    c.local_get(0).memory_grow(0);
                }),
            );
            add(
                PEEK,
                (&[I32], Some(I64)),
                &[("at", Param::U32)],
                Some(Param::U64),
                Box::new(move |c| {
                    c.local_get(0).i64_load(at_64);
                }),
            );
            add(
                POKE,
                (&[I32, I64], None),
                &[("at", Param::U32), ("value", Param::U64)],
                None,
                Box::new(move |c| {
                    c.local_get(0).local_get(1).i64_store(at_64);
                }),
            );
            // a list comes back as its place and its length, and these two have to be in memory
            let params = &[("scratch", Param::U32), ("at", Param::U32), ("length", Param::U32)];
            add(
                READ,
                (&[I32, I32, I32], Some(I32)),
                params,
                Some(Param::Bytes),
                Box::new(move |c| {
                    c.local_get(0).local_get(1).i32_store(field(0));
                    c.local_get(0).local_get(2).i32_store(field(4));
                    c.local_get(0);
                }),
            );
            add(
                AIM,
                (&[I32], None),
                &[("at", Param::U32)],
                None,
                Box::new(move |c| {
                    c.local_get(0).global_set(target);
                }),
            );
            // the bytes are where they should be before it is called
            add(WRITE, (&[I32, I32], None), &[("bytes", Param::Bytes)], None, Box::new(|_| ()));
        }
        for (n, global) in self.globals.iter().enumerate() {
            let (index, kind) = (u32::try_from(n).unwrap_or(u32::MAX), global.kind);
            add(
                &getter(n),
                (&[], Some(I64)),
                &[],
                Some(Param::U64),
                Box::new(move |c| {
                    kind.push_bits(c.global_get(index));
                }),
            );
            add(
                &setter(n),
                (&[I64], None),
                &[("value", Param::U64)],
                None,
                Box::new(move |c| {
                    kind.take_bits(c.local_get(0));
                    c.global_set(index);
                }),
            );
        }
        entries
    }

    fn module(&self, entries: &[Entry]) -> Module {
        let (mut types, mut imports, mut functions) = (TypeSection::new(), ImportSection::new(), FunctionSection::new());
        let (mut globals, mut exports, mut code) = (GlobalSection::new(), ExportSection::new(), CodeSection::new());
        for global in &self.globals {
            let ty = GlobalType { val_type: global.kind.val_type(), mutable: true, shared: false };
            imports.import(&from(global.instance), &global_name(global.index), EntityType::Global(ty));
        }
        let mut n = 0;
        let mut function = |core: (&[ValType], Option<ValType>), body: &dyn Fn(&mut InstructionSink<'_>)| {
            types.ty().function(core.0.iter().copied(), core.1);
            functions.function(n);
            let mut function = Function::new([]);
            body(&mut function.instructions());
            function.instructions().end();
            code.function(&function);
            n += 1;
            n - 1
        };
        if let Some(instance) = self.memory {
            let any = MemoryType { minimum: 0, maximum: None, memory64: false, shared: false, page_size_log2: None };
            imports.import(&from(instance), MEMORY, EntityType::Memory(any));
            let target = u32::try_from(self.globals.len()).unwrap_or(u32::MAX);
            globals.global(GlobalType { val_type: ValType::I32, mutable: true, shared: false }, &ConstExpr::i32_const(0));
            exports.export(MEMORY, ExportKind::Memory, 0);
            let at = function((&[ValType::I32; 4], Some(ValType::I32)), &|c| {
                c.global_get(target);
            });
            exports.export(REALLOC, ExportKind::Func, at);
        }
        for entry in entries {
            let at = function(entry.core, &*entry.code);
            exports.export(&entry.name, ExportKind::Func, at);
        }
        let mut module = Module::new();
        module.section(&types).section(&imports).section(&functions);
        module.section(&globals).section(&exports).section(&code);
        module
    }
}

/// What the accessor module calls an instance.
fn from(instance: u32) -> String {
    format!("instance-{instance}")
}

//! A component with doors to its own state: the memory and the mutable globals of its core modules, which a component keeps to itself, can be read and
//! set through functions that are added to its exports.
//!
//! Core modules get exports of what they define, and the component gets one more core module that imports those and has an accessor function for each. Nothing that
//! was there is changed otherwise, and none of the guest's code runs when an accessor is called.

use std::ops::Range;

use wasm_encoder::{Component, ComponentSectionId, ExportKind, ExportSection, Module, RawSection};
use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentOuterAliasKind, ComponentTypeRef, Encoding, ExternalKind, Instance, Operator,
    Parser, Payload, ValType, Validator, WasmFeatures,
};

use super::accessor::{Accessor, Counts, Global, Kind};

/// Why a component cannot be hibernated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unfit(pub(crate) String);

/// A component with accessors, and what there is to access.
#[derive(Debug)]
pub(crate) struct Instrumented {
    pub(crate) bytes: Vec<u8>,
    pub(crate) has_memory: bool,
    /// Of each mutable global, in order.
    pub(crate) globals: Vec<Kind>,
}

/// A core module of the component, as far as it matters here.
#[derive(Default)]
struct Core {
    bytes: Vec<u8>,
    defines_memory: bool,
    /// Its mutable globals: their index and type.
    globals: Vec<(u32, Kind)>,
}

impl From<wasmparser::BinaryReaderError> for Unfit {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self(format!("it cannot be read: {error}"))
    }
}

fn unfit(what: &str) -> Unfit {
    Unfit(what.to_owned())
}

/// The exports that a core module gets.
pub(super) const MEMORY: &str = "llambo:memory";

pub(super) fn global_name(index: u32) -> String {
    format!("llambo:global-{index}")
}

/// Adds accessors to a component.
pub(crate) fn instrument(component: &[u8]) -> Result<Instrumented, Unfit> {
    let types = Validator::new_with_features(WasmFeatures::all()).validate_all(component)?;
    let types = types.as_ref();
    let mut out = Component::new();
    // of each index in the space of core modules: where the module is that it stands for, if it is one of this component's own
    let mut spaces: Vec<Option<usize>> = Vec::new();
    let (mut cores, mut instances) = (Vec::<Core>::new(), Vec::<Option<usize>>::new());
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload?;
        if depth > 0 {
            match payload {
                Payload::ComponentSection { .. } => depth += 1,
                Payload::ModuleSection { .. } => return Err(unfit("components within it have modules of their own")),
                Payload::End(_) => depth -= 1,
                _ => {}
            }
            continue;
        }
        match &payload {
            Payload::Version { encoding: Encoding::Module, .. } => return Err(unfit("it is no component")),
            Payload::Version { .. } | Payload::End(_) => continue,
            Payload::ModuleSection { unchecked_range, .. } => {
                // its payloads come next, and are read in `core`
                depth += 1;
                let core = core(slice(component, unchecked_range)?)?;
                out.section(&RawSection { id: ComponentSectionId::CoreModule.into(), data: &core.bytes });
                spaces.push(Some(cores.len()));
                cores.push(core);
                continue;
            }
            Payload::ComponentSection { .. } => depth += 1,
            Payload::ComponentImportSection(imports) => {
                for import in imports.clone() {
                    if matches!(import?.ty, ComponentTypeRef::Module(_)) {
                        spaces.push(None);
                    }
                }
            }
            Payload::ComponentAliasSection(aliases) => {
                for alias in aliases.clone() {
                    let is_module = match alias? {
                        ComponentAlias::InstanceExport { kind, .. } => kind == ComponentExternalKind::Module,
                        ComponentAlias::Outer { kind, .. } => kind == ComponentOuterAliasKind::CoreModule,
                        ComponentAlias::CoreInstanceExport { .. } => false,
                    };
                    if is_module {
                        spaces.push(None);
                    }
                }
            }
            Payload::InstanceSection(section) => {
                for instance in section.clone() {
                    instances.push(match instance? {
                        Instance::Instantiate { module_index, .. } => {
                            let known = spaces.get(module_index as usize).copied().flatten();
                            Some(known.ok_or_else(|| unfit("it runs core modules that are not its own"))?)
                        }
                        Instance::FromExports(_) => None,
                    });
                }
            }
            _ => {}
        }
        if let Some((id, range)) = payload.as_section() {
            out.section(&RawSection { id, data: slice(component, &range)? });
        }
    }
    let accessor = accessed(&cores, &instances)?;
    let globals = accessor.globals.iter().map(|global| global.kind).collect();
    let has_memory = accessor.memory.is_some();
    accessor.add_to(
        &mut out,
        &Counts {
            modules: types.module_count(),
            instances: types.core_instance_count(),
            core_functions: types.function_count(),
            core_memories: types.memory_count(),
            types: types.component_type_count(),
            functions: types.component_function_count(),
        },
    );
    Ok(Instrumented { bytes: out.finish(), has_memory, globals })
}

/// What the instances define, each by the number of its instance.
fn accessed(cores: &[Core], instances: &[Option<usize>]) -> Result<Accessor, Unfit> {
    let mut accessor = Accessor::default();
    for (at, core) in instances.iter().enumerate() {
        let Some(core) = core.and_then(|core| cores.get(core)) else { continue };
        let instance = u32::try_from(at).map_err(|_| unfit("it has too many instances"))?;
        if core.defines_memory && accessor.memory.replace(instance).is_some() {
            return Err(unfit("it has more than one memory"));
        }
        accessor.globals.extend(core.globals.iter().map(|&(index, kind)| Global { instance, index, kind }));
    }
    Ok(accessor)
}

fn slice<'a>(bytes: &'a [u8], range: &Range<usize>) -> Result<&'a [u8], Unfit> {
    bytes.get(range.clone()).ok_or_else(|| unfit("it ends early"))
}

/// The module with its state among its exports.
fn core(bytes: &[u8]) -> Result<Core, Unfit> {
    let mut found = Core::default();
    let mut n_imported = 0;
    let (mut exports, mut sections) = (ExportSection::new(), Vec::new());
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        match &payload {
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    n_imported += u32::from(matches!(import?.ty, wasmparser::TypeRef::Global(_)));
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories.clone() {
                    let memory = memory?;
                    if memory.memory64 || memory.shared || found.defines_memory {
                        return Err(unfit("it has a memory that is shared, has 64-bit addresses, or is not the only one"));
                    }
                    found.defines_memory = true;
                }
            }
            Payload::GlobalSection(globals) => {
                for (index, global) in (n_imported..).zip(globals.clone()) {
                    let ty = global?.ty;
                    if ty.mutable {
                        found.globals.push((index, kind(ty.content_type)?));
                    }
                }
            }
            Payload::ExportSection(section) => {
                for export in section.clone() {
                    let export = export?;
                    let kind = match export.kind {
                        ExternalKind::Func | ExternalKind::FuncExact => ExportKind::Func,
                        ExternalKind::Table => ExportKind::Table,
                        ExternalKind::Memory => ExportKind::Memory,
                        ExternalKind::Global => ExportKind::Global,
                        ExternalKind::Tag => ExportKind::Tag,
                    };
                    exports.export(export.name, kind, export.index);
                }
                continue;
            }
            Payload::CodeSectionEntry(body) => {
                let mut operators = body.get_operators_reader()?;
                while !operators.eof() {
                    if changes_tables(&operators.read()?) {
                        return Err(unfit("its code changes tables, which are not kept"));
                    }
                }
            }
            _ => {}
        }
        if let Some((id, range)) = payload.as_section() {
            sections.push((id, slice(bytes, &range)?));
        }
    }
    if found.defines_memory {
        exports.export(MEMORY, ExportKind::Memory, 0);
    }
    for (index, _) in &found.globals {
        exports.export(&global_name(*index), ExportKind::Global, *index);
    }
    found.bytes = with_exports(&sections, &exports);
    Ok(found)
}

/// The sections in their order, exports in the place that is theirs.
fn with_exports(sections: &[(u8, &[u8])], exports: &ExportSection) -> Vec<u8> {
    // start, element, code, data and data count come behind exports; custom sections (0) stand anywhere
    const BEHIND: [u8; 5] = [8, 9, 10, 11, 12];
    let at = sections.iter().position(|(id, _)| BEHIND.contains(id)).unwrap_or(sections.len());
    let mut module = Module::new();
    for &(id, data) in &sections[..at] {
        module.section(&RawSection { id, data });
    }
    module.section(exports);
    for &(id, data) in &sections[at..] {
        module.section(&RawSection { id, data });
    }
    module.finish()
}

fn kind(ty: ValType) -> Result<Kind, Unfit> {
    match ty {
        ValType::I32 => Ok(Kind::I32),
        ValType::I64 => Ok(Kind::I64),
        ValType::F32 => Ok(Kind::F32),
        ValType::F64 => Ok(Kind::F64),
        ValType::V128 | ValType::Ref(_) => Err(unfit("it has globals of vectors or references, which are not kept")),
    }
}

fn changes_tables(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::TableSet { .. }
            | Operator::TableGrow { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. }
    )
}

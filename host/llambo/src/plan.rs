//! What a configuration asks of this machine, and what of it is not there.

use std::{fmt, fs, num::NonZero, thread};

use llambo_catalog::{Builtin, CatalogError, ModelFile};
use llambo_config::{Config, KvType, ModelConfig, ModelSource, ModuleSource, TypeConfig};
use llambo_inference::{ModelName, TenantName, TypeName};
use llambo_isolate::{Limits, Module, Need, TypeSettings, preflight};

/// A configuration with its files opened and its needs computed.
pub(crate) struct Plan {
    pub(crate) models: Vec<PlannedModel>,
    pub(crate) isolates: Need,
    /// What stops it.
    pub(crate) problems: Vec<Problem>,
    /// What may stop it once it is used.
    pub(crate) warnings: Vec<Problem>,
    pub(crate) available_bytes: Option<u64>,
}

pub(crate) struct PlannedModel {
    pub(crate) name: String,
    pub(crate) file: Option<ModelFile>,
    pub(crate) n_context: u32,
    pub(crate) n_sequences: u32,
    pub(crate) weight_bytes: u64,
    pub(crate) kv_bytes: u64,
    /// `kv-memory`.
    pub(crate) kept_bytes: u64,
}

pub(crate) struct Problem {
    pub(crate) what: String,
    pub(crate) remedy: String,
}

// === impl Plan ===

impl Plan {
    pub(crate) fn of(config: &Config) -> Self {
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        let mut models = Vec::new();
        for (i, model) in config.models.iter().enumerate() {
            match PlannedModel::of(model) {
                Ok(planned) => {
                    let trained = planned.file.as_ref().map_or(u32::MAX, |file| file.header().context_length());
                    if planned.n_context > trained {
                        problems.push(Problem {
                            what: format!(
                                "models[{i}].context is {}, but `{}` was trained for {trained}",
                                planned.n_context, model.name
                            ),
                            remedy: "lower it, or leave it out".into(),
                        });
                    }
                    models.push(planned);
                }
                Err(error) => problems.push(Problem {
                    what: format!("models[{i}] `{}`: {error}", model.name),
                    remedy: "give the path of a whole GGUF file, or builtin:demo".into(),
                }),
            }
        }
        for node_type in &config.types {
            if let Err(error) = module(node_type) {
                let what = format!("types.{}: {error}", node_type.name);
                problems.push(Problem { what, remedy: "give the path of a component that ends in .wasm".into() });
            }
        }
        let wanted: Vec<(u32, Limits)> = config.types.iter().map(|t| (t.count, limits(config, t))).collect();
        let (isolates, shortages) = preflight(&wanted);
        problems.extend(shortages.into_iter().map(|s| Problem { what: s.what, remedy: s.remedy }));
        let available_bytes = available_bytes();
        let needed = isolates.idle_bytes + models.iter().map(|m| m.weight_bytes + m.kv_bytes + m.kept_bytes).sum::<u64>();
        if available_bytes.is_some_and(|available| needed > available) {
            warnings.push(Problem {
                what: format!(
                    "models, KV caches and idle isolates take {}, and {} of memory are available",
                    Size(needed),
                    Size(available_bytes.unwrap_or(0))
                ),
                remedy: "fewer `sequences`, a smaller `context`, kv-type q8_0, or fewer isolates".into(),
            });
        }
        Self { models, isolates, problems, warnings, available_bytes }
    }
}

impl PlannedModel {
    fn of(model: &ModelConfig) -> Result<Self, CatalogError> {
        let file = match &model.source {
            ModelSource::Demo => Builtin::Demo.unpack()?,
            ModelSource::DemoSmall => Builtin::DemoSmall.unpack()?,
            ModelSource::File(path) => ModelFile::open(&path.resolved)?,
        };
        let header = file.header();
        let n_context = model.context.unwrap_or_else(|| header.context_length());
        let f16 = header.kv_bytes_per_token() * u64::from(n_context) * u64::from(model.sequences);
        // q8_0 keeps 32 values in 34 bytes
        let kv_bytes = if model.kv_type == KvType::Q8_0 { f16 / 64 * 34 } else { f16 };
        Ok(Self {
            name: model.name.clone(),
            n_context,
            n_sequences: model.sequences,
            weight_bytes: header.tensor_bytes(),
            kv_bytes,
            kept_bytes: model.kv_memory_bytes,
            file: Some(file),
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// The module a type runs. Reads its file.
pub(crate) fn module(node_type: &TypeConfig) -> Result<Module, llambo_isolate::SandboxError> {
    match &node_type.module {
        ModuleSource::Default => Ok(Module::default_engine()),
        ModuleSource::File(path) => Module::open(&path.resolved),
    }
}

/// How isolates of a type are made.
pub(crate) fn type_settings(config: &Config, node_type: &TypeConfig) -> TypeSettings {
    TypeSettings {
        name: TypeName::from(&node_type.name),
        model: ModelName::from(&node_type.model),
        limits: limits(config, node_type),
        weight: node_type.weight,
        tenant: TenantName::from(&node_type.tenant),
        tenant_weight: config.tenant_weight(&node_type.tenant),
        expected: node_type.count,
    }
}

fn limits(config: &Config, node_type: &TypeConfig) -> Limits {
    Limits {
        memory_bytes: node_type.memory_bytes,
        table_elements: node_type.table_elements,
        stack_bytes: node_type.stack_bytes,
        cpu_share: node_type.cpu,
        cpu_time: node_type.cpu_time,
        host_calls_per_second: node_type.host_calls_per_second,
        output_bytes: node_type.max_output_bytes,
        stall_timeout: config.network.client_stall_timeout,
    }
}

/// Threads this machine can run at once.
pub(crate) fn n_cores() -> u32 {
    u32::try_from(thread::available_parallelism().map_or(1, NonZero::get)).unwrap_or(1)
}

/// `MemAvailable` of Linux; `None` elsewhere.
fn available_bytes() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// Bytes as people read them.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
        let (mut value, mut unit) = (self.0 as f64, 0);
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        if unit == 0 { write!(f, "{value} {}", UNITS[unit]) } else { write!(f, "{value:.1} {}", UNITS[unit]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(Size(512).to_string(), "512 bytes");
        assert_eq!(Size(128 << 20).to_string(), "128.0 MiB");
        assert_eq!(Size(3 << 40).to_string(), "3.0 TiB");
    }

    #[test]
    fn the_shipped_configuration_is_no_problem() {
        let plan = Plan::of(&Config::shipped());
        assert!(plan.problems.is_empty(), "{}", plan.problems[0]);
        assert_eq!(plan.isolates.n_isolates, 1000);
        assert!(plan.models[0].kv_bytes > 0);
    }
}

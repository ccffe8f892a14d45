//! What a configuration asks of this machine, and what of it is not there.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    num::NonZero,
    thread,
    time::Duration,
};

use llambo_catalog::{Builtin, CatalogError, GgufHeader, ModelFile};
use llambo_config::{Config, KvType, ModelConfig, ModelSource, ModuleSource, Scaling, TypeConfig};
use llambo_hardware::{Detector, Machine};
use llambo_inference::{ModelName, TenantName, TypeName};
use llambo_isolate::{Limits, Module, Need, Shortage, TypeSettings, preflight};
use llambo_llama::{Device, MOST_DRAFTED_SEQUENCES};
use llambo_strategy::ScaleRules;

use crate::models::register;

/// What llama.cpp takes on a GPU beside weights and KV cache: buffers for one batch, and the driver's own.
const GPU_WORKING_BYTES: u64 = 512 << 20;

/// A configuration with its files opened and its needs computed.
pub(crate) struct Plan {
    pub(crate) models: Vec<PlannedModel>,
    pub(crate) isolates: Need,
    /// What stops it.
    pub(crate) problems: Vec<Problem>,
    /// What may stop it once it is used.
    pub(crate) warnings: Vec<Problem>,
    /// What the machine has.
    pub(crate) machine: Machine,
    /// What computes here.
    pub(crate) devices: Vec<Device>,
}

pub(crate) struct PlannedModel {
    pub(crate) name: String,
    pub(crate) file: Option<ModelFile>,
    /// The smaller model that guesses for it.
    pub(crate) draft: Option<ModelFile>,
    pub(crate) n_context: u32,
    pub(crate) n_sequences: u32,
    pub(crate) weight_bytes: u64,
    pub(crate) kv_bytes: u64,
    /// `kv-memory`.
    pub(crate) kept_bytes: u64,
    /// Of weights and KV cache, what goes onto GPUs.
    pub(crate) gpu_bytes: u64,
    /// Which these may be; empty: all.
    gpu_devices: Vec<String>,
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
            match PlannedModel::of(config, model) {
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
                    remedy: "give the path of a whole GGUF file, `catalog:NAME`, or builtin:demo".into(),
                }),
            }
        }
        let devices = llambo_llama::devices();
        if devices.is_empty() {
            let folder = llambo_llama::modules_folder().unwrap_or_default();
            problems.push(Problem {
                what: format!("no module of llama.cpp in `{}` runs on this processor", folder.display()),
                remedy: "name the folder that has them by LLAMBO_MODULES, or unpack the package again".into(),
            });
        }
        let (gpu_problems, gpu_warnings) = gpu_problems(&models, &devices);
        problems.extend(gpu_problems);
        warnings.extend(gpu_warnings);
        for node_type in &config.types {
            if let Err(error) = module(node_type) {
                let what = format!("types.{}: {error}", node_type.name);
                problems.push(Problem { what, remedy: "give the path of a module that ends in .wasm".into() });
            }
        }
        if let Some(folder) = config.policies.folder.as_ref().filter(|folder| !folder.resolved.is_dir()) {
            let what = format!("policies.folder `{folder}` is no folder");
            problems.push(Problem { what, remedy: "make it, or name another one".into() });
        }
        let wanted: Vec<(u32, Limits)> = config.types.iter().map(|t| (t.count, limits(config, t))).collect();
        let (isolates, shortages) = preflight(&wanted);
        problems.extend(shortages.into_iter().map(|s| Problem { what: s.what, remedy: s.remedy }));
        if problems.is_empty() {
            let scaled: Vec<_> = config.types.iter().map(|t| (most(t), limits(config, t))).collect();
            let what = |s: Shortage| Problem { what: format!("with all that `scaling` may make: {}", s.what), remedy: s.remedy };
            warnings.extend(preflight(&scaled).1.into_iter().map(what));
        }
        let machine = Detector::new().machine();
        let available = machine.memory.available_bytes;
        let needed = isolates.idle_bytes + models.iter().map(PlannedModel::ram_bytes).sum::<u64>();
        // a system that does not say what it has is believed to have enough
        if machine.memory.total_bytes > 0 && needed > available {
            warnings.push(Problem {
                what: format!(
                    "models, KV caches and idle isolates take {}, and {} of memory are available",
                    Size(needed),
                    Size(available)
                ),
                remedy: "fewer `sequences`, a smaller `context`, kv-type q8_0, or fewer isolates".into(),
            });
        }
        Self { models, isolates, problems, warnings, machine, devices }
    }
}

impl PlannedModel {
    pub(crate) fn ram_bytes(&self) -> u64 {
        (self.weight_bytes + self.kv_bytes).saturating_sub(self.gpu_bytes) + self.kept_bytes
    }

    pub(crate) fn of(config: &Config, model: &ModelConfig) -> Result<Self, CatalogError> {
        let file = opened(config, &model.source)?;
        let draft = model.draft.as_ref().map(|source| opened(config, source)).transpose()?;
        let header = file.header();
        let n_context = model.context.unwrap_or_else(|| header.context_length());
        let f16 = header.kv_bytes_per_token() * u64::from(n_context) * u64::from(model.sequences);
        let kv_bytes = kv_type(model).bytes(f16);
        let (mut weight_bytes, mut kv_bytes) = (header.tensor_bytes(), kv_bytes);
        let mut gpu_bytes = on_gpu(header, weight_bytes + kv_bytes, model.gpu_layers);
        if let Some(header) = draft.as_ref().map(ModelFile::header) {
            let kv = header.kv_bytes_per_token() * u64::from(n_context) * MOST_DRAFTED_SEQUENCES as u64;
            gpu_bytes += on_gpu(header, header.tensor_bytes() + kv, model.gpu_layers);
            weight_bytes += header.tensor_bytes();
            kv_bytes += kv;
        }
        Ok(Self {
            name: model.name.clone(),
            gpu_bytes,
            gpu_devices: model.gpu_devices.clone(),
            n_context,
            n_sequences: model.sequences,
            weight_bytes,
            kv_bytes,
            kept_bytes: model.kv_memory_bytes,
            file: Some(file),
            draft,
        })
    }
}

/// Of so many bytes of weights and KV cache, those of the layers that go onto GPUs.
fn on_gpu(header: &GgufHeader, n_bytes: u64, n_layers: u32) -> u64 {
    // one more than there are: the output layer counts as well
    let all = header.model_number("block_count").unwrap_or(0) + 1;
    n_bytes / all * u64::from(n_layers).min(all)
}

/// How llama.cpp is to keep the KV cache.
pub(crate) fn kv_type(model: &ModelConfig) -> llambo_llama::KvType {
    match model.kv_type {
        KvType::F16 => llambo_llama::KvType::F16,
        KvType::Q8_0 => llambo_llama::KvType::Q8,
    }
}

fn opened(config: &Config, source: &ModelSource) -> Result<ModelFile, CatalogError> {
    match source {
        ModelSource::Demo => Builtin::Demo.unpack(),
        ModelSource::DemoSmall => Builtin::DemoSmall.unpack(),
        ModelSource::File(path) => ModelFile::open(&path.resolved),
        ModelSource::Catalog(name) => registered(config, name),
    }
}

/// A model by its name in the catalog.
fn registered(config: &Config, name: &str) -> Result<ModelFile, CatalogError> {
    let homeless = || CatalogError::NotRegistered { name: name.into(), known: Vec::new(), path: "~".into() };
    register(config).ok_or_else(homeless)?.open(name)
}

/// What does not fit onto graphics cards. A model takes of each that it may use in proportion to what is free there, as llama.cpp splits it.
fn gpu_problems(models: &[PlannedModel], devices: &[Device]) -> (Vec<Problem>, Vec<Problem>) {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let gpus: Vec<&Device> = devices.iter().filter(|device| device.is_gpu).collect();
    let there = || gpus.iter().map(|gpu| gpu.name.as_str()).collect::<Vec<_>>().join(", ");
    let mut left: HashMap<&str, u64> = gpus.iter().map(|gpu| (gpu.name.as_str(), gpu.free_bytes)).collect();
    for model in models.iter().filter(|model| model.gpu_bytes > 0) {
        if let Some(name) = model.gpu_devices.iter().find(|name| !left.contains_key(name.as_str())) {
            let what = format!("model `{}` is to use the GPU `{name}`, which is not here", model.name);
            let remedy = if gpus.is_empty() { "set `gpu-layers` to 0".into() } else { format!("choose among {}", there()) };
            problems.push(Problem { what, remedy });
            continue;
        }
        if gpus.is_empty() {
            let what = format!(
                "model `{}` has `gpu-layers`, and there is no GPU that this build can use: its layers stay with the processor",
                model.name
            );
            warnings.push(Problem {
                what,
                remedy: "build with `cargo xtask package` and add the module for yours, or set `gpu-layers` to 0".into(),
            });
            continue;
        }
        let may_use = |name: &str| model.gpu_devices.is_empty() || model.gpu_devices.iter().any(|n| n == name);
        let free: u64 = left.iter().filter(|(name, _)| may_use(name)).map(|(_, bytes)| bytes).sum();
        let needed = model.gpu_bytes + GPU_WORKING_BYTES;
        // a driver that does not say what it has is believed to have enough
        let says = gpus.iter().filter(|gpu| may_use(&gpu.name)).all(|gpu| gpu.total_bytes > 0);
        if needed > free && says {
            let what = format!("model `{}` needs about {} of GPU memory, and {} are free", model.name, Size(needed), Size(free));
            let problem =
                Problem { what, remedy: "lower its `gpu-layers`, `sequences` or `context`, or set kv-type q8_0".into() };
            // what llama.cpp takes beside is a guess
            if model.gpu_bytes > free { problems.push(problem) } else { warnings.push(problem) }
        }
        for (_, bytes) in left.iter_mut().filter(|(name, _)| may_use(name)) {
            let taken = u128::from(needed) * u128::from(*bytes) / u128::from(free.max(1));
            *bytes = bytes.saturating_sub(u64::try_from(taken).unwrap_or(u64::MAX));
        }
    }
    (problems, warnings)
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
        tier: node_type.tier,
        labels: node_type.labels.clone().into(),
        bounds: node_type.scale,
        name: TypeName::from(&node_type.name),
        id_stem: node_type.name.clone(),
        model: ModelName::from(&node_type.model),
        serves: ModelName::from(&node_type.model),
        may_ask: node_type.models.as_ref().map(|names| {
            // its own needs no permission
            names.iter().chain([&node_type.model]).map(ModelName::from).collect()
        }),
        limits: limits(config, node_type),
        hibernates: node_type.hibernate,
        weight: node_type.weight,
        tenant: TenantName::from(&node_type.tenant),
        tenant_weight: config.tenant_weight(&node_type.tenant),
        args: node_type.args.clone(),
        env: node_type.env.clone(),
        expected: most(node_type),
    }
}

/// Isolates that a type may come to have by itself.
fn most(node_type: &TypeConfig) -> u32 {
    node_type.scaling.map_or(node_type.count, |scaling| scaling.max.max(node_type.count))
}

/// How the types of a configuration follow their load, as far as they do.
pub(crate) fn scalings(config: &Config) -> BTreeMap<TypeName, ScaleRules> {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let rules = |scaling: Scaling| ScaleRules {
        min: scaling.min,
        max: scaling.max,
        target_load: scaling.target_load,
        up_at: scaling.up_at,
        down_at: scaling.down_at,
        up_cool_down_ms: ms(scaling.up_cool_down),
        down_cool_down_ms: ms(scaling.down_cool_down),
        up_step: scaling.up_step.unwrap_or(u32::MAX),
        down_step: scaling.down_step.unwrap_or(u32::MAX),
        window_ms: ms(scaling.window),
        idle_to_zero_ms: ms(scaling.idle_to_zero),
    };
    config.types.iter().filter_map(|of| Some((TypeName::from(&of.name), rules(of.scaling?)))).collect()
}

fn limits(config: &Config, node_type: &TypeConfig) -> Limits {
    let budget = config.budget(node_type);
    Limits {
        memory_bytes: node_type.memory_bytes,
        table_elements: node_type.table_elements,
        stack_bytes: node_type.stack_bytes,
        cpu_share: node_type.cpu,
        cpu_time: node_type.cpu_time,
        host_calls_per_second: node_type.host_calls_per_second,
        output_bytes: node_type.max_output_bytes,
        output_bytes_per_second: node_type.output_bytes_per_second,
        tokens: budget.tokens,
        kv_bytes: budget.kv_bytes,
        time: budget.time,
    }
}

/// Threads this machine can run at once.
pub(crate) fn n_cores() -> u32 {
    u32::try_from(thread::available_parallelism().map_or(1, NonZero::get)).unwrap_or(1)
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
    fn a_model_that_does_not_fit_onto_the_gpus_is_told_before_it_is_loaded() {
        let gpu = |name: &str, free_bytes| Device {
            name: name.into(),
            description: "a card".into(),
            is_gpu: true,
            free_bytes,
            total_bytes: free_bytes,
        };
        let model = |gpu_bytes: u64, devices: &[&str]| PlannedModel {
            name: "m".into(),
            file: None,
            draft: None,
            n_context: 1,
            n_sequences: 1,
            weight_bytes: gpu_bytes,
            kv_bytes: 0,
            kept_bytes: 0,
            gpu_bytes,
            gpu_devices: devices.iter().map(ToString::to_string).collect(),
        };
        let gpus = [gpu("CUDA0", 8 << 30), gpu("CUDA1", 4 << 30)];
        let problems = |models: &[PlannedModel], gpus: &[Device]| {
            let (problems, warnings) = gpu_problems(models, gpus);
            (problems.iter().map(|p| p.what.clone()).collect::<Vec<_>>(), warnings.len())
        };
        assert_eq!(problems(&[model(10 << 30, &[])], &gpus), (vec![], 0));
        assert_eq!(problems(&[model(0, &[])], &[]), (vec![], 0));
        let (told, _) = problems(&[model(8 << 30, &["CUDA1"])], &gpus);
        assert_eq!(told, ["model `m` needs about 8.5 GiB of GPU memory, and 4.0 GiB are free"]);
        assert_eq!(problems(&[model((4 << 30) - 1, &["CUDA1"])], &gpus), (vec![], 1));
        assert_eq!(problems(&[model(1 << 40, &[])], &[gpu("Vulkan0", 0)]), (vec![], 0));
        // what the first takes, the second has not
        assert_eq!(problems(&[model(9 << 30, &[]), model(4 << 30, &[])], &gpus).0.len(), 1);
        assert!(problems(&[model(1, &["CUDA7"])], &gpus).0[0].contains("`CUDA7`, which is not here"));
        assert_eq!(problems(&[model(1, &[])], &[]), (vec![], 1));
    }

    #[test]
    fn the_shipped_configuration_is_no_problem() {
        let plan = Plan::of(&Config::shipped());
        assert!(plan.problems.is_empty(), "{}", plan.problems[0]);
        assert_eq!(plan.isolates.n_isolates, 1000);
        assert!(plan.models[0].kv_bytes > 0);
    }
}

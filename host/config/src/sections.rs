//! The keys of cluster-config.yaml with their defaults and ranges, section by section.

mod catalog;
mod modules;
mod network;
mod policies;
mod scaling;
mod sessions;
mod tasks;
mod telemetry;
mod tenants;
mod types;

pub use types::is_name;

use std::{collections::HashMap, path::Path, time::Duration};

use crate::{
    Balancing, Cache, Classifier, Config, FilePath, Hibernation, KvType, LogFormat, Logging, ModelConfig, ModelSource, Queue,
    Shutdown, Strategy,
    decode::{Decoder, Map, Value, meant},
    spelling::listed,
    tree::Node,
};

/// Keys of each section by its name, which is empty for the root: what the shipped file must describe.
#[cfg(test)]
pub(crate) const KEYS: &[(&str, &[&str])] = &[
    ("", ROOT),
    ("models", MODEL),
    ("types", types::TYPE),
    ("types", scaling::SCALING),
    ("tenants", tenants::TENANT),
    ("catalog", catalog::CATALOG),
    ("modules", modules::MODULES),
    ("policies", policies::POLICIES),
    ("tasks", tasks::TASKS),
    ("sessions", sessions::SESSIONS),
    ("hibernation", HIBERNATION),
    ("gpu", GPU),
    ("balancing", BALANCING),
    ("faults", FAULTS),
    ("queue", QUEUE),
    ("network", network::NETWORK),
    ("network", network::TLS),
    ("shutdown", SHUTDOWN),
    ("logging", LOGGING),
    ("metrics", telemetry::METRICS),
    ("tracing", telemetry::TRACING),
    ("cache", CACHE),
];

const ROOT: &[&str] = &[
    "models", "gpu", "catalog", "types", "tenants", "modules", "policies", "tasks", "sessions", "hibernation", "balancing",
    "faults", "queue", "network", "shutdown", "logging", "metrics", "tracing", "cache",
];
const MODEL: &[&str] = &[
    "name", "path", "context", "sequences", "threads", "gpu-layers", "gpu-devices", "draft", "draft-tokens", "kv-type",
    "kv-memory", "kv-disk", "embeddings",
];
const GPU: &[&str] = &["layers", "devices"];
const BALANCING: &[&str] = &["strategy", "attempts", "stall-timeout", "classifier"];
const FAULTS: &[&str] = &["allow"];
const QUEUE: &[&str] = &["max-waiting", "max-in-flight", "max-wait"];
const SHUTDOWN: &[&str] = &["drain"];
const LOGGING: &[&str] = &["format", "level"];
const HIBERNATION: &[&str] = &["folder"];
const CACHE: &[&str] = &["modules", "kv"];

/// What names of models of the catalog begin with, where a path may stand.
const CATALOG: &str = "catalog:";

const KB: u64 = 1 << 10;
const MB: u64 = 1 << 20;
const GB: u64 = 1 << 30;

/// Longer than any wait that makes sense, short enough for every clock.
const DAY: Duration = Duration::from_hours(24);
const MS: Duration = Duration::from_millis(1);

/// Whether addresses that other machines reach were accepted before the file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    Nothing,
    Insecure,
}

/// Decodes everything. `None` only when errors were noted.
pub(crate) fn config(root: &Node, decoder: &Decoder<'_>, folder: &Path, accepted: Accepted) -> Option<Config> {
    let root = decoder.root(root).map(ROOT)?;
    let gpu = root.section("gpu", GPU);
    let gpu = Gpu::read(&gpu, "layers", "devices");
    let models = models(&root, &gpu, folder);
    let tenants = tenants::tenants(&root, folder);
    let types = types::types(&root, &models, tenants.as_deref(), folder);
    let (balancing, queue) = (root.section("balancing", BALANCING), root.section("queue", QUEUE));
    let hibernation = root.section("hibernation", HIBERNATION);
    let (shutdown, cache) = (root.section("shutdown", SHUTDOWN), root.section("cache", CACHE));
    Some(Config {
        models: models.configs,
        catalog: catalog::catalog(&root, &types, &gpu, folder),
        modules: modules::modules(&root, &types, folder),
        policies: policies::policies(&root, folder),
        tasks: tasks::tasks(&root, folder),
        sessions: sessions::sessions(&root, folder),
        types,
        hibernation: Hibernation { folder: hibernation.get("folder").and_then(|value| file_path(&value, value.text()?, folder)) },
        balancing: Balancing {
            strategy: balancing.choice("strategy", Strategy::NAMES).unwrap_or_default(),
            attempts: balancing.whole("attempts", 1..=10).unwrap_or(3),
            stall_timeout: balancing.duration("stall-timeout", 10 * MS..=DAY),
            classifier: balancing.choice("classifier", Classifier::NAMES).unwrap_or_default(),
        },
        allow_faults: root.section("faults", FAULTS).switch("allow").unwrap_or(false),
        queue: Queue {
            max_waiting: queue.whole("max-waiting", 0..=1_000_000).unwrap_or(4096),
            max_in_flight: queue.whole("max-in-flight", 1..=100_000).unwrap_or(512),
            max_wait: queue.duration("max-wait", MS..=DAY).unwrap_or(Duration::from_secs(30)),
        },
        network: network::network(&root, tenants.as_deref(), folder, accepted),
        tenants: tenants.unwrap_or_default(),
        shutdown: Shutdown { drain: shutdown.duration("drain", Duration::ZERO..=DAY).unwrap_or(Duration::from_secs(10)) },
        logging: logging(&root),
        metrics: telemetry::metrics(&root),
        tracing: telemetry::tracing(&root, folder),
        cache: Cache {
            modules: cache.get("modules").and_then(|value| file_path(&value, value.text()?, folder)),
            kv: cache.get("kv").and_then(|value| file_path(&value, value.text()?, folder)),
        },
    })
}

#[derive(Default)]
struct Models {
    configs: Vec<ModelConfig>,
    /// Whether every name could be read. Otherwise a reference that finds none is not wrong for sure.
    is_complete: bool,
}

/// What goes onto graphics cards, where it is said.
struct Gpu {
    layers: Option<u32>,
    devices: Option<Vec<String>>,
}

impl Gpu {
    fn read(map: &Map<'_>, layers: &'static str, devices: &'static str) -> Self {
        Self { layers: map.whole(layers, 0..=10_000), devices: texts(map, devices) }
    }
}

/// Whether a name that refers to another section is one of those that are there.
fn check_is_among<'n, I: Iterator<Item = &'n str>>(value: &Value<'_>, name: &str, section: &str, names: impl Fn() -> I) {
    if !names().any(|known| known == name) {
        let known = format!("`{section}` has only {}", listed(names()));
        value.wrong(known, meant(name, names(), "name one of them or add it there"));
    }
}

/// A list of texts.
fn texts(map: &Map<'_>, key: &'static str) -> Option<Vec<String>> {
    map.get(key).and_then(|value| value.list()?.map(|text| text.text().map(str::to_owned)).collect())
}

fn models(root: &Map<'_>, gpu: &Gpu, folder: &Path) -> Models {
    let advice = "list at least one, for example `- path: builtin:demo`";
    let Some(list) = root.require("models", advice) else { return Models::default() };
    let Some(items) = list.list() else { return Models::default() };
    let mut models = Models { configs: Vec::new(), is_complete: true };
    let mut names = HashMap::new();
    for (n, item) in items.enumerate() {
        let config = item.map(MODEL).and_then(|map| {
            let name = name(&map);
            if let Some((value, name)) = &name
                && let Some(first) = names.insert(*name, n)
            {
                value.wrong(format_args!("`models[{first}]` has that name already"), "give one of them another `name`");
            }
            model(&map, name.map(|(_, name)| name), gpu, folder)
        });
        models.is_complete &= config.is_some();
        models.configs.extend(config);
    }
    if models.configs.is_empty() && models.is_complete {
        list.wrong("has no entry", advice);
    }
    models
}

/// The name of a model, and what says it: its path, unless told otherwise.
fn name<'a>(map: &Map<'a>) -> Option<(Value<'a>, &'a str)> {
    let Some(value) = map.get("name") else {
        let path = map.get("path")?;
        // what is wrong with a path is said where it is read
        let text = path.as_text()?;
        return Some((path, text.strip_prefix(CATALOG).unwrap_or(text)));
    };
    let name = value.text()?;
    if name.chars().count() > 128 || name.contains(char::is_control) {
        value.wrong("must be at most 128 printable characters", "choose another name");
        return None;
    }
    Some((value, name))
}

fn weights(value: &Value<'_>, text: &str, folder: &Path) -> Option<ModelSource> {
    if let Some(name) = text.strip_prefix(CATALOG) {
        if name.is_empty() || name.contains(char::is_control) || name.contains('/') {
            value.wrong("names no model of the catalog", "`llamboctl models catalog` lists them: `catalog:NAME`");
            return None;
        }
        return Some(ModelSource::Catalog(name.to_owned()));
    }
    let builtin = [("builtin:demo", ModelSource::Demo), ("builtin:demo-small", ModelSource::DemoSmall)];
    builtin_or_file(value, text, builtin, folder).map(|found| found.unwrap_or_else(ModelSource::File))
}

/// `None` when its path cannot be read, or its name could not.
fn model(map: &Map<'_>, name: Option<&str>, host: &Gpu, folder: &Path) -> Option<ModelConfig> {
    let path = map.require("path", "give a GGUF file, `catalog:NAME`, `builtin:demo` or `builtin:demo-small`");
    let path = path.and_then(|value| value.text().map(|text| (value, text)));
    let source = path.as_ref().and_then(|(value, text)| weights(value, text, folder));
    let draft = map.get("draft").and_then(|value| weights(&value, value.text()?, folder));
    let draft_tokens = map.whole("draft-tokens", 1..=16).unwrap_or(4);
    let context = map.whole("context", 64..=1 << 20);
    let sequences = map.whole("sequences", 1..=256).unwrap_or(64);
    let threads = map.whole("threads", 1..=512);
    let gpu = Gpu::read(map, "gpu-layers", "gpu-devices");
    let kv_type = map.choice("kv-type", KvType::NAMES).unwrap_or_default();
    let embeddings = map.switch("embeddings").unwrap_or(true);
    let kv_memory_bytes = map.size("kv-memory", 0..=1024 * GB).unwrap_or(256 * MB);
    let kv_disk_bytes = map.size("kv-disk", 0..=16_384 * GB).unwrap_or(0);
    Some(ModelConfig {
        name: name?.to_owned(),
        source: source?,
        context,
        sequences,
        threads,
        gpu_layers: gpu.layers.or(host.layers).unwrap_or(0),
        gpu_devices: gpu.devices.or_else(|| host.devices.clone()).unwrap_or_default(),
        draft,
        draft_tokens,
        kv_type,
        embeddings,
        kv_memory_bytes,
        kv_disk_bytes,
    })
}

fn logging(root: &Map<'_>) -> Logging {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let map = root.section("logging", LOGGING);
    let level = map.get("level").and_then(|value| {
        let text = value.text()?;
        for directive in text.split(',').map(str::trim) {
            let (target, level) = directive.split_once('=').unwrap_or(("any", directive));
            let is_target = !target.is_empty() && target.chars().all(|c| c.is_ascii_alphanumeric() || "_:-".contains(c));
            if !is_target || !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
                let must = format!("each part must be a level ({}) or `target=level`", listed(LEVELS));
                value.wrong(must, meant(level, LEVELS, "write it like `info` or `warn,llambo_llama=debug`"));
                return None;
            }
        }
        Some(text.to_owned())
    });
    Logging {
        format: map.choice("format", LogFormat::NAMES).unwrap_or_default(),
        level: level.unwrap_or_else(|| "info".to_owned()),
    }
}

/// Something inside the program, or else a file; `None` when it was neither.
fn builtin_or_file<T, const N: usize>(
    value: &Value<'_>,
    text: &str,
    builtin: [(&'static str, T); N],
    folder: &Path,
) -> Option<Result<T, FilePath>> {
    if !text.starts_with("builtin:") {
        return file_path(value, text, folder).map(Err);
    }
    let names = builtin.each_ref().map(|(name, _)| *name);
    let found = builtin.into_iter().find(|(name, _)| *name == text).map(|(_, found)| Ok(found));
    if found.is_none() {
        value.wrong(format_args!("the program contains only {}", listed(names)), meant(text, names, "use that or a file"));
    }
    found
}

fn file_path(value: &Value<'_>, text: &str, folder: &Path) -> Option<FilePath> {
    if text == "~" || text.starts_with("~/") {
        value.wrong("`~` is not expanded here", "write the whole path");
        return None;
    }
    Some(FilePath { written: text.to_owned(), resolved: folder.join(text) })
}

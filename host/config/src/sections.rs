//! The keys of cluster-config.yaml with their defaults and ranges, section by section.

mod modules;
mod types;

pub use types::is_name;

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use crate::{
    Balancing, Cache, Config, FilePath, Hibernation, KvType, LogFormat, Logging, ModelConfig, ModelSource, Network, Queue,
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
    ("tenants", types::TENANT),
    ("modules", modules::MODULES),
    ("hibernation", HIBERNATION),
    ("gpu", GPU),
    ("balancing", BALANCING),
    ("queue", QUEUE),
    ("network", NETWORK),
    ("shutdown", SHUTDOWN),
    ("logging", LOGGING),
    ("cache", CACHE),
];

const ROOT: &[&str] = &[
    "models", "gpu", "types", "tenants", "modules", "hibernation", "balancing", "queue", "network", "shutdown", "logging",
    "cache",
];
const MODEL: &[&str] = &[
    "name", "path", "context", "sequences", "threads", "gpu-layers", "gpu-devices", "draft", "draft-tokens", "kv-type",
    "kv-memory", "kv-disk", "embeddings",
];
const GPU: &[&str] = &["layers", "devices"];
const BALANCING: &[&str] = &["strategy", "attempts"];
const QUEUE: &[&str] = &["max-waiting", "max-in-flight", "max-wait"];
const NETWORK: &[&str] = &["grpc", "http", "max-request-size", "client-stall-timeout", "insecure"];
const SHUTDOWN: &[&str] = &["drain"];
const LOGGING: &[&str] = &["format", "level"];
const HIBERNATION: &[&str] = &["folder"];
const CACHE: &[&str] = &["modules", "kv"];

const KB: u64 = 1 << 10;
const MB: u64 = 1 << 20;
const GB: u64 = 1 << 30;

/// Longer than any wait that makes sense, short enough for every clock.
const DAY: Duration = Duration::from_hours(24);
const MS: Duration = Duration::from_millis(1);

/// Decodes everything. `None` only when errors were noted.
pub(crate) fn config(root: &Node, decoder: &Decoder<'_>, folder: &Path) -> Option<Config> {
    let root = decoder.root(root).map(ROOT)?;
    let gpu = root.section("gpu", GPU);
    let gpu = Gpu::read(&gpu, "layers", "devices");
    let models = models(&root, &gpu, folder);
    let tenants = types::tenants(&root);
    let types = types::types(&root, &models, tenants.as_deref(), folder);
    let (balancing, queue) = (root.section("balancing", BALANCING), root.section("queue", QUEUE));
    let hibernation = root.section("hibernation", HIBERNATION);
    let (shutdown, cache) = (root.section("shutdown", SHUTDOWN), root.section("cache", CACHE));
    Some(Config {
        models: models.configs,
        modules: modules::modules(&root, &types, folder),
        types,
        hibernation: Hibernation { folder: hibernation.get("folder").and_then(|value| file_path(&value, value.text()?, folder)) },
        tenants: tenants.unwrap_or_default(),
        balancing: Balancing {
            strategy: balancing.choice("strategy", Strategy::NAMES).unwrap_or_default(),
            attempts: balancing.whole("attempts", 1..=10).unwrap_or(3),
        },
        queue: Queue {
            max_waiting: queue.whole("max-waiting", 0..=1_000_000).unwrap_or(4096),
            max_in_flight: queue.whole("max-in-flight", 1..=100_000).unwrap_or(512),
            max_wait: queue.duration("max-wait", MS..=DAY).unwrap_or(Duration::from_secs(30)),
        },
        network: network(&root),
        shutdown: Shutdown { drain: shutdown.duration("drain", Duration::ZERO..=DAY).unwrap_or(Duration::from_secs(10)) },
        logging: logging(&root),
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
        return Some((path, text));
    };
    let name = value.text()?;
    if name.chars().count() > 128 || name.contains(char::is_control) {
        value.wrong("must be at most 128 printable characters", "choose another name");
        return None;
    }
    Some((value, name))
}

fn weights(value: &Value<'_>, text: &str, folder: &Path) -> Option<ModelSource> {
    let builtin = [("builtin:demo", ModelSource::Demo), ("builtin:demo-small", ModelSource::DemoSmall)];
    builtin_or_file(value, text, builtin, folder).map(|found| found.unwrap_or_else(ModelSource::File))
}

/// `None` when its path cannot be read, or its name could not.
fn model(map: &Map<'_>, name: Option<&str>, host: &Gpu, folder: &Path) -> Option<ModelConfig> {
    let path = map.require("path", "give a GGUF file, `builtin:demo` or `builtin:demo-small`");
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

fn network(root: &Map<'_>) -> Network {
    let map = root.section("network", NETWORK);
    // A value that is neither true nor false is one mistake, not a second one at each address.
    let insecure = map.get("insecure").is_some_and(|value| value.switch().unwrap_or(true));
    let defaults = [7400, 7480].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let [grpc, http] = [("grpc", defaults[0]), ("http", defaults[1])].map(|(key, default)| address(&map, key, default, insecure));
    if let (Some(grpc), Some(http)) = (grpc, http)
        && grpc.port() == http.port()
        && grpc.port() != 0
        && (grpc.ip() == http.ip() || grpc.ip().is_unspecified() || http.ip().is_unspecified())
    {
        let (value, other) = match map.get("http") {
            Some(value) => (Some(value), "grpc"),
            None => (map.get("grpc"), "http"),
        };
        value.inspect(|value| value.wrong(format_args!("`network.{other}` has that port too"), "give it another port"));
    }
    Network {
        grpc: grpc.unwrap_or(defaults[0]),
        http: http.unwrap_or(defaults[1]),
        max_request_bytes: map.size("max-request-size", KB..=64 * MB).unwrap_or(4 * MB),
        client_stall_timeout: map.duration("client-stall-timeout", MS..=DAY).unwrap_or(Duration::from_mins(1)),
        insecure,
    }
}

/// `None` when it was wrong.
fn address(map: &Map<'_>, key: &'static str, default: SocketAddr, insecure: bool) -> Option<SocketAddr> {
    let Some(value) = map.get(key) else { return Some(default) };
    let Ok(address) = value.text()?.parse::<SocketAddr>() else {
        value.wrong("must be an IP address and a port", format_args!("write it like `{default}` or `[::1]:{}`", default.port()));
        return None;
    };
    if !insecure && !address.ip().to_canonical().is_loopback() {
        value.wrong(
            "other machines could then use this host, which has no authentication yet",
            format_args!("use `{default}`, or accept that with `network.insecure: true`"),
        );
    }
    Some(address)
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

//! Node types.

use std::{path::Path, time::Duration};

use super::{DAY, GB, KB, MB, MS, Models, builtin_or_file, check_is_among, scaling::scaling, texts};
use crate::{
    ModuleSource, RequestBudget, TenantConfig, TypeConfig,
    decode::{Map, Value, meant},
};

pub(super) const TYPE: &[&str] = &[
    "count", "cpu", "memory", "model", "module", "weight", "tier", "cpu-seconds", "host-calls-per-second", "max-output",
    "table-elements", "stack", "tenant", "args", "env", "output-per-second", "max-tokens", "max-kv", "max-time", "models",
    "hibernate", "labels", "min-count", "max-count", "scaling",
];

pub(super) fn budget(map: &Map<'_>) -> RequestBudget {
    RequestBudget {
        tokens: map.whole("max-tokens", 1..=u32::MAX),
        kv_bytes: map.size("max-kv", KB..=1024 * GB),
        time: map.duration("max-time", MS..=DAY),
    }
}

pub(super) fn types(root: &Map<'_>, models: &Models, tenants: Option<&[TenantConfig]>, folder: &Path) -> Vec<TypeConfig> {
    let advice = "name at least one, for example `tiny: {count: 1000, memory: 128MB, cpu: 0.1}`";
    let Some(types) = root.require("types", advice) else { return Vec::new() };
    let Some(entries) = types.named() else { return Vec::new() };
    if entries.is_empty() {
        types.wrong("has no entry", advice);
    }
    entries.into_iter().filter_map(|(name, value)| node_type(name, &value, models, tenants, folder)).collect()
}

/// Whether it is a name for a type, a tenant or a published module: a lower-case letter, then at most 31 of `a-z`, `0-9` and `-`.
pub fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    let begins_well = chars.next().is_some_and(|c| c.is_ascii_lowercase());
    begins_well && text.len() <= 32 && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

pub(super) fn check_name(name: &str, value: &Value<'_>, what: &str) {
    if !is_name(name) {
        let but = format!("is not a name for {what}; use a lower-case letter, then at most 31 of `a-z`, `0-9` and `-`");
        value.wrong_key(&but);
    }
}

/// The type's tenant: `default` needs no entry of its own.
fn tenant(map: &Map<'_>, tenants: Option<&[TenantConfig]>) -> String {
    let Some(value) = map.get("tenant") else { return "default".to_owned() };
    let Some(name) = value.text() else { return String::new() };
    let others = || tenants.into_iter().flatten().map(|tenant| tenant.name.as_str()).filter(|name| *name != "default");
    let names = || std::iter::once("default").chain(others());
    if tenants.is_some() {
        check_is_among(&value, name, "tenants", names);
    }
    name.to_owned()
}

fn node_type(
    name: &str,
    value: &Value<'_>,
    models: &Models,
    tenants: Option<&[TenantConfig]>,
    folder: &Path,
) -> Option<TypeConfig> {
    check_name(name, value, "a type");
    let map = value.map(TYPE)?;
    map.require("count", "say how many there are at the start; 0 is allowed");
    let count = map.whole("count", 0..=200_000);
    Some(TypeConfig {
        name: name.to_owned(),
        count: count.unwrap_or(0),
        cpu: map.number("cpu", 0.001..=64.0).unwrap_or(1.0),
        memory_bytes: map.size("memory", MB..=64 * GB).unwrap_or(128 * MB),
        model: model_reference(&map, models),
        models: model_references(&map, models),
        module: module(&map, folder),
        args: texts(&map, "args").unwrap_or_else(|| vec!["default".to_owned(), "{prompt}".to_owned()]),
        env: environment(&map),
        hibernate: map.switch("hibernate").unwrap_or(false),
        weight: map.number("weight", 0.001..=1_000_000.0).unwrap_or(1.0),
        tenant: tenant(&map, tenants),
        tier: map.whole("tier", 0..=2).unwrap_or(0),
        labels: labels(&map),
        scale: scale(&map),
        scaling: scaling(&map, count),
        cpu_time: map.number("cpu-seconds", 0.001..=86_400.0).map_or(Duration::from_secs(10), Duration::from_secs_f64),
        host_calls_per_second: map.whole("host-calls-per-second", 1..=10_000_000).unwrap_or(20_000),
        output_bytes_per_second: map.size("output-per-second", KB..=GB).unwrap_or(256 * KB),
        max_output_bytes: map.size("max-output", KB..=GB).unwrap_or(8 * MB),
        budget: budget(&map),
        table_elements: map.whole("table-elements", 1..=10_000_000).unwrap_or(10_000),
        stack_bytes: map.size("stack", 64 * KB..=MB).unwrap_or(128 * KB),
    })
}

/// Notes for policies.
fn labels(map: &Map<'_>) -> Vec<(String, String)> {
    let Some(entries) = map.get("labels").and_then(|value| value.named()) else { return Vec::new() };
    let mut labels: Vec<_> =
        entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.text()?.to_owned()))).collect();
    labels.sort();
    labels
}

/// The fewest and the most isolates that a scaler may leave.
fn scale(map: &Map<'_>) -> Option<(u32, u32)> {
    let (min, max) = (map.whole("min-count", 0..=200_000), map.whole("max-count", 1..=200_000));
    if let (Some(value), None) = (map.get("min-count"), map.get("max-count")) {
        value.wrong("stands without `max-count`", "say how many isolates a scaler may make of it");
    }
    if let (Some(min), Some(max), Some(value)) = (min, max, map.get("min-count"))
        && min > max
    {
        value.wrong(format!("is {min}, and `max-count` is {max}"), "lower the one or raise the other");
    }
    max.map(|max| (min.unwrap_or(0), max))
}

/// The name of the type's model, or of the first one.
fn model_reference(map: &Map<'_>, models: &Models) -> String {
    let Some(value) = map.get("model") else {
        return models.configs.first().map(|model| model.name.clone()).unwrap_or_default();
    };
    let name = value.text().unwrap_or_default();
    check_reference(&value, name, models);
    name.to_owned()
}

/// The names of models that its guests may ask; `None`: all.
fn model_references(map: &Map<'_>, models: &Models) -> Option<Vec<String>> {
    let value = map.get("models")?;
    let list = value.list()?;
    list.map(|value| {
        let name = value.text()?;
        check_reference(&value, name, models);
        Some(name.to_owned())
    })
    .collect()
}

fn check_reference(value: &Value<'_>, name: &str, models: &Models) {
    if !name.is_empty() && models.is_complete {
        check_is_among(value, name, "models", || models.configs.iter().map(|model| model.name.as_str()));
    }
}

fn module(map: &Map<'_>, folder: &Path) -> ModuleSource {
    map.get("module")
        .and_then(|value| {
            let text = value.text()?;
            let found = builtin_or_file(&value, text, [("builtin:default", ModuleSource::Default)], folder)?;
            if found.is_err() && Path::new(text).extension().is_none_or(|extension| extension != "wasm") {
                let advice = meant(text, ["builtin:default"], "write one of the two");
                value.wrong("must be `builtin:default` or the path of a module that ends in `.wasm`", advice);
            }
            Some(found.unwrap_or_else(ModuleSource::File))
        })
        .unwrap_or(ModuleSource::Default)
}

/// What a command's environment consists of.
fn environment(map: &Map<'_>) -> Vec<(String, String)> {
    let Some(entries) = map.get("env").and_then(|value| value.named()) else { return Vec::new() };
    entries.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.text()?.to_owned()))).collect()
}

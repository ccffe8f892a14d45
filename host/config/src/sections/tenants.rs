//! Tenants: what they have, how they are known, and what they may do.

use std::{collections::HashMap, path::Path};

use super::{
    GB, file_path, texts,
    types::{budget, check_name},
};
use crate::{
    Permission, Quota, TenantConfig,
    decode::{Map, Value, meant},
    spelling::listed,
};

pub(super) const TENANT: &[&str] = &[
    "weight", "max-tokens", "max-kv", "max-time", "requests-per-minute", "tokens-per-minute", "max-in-flight", "max-waiting",
    "max-kept-kv", "tokens", "tokens-file", "certificates", "may", "models", "types",
];
/// What a tenant may do that says nothing else: what its own requests need.
const USUAL: [Permission; 3] = [Permission::Infer, Permission::Tasks, Permission::Sessions];

/// `None` when they could not be read: a reference that finds none is not wrong for sure then.
pub(super) fn tenants(root: &Map<'_>, folder: &Path) -> Option<Vec<TenantConfig>> {
    let Some(value) = root.get("tenants") else { return Some(Vec::new()) };
    let mut owners = HashMap::new();
    let one = |(name, value): (&str, Value<'_>)| {
        check_name(name, &value, "a tenant");
        let map = value.map(TENANT)?;
        Some(TenantConfig {
            name: name.to_owned(),
            weight: map.number("weight", 0.001..=1_000_000.0).unwrap_or(1.0),
            budget: budget(&map),
            quota: Quota {
                requests_per_minute: map.whole("requests-per-minute", 1..=u32::MAX),
                tokens_per_minute: map.whole("tokens-per-minute", 1..=u32::MAX),
                max_in_flight: map.whole("max-in-flight", 1..=100_000),
                max_waiting: map.whole("max-waiting", 0..=1_000_000),
            },
            max_kept_kv_bytes: map.size("max-kept-kv", 0..=1024 * GB),
            tokens: tokens(&map, name, &mut owners),
            tokens_file: map.get("tokens-file").and_then(|value| file_path(&value, value.text()?, folder)),
            certificates: certificates(&map, name, &mut owners),
            may: permissions(&map),
            models: texts(&map, "models"),
            types: texts(&map, "types"),
        })
    };
    value.named()?.into_iter().map(one).collect()
}

/// Notes a token or a certificate that two tenants have: nobody could say whose request it is.
fn check_is_one_tenants(value: &Value<'_>, text: &str, tenant: &str, owners: &mut HashMap<String, String>) {
    if let Some(other) = owners.insert(text.to_ascii_lowercase(), tenant.to_owned()) {
        let whose = if other == tenant { "this tenant".to_owned() } else { format!("`tenants.{other}`") };
        value.wrong(format_args!("{whose} has it already"), "remove one of them");
    }
}

fn tokens(map: &Map<'_>, tenant: &str, owners: &mut HashMap<String, String>) -> Vec<[u8; 32]> {
    let Some(list) = map.get("tokens").and_then(|value| value.list()) else { return Vec::new() };
    let one = |value: Value<'_>| {
        let text = value.text()?;
        let Some(digest) = digest(text) else {
            // what stands here may be a token: it is not repeated
            value.wrong_secret("must be `sha256:` and 64 hexadecimal digits", "make a token with `llamboctl token new`");
            return None;
        };
        check_is_one_tenants(&value, text, tenant, owners);
        Some(digest)
    };
    list.filter_map(one).collect()
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let hex = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64)?;
    let nibble = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(digest)
}

fn certificates(map: &Map<'_>, tenant: &str, owners: &mut HashMap<String, String>) -> Vec<String> {
    let Some(list) = map.get("certificates").and_then(|value| value.list()) else { return Vec::new() };
    let one = |value: Value<'_>| {
        let text = value.text()?;
        check_is_one_tenants(&value, text, tenant, owners);
        Some(text.to_owned())
    };
    list.filter_map(one).collect()
}

fn permissions(map: &Map<'_>) -> Vec<Permission> {
    let Some(list) = map.get("may").and_then(|value| value.list()) else { return USUAL.to_vec() };
    let names = || Permission::NAMES.iter().map(|(name, _)| *name);
    let one = |value: Value<'_>| {
        let text = value.text()?;
        let found = Permission::NAMES.iter().find(|(name, _)| *name == text).map(|(_, permission)| *permission);
        if found.is_none() {
            value.wrong(format_args!("must be one of {}", listed(names())), meant(text, names(), "choose one of them"));
        }
        found
    };
    list.filter_map(one).collect()
}

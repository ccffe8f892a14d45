//! Policies that are loaded while the host runs.

use std::{path::Path, time::Duration};

use super::{DAY, GB, KB, MB, MS, check_is_among, file_path};
use crate::{Policies, decode::Map};

pub(super) const POLICIES: &[&str] =
    &["load", "time", "max-time", "memory", "max-memory", "max-size", "grants", "folder", "scale-every"];
/// What a policy may be granted beyond plain facts.
const GRANTS: [&str; 1] = ["prompt"];

pub(super) fn policies(root: &Map<'_>, folder: &Path) -> Policies {
    let map = root.section("policies", POLICIES);
    let second = Duration::from_secs(1);
    let max_time = map.duration("max-time", MS..=second).unwrap_or(Duration::from_millis(50));
    let max_memory_bytes = map.size("max-memory", MB..=4 * GB).unwrap_or(64 * MB);
    let grants = map.get("grants").and_then(|value| {
        let list = value.list()?;
        let granted = list.filter_map(|value| {
            let name = value.text()?;
            check_is_among(&value, name, "grants", || GRANTS.into_iter());
            Some(name.to_owned())
        });
        Some(granted.collect::<Vec<_>>())
    });
    let grants_prompt = grants.is_some_and(|grants| grants.iter().any(|name| name == "prompt"));
    Policies {
        load: map.switch("load").unwrap_or(true),
        time: map.duration("time", MS..=max_time).unwrap_or(MS),
        max_time,
        memory_bytes: map.size("memory", 64 * KB..=max_memory_bytes).unwrap_or(MB),
        max_memory_bytes,
        max_bytes: map.size("max-size", KB..=256 * MB).unwrap_or(32 * MB),
        grants_prompt,
        folder: map.get("folder").and_then(|value| file_path(&value, value.text()?, folder)),
        scale_every: map.duration("scale-every", 100 * MS..=DAY).unwrap_or(5 * second),
    }
}

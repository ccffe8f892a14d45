//! Models that come and go while a host runs.

use std::{path::Path, time::Duration};

use super::{DAY, GB, Gpu, MB, MS, check_is_among, file_path};
use crate::{Catalog, TypeConfig, decode::Map};

pub(super) const CATALOG: &[&str] = &["load", "file", "memory", "wait", "types", "count", "context", "sequences"];

pub(super) fn catalog(root: &Map<'_>, types: &[TypeConfig], gpu: &Gpu, folder: &Path) -> Catalog {
    let map = root.section("catalog", CATALOG);
    let names = || types.iter().map(|node_type| node_type.name.as_str());
    let permitted = map.get("types").and_then(|value| {
        let list = value.list()?;
        list.map(|value| {
            let name = value.text()?;
            check_is_among(&value, name, "types", names);
            Some(name.to_owned())
        })
        .collect()
    });
    Catalog {
        load: map.switch("load").unwrap_or(true),
        file: map.get("file").and_then(|value| file_path(&value, value.text()?, folder)),
        memory_bytes: map.size("memory", MB..=16_384 * GB),
        wait: map.duration("wait", MS..=DAY).unwrap_or(Duration::from_mins(1)),
        types: permitted.unwrap_or_else(|| names().map(str::to_owned).collect()),
        count: map.whole("count", 1..=200_000).unwrap_or(16),
        context: map.whole("context", 64..=1 << 20).unwrap_or(4096),
        sequences: map.whole("sequences", 1..=256).unwrap_or(16),
        gpu_layers: gpu.layers.unwrap_or(0),
        gpu_devices: gpu.devices.clone().unwrap_or_default(),
    }
}

//! Guest modules that clients publish.

use std::path::Path;

use super::{KB, MB, check_is_among, file_path};
use crate::{Modules, TypeConfig, decode::Map};

pub(super) const MODULES: &[&str] = &["publish", "types", "count", "max-size", "max-names", "versions", "folder"];

pub(super) fn modules(root: &Map<'_>, types: &[TypeConfig], folder: &Path) -> Modules {
    let map = root.section("modules", MODULES);
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
    Modules {
        publish: map.switch("publish").unwrap_or(true),
        types: permitted.unwrap_or_else(|| names().map(str::to_owned).collect()),
        count: map.whole("count", 1..=200_000).unwrap_or(4),
        max_bytes: map.size("max-size", KB..=256 * MB).unwrap_or(16 * MB),
        max_names: map.whole("max-names", 1..=10_000).unwrap_or(64),
        versions: map.whole("versions", 0..=100).unwrap_or(3),
        folder: map.get("folder").and_then(|value| file_path(&value, value.text()?, folder)),
    }
}

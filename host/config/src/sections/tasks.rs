//! Requests that are answered later.

use std::{path::Path, time::Duration};

use super::{DAY, GB, MB, MS, file_path};
use crate::{Tasks, decode::Map};

pub(super) const TASKS: &[&str] = &["folder", "max-running", "max-queued", "max-size", "attempts", "keep"];
/// A task that ended longer ago than anybody remembers it helps nobody.
const YEAR: Duration = Duration::from_hours(24 * 365);

pub(super) fn tasks(root: &Map<'_>, folder: &Path) -> Tasks {
    let map = root.section("tasks", TASKS);
    Tasks {
        folder: map.get("folder").and_then(|value| file_path(&value, value.text()?, folder)),
        max_running: map.whole("max-running", 1..=10_000).unwrap_or(64),
        max_queued: map.whole("max-queued", 1..=10_000_000).unwrap_or(100_000),
        max_bytes: map.size("max-size", MB..=1024 * GB).unwrap_or(GB),
        attempts: map.whole("attempts", 1..=100).unwrap_or(5),
        keep: map.duration("keep", MS..=YEAR).unwrap_or(DAY),
    }
}

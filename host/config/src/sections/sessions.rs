//! Conversations that are kept for clients.

use std::{path::Path, time::Duration};

use super::{GB, KB, MB, MS, file_path};
use crate::{Sessions, decode::Map};

pub(super) const SESSIONS: &[&str] =
    &["ttl", "max-ttl", "max-sessions", "max-sessions-per-tenant", "max-bytes", "max-messages", "folder"];
/// A year: beyond it, whoever keeps something does not mean a conversation.
const YEAR: Duration = Duration::from_hours(365 * 24);

pub(super) fn sessions(root: &Map<'_>, folder: &Path) -> Sessions {
    let map = root.section("sessions", SESSIONS);
    let max_ttl = map.duration("max-ttl", MS..=YEAR).unwrap_or(Duration::from_hours(168));
    let max_sessions = map.whole("max-sessions", 1..=1_000_000).unwrap_or(10_000);
    Sessions {
        ttl: map.duration("ttl", MS..=max_ttl).unwrap_or(Duration::from_hours(1).min(max_ttl)),
        max_ttl,
        max_sessions,
        max_sessions_per_tenant: map.whole("max-sessions-per-tenant", 1..=1_000_000).unwrap_or(max_sessions),
        max_bytes: map.size("max-bytes", KB..=1024 * GB).unwrap_or(256 * MB),
        max_messages: map.whole("max-messages", 2..=100_000).unwrap_or(1000),
        folder: map.get("folder").and_then(|value| file_path(&value, value.text()?, folder)),
    }
}

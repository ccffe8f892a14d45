//! Conversations that are kept for clients, as the configuration says.

use llambo_config::Sessions as SessionsConfig;
use llambo_sessions::{Sessions, Settings};
use tokio::task::spawn_blocking;

use crate::Failure;

/// Takes in what an earlier run kept.
pub(crate) async fn open(config: &SessionsConfig) -> Result<Sessions, Failure> {
    let settings = Settings {
        ttl: config.ttl,
        max_ttl: config.max_ttl,
        max_sessions: config.max_sessions as usize,
        max_sessions_per_tenant: config.max_sessions_per_tenant as usize,
        max_bytes: config.max_bytes,
        max_messages: config.max_messages as usize,
        folder: config.folder.as_ref().map(|path| path.resolved.clone()),
    };
    let opened = spawn_blocking(move || Sessions::open(&settings)).await.map_err(Failure::machine)?;
    let sessions = opened.map_err(Failure::machine)?;
    if sessions.is_durable() {
        tracing::info!(n_sessions = sessions.len(), "sessions taken in");
    }
    Ok(sessions)
}

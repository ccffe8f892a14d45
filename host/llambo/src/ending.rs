//! When a host is told to end.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
    task,
};

/// Signals that end the host.
pub(crate) struct Ending {
    told: Arc<Notify>,
    name: Arc<OnceLock<&'static str>>,
}

impl Ending {
    /// Watched from the first moment on, so that an early signal is not lost.
    pub(crate) fn watch() -> io::Result<Self> {
        let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // a closed terminal ends the host as the others do; under `nohup` it does not
        let mut hangup = if ignores_hangup() { None } else { Some(signal(SignalKind::hangup())?) };
        let (told, name) = (Arc::new(Notify::new()), Arc::new(OnceLock::new()));
        let this = Self { told: Arc::clone(&told), name: Arc::clone(&name) };
        task::spawn(async move {
            loop {
                let which = tokio::select! {
                    _ = term.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                    Some(()) = async { hangup.as_mut()?.recv().await } => "SIGHUP",
                };
                let _ = name.set(which);
                told.notify_one();
            }
        });
        Ok(this)
    }

    /// Done at the next signal.
    pub(crate) async fn asked(&self) -> &'static str {
        self.told.notified().await;
        self.name.get().copied().unwrap_or("a signal")
    }
}

/// Whether whoever started the host wants it to outlive its terminal.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

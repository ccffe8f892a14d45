//! Certificates and tokens that change while the host runs.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::tls::{Certified, TlsError, TlsSettings};
use crate::access::Access;

/// How often files are looked at: what a revoked token may live on.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What tells one state of a file from another, without reading it: a file that was replaced has another inode even within one tick of the
/// clock.
type Mark = Option<(u64, i64, i64, u64)>;

/// Files, and what comes of them.
pub(crate) struct Reload {
    access: Arc<Access>,
    tls: Option<(TlsSettings, watch::Sender<Arc<Certified>>)>,
}

// === impl Reload ===

impl Reload {
    /// Reads certificates, if there are to be any. Blocks.
    pub(crate) fn new(access: Arc<Access>, tls: Option<TlsSettings>) -> Result<Self, TlsError> {
        let tls = tls.map(|settings| Ok((Certified::load(&settings)?, settings))).transpose()?;
        Ok(Self { access, tls: tls.map(|(certified, settings)| (settings, watch::Sender::new(Arc::new(certified)))) })
    }

    pub(crate) fn certified(&self) -> Option<watch::Receiver<Arc<Certified>>> {
        self.tls.as_ref().map(|(_, certified)| certified.subscribe())
    }

    /// Keeps everything true to its files; never done. What cannot be used is told once, and changes nothing.
    pub(crate) async fn run(self) {
        let token_files = self.access.files();
        let certificates = self.tls.as_ref().map_or_else(Vec::new, |(settings, _)| files(settings));
        if token_files.is_empty() && certificates.is_empty() {
            return std::future::pending().await;
        }
        let mut tokens_seen = marks(&token_files);
        let mut certificates_seen = marks(&certificates);
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = marks(&token_files);
            if now != tokens_seen {
                tokens_seen = now;
                self.reload_tokens().await;
            }
            let now = marks(&certificates);
            if now != certificates_seen {
                certificates_seen = now;
                self.reload_certificates().await;
            }
        }
    }

    async fn reload_tokens(&self) {
        let access = Arc::clone(&self.access);
        match spawn_blocking(move || access.reload()).await {
            Ok((n_tokens, wrong)) => {
                for error in wrong {
                    tracing::error!(%error, "the tokens of this tenant stay as they were");
                }
                tracing::info!(n_tokens, "tokens were read again");
            }
            Err(error) => tracing::error!(%error, "tokens could not be read again"),
        }
    }

    async fn reload_certificates(&self) {
        let Some((settings, certified)) = &self.tls else { return };
        let settings = settings.clone();
        match spawn_blocking(move || Certified::load(&settings)).await {
            Ok(Ok(new)) => {
                certified.send_replace(Arc::new(new));
                tracing::info!("certificates were read again; new connections see them");
            }
            Ok(Err(error)) => tracing::error!(%error, "certificates stay as they were"),
            Err(error) => tracing::error!(%error, "certificates could not be read again"),
        }
    }
}

fn files(settings: &TlsSettings) -> Vec<PathBuf> {
    let TlsSettings { certificate, key, client_ca, .. } = settings;
    [certificate, key].into_iter().chain(client_ca).cloned().collect()
}

fn marks(files: &[PathBuf]) -> Vec<Mark> {
    let mark = |path: &Path| -> io::Result<_> {
        let file = fs::metadata(path)?;
        Ok((file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
    };
    files.iter().map(|path| mark(path).ok()).collect()
}

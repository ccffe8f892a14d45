//! The client for HTTP: proxies of the environment, the system's roots, redirects.

use std::{sync::Arc, time::Duration};

use reqwest::redirect::Policy;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::DownloadError;

/// Redirects that are followed; the hub needs two.
const REDIRECTS: usize = 10;

/// Asks servers. Clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    /// Follows redirects. A token goes no further than the host it is for.
    pub(crate) following: reqwest::Client,
    /// Shows redirects: the hub says in one what a file is.
    pub(crate) plain: reqwest::Client,
}

impl Client {
    /// A client that gives up on a server that says nothing for `stall`.
    ///
    /// # Errors
    /// Encryption cannot be set up.
    pub fn new(stall: Duration) -> Result<Self, DownloadError> {
        let client = |e: &dyn std::fmt::Display| DownloadError::Client(e.to_string());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| client(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let build = |policy| {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .user_agent(concat!("llambo/", env!("CARGO_PKG_VERSION")))
                .redirect(policy)
                .connect_timeout(stall.min(Duration::from_secs(20)))
                .read_timeout(stall)
                .build()
                .map_err(|e| client(&e))
        };
        Ok(Self { following: build(Policy::limited(REDIRECTS))?, plain: build(Policy::none())? })
    }
}

/// What went wrong with a request, down to its cause, without the address: that may hold secrets.
pub(crate) fn why(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}

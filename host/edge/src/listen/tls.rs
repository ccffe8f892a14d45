//! Certificates: read from files, and read from clients.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    self, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use crate::access::Protocol;

/// Where certificates lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM: the host's certificate, then those between it and a root.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
    /// PEM: roots of client certificates; `None`: clients are not asked for any.
    pub client_ca: Option<PathBuf>,
    /// Whether clients without a certificate are turned away.
    pub require_client_certificate: bool,
}

/// Why connections cannot be encrypted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("`{key}`: `{}` cannot be read: {source}; check the path and who may read it", path.display())]
    Read {
        /// Of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error("`{key}`: `{}` holds no {what} in PEM form ({why}); name the right file", path.display())]
    Pem {
        /// Of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What was found.
        why: String,
    },
    /// The files do not fit together, or cannot be used.
    #[error("`network.tls`: certificate `{}` and its key cannot be used: {source}; check that they belong together", path.display())]
    Unfit {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
    /// The roots of clients cannot be used.
    #[error("`network.tls.client-ca`: `{}` cannot be used: {why}", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// What both ports show their clients.
#[derive(Debug)]
pub(crate) struct Certified {
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
}

/// Whether the files can be used. Blocks.
///
/// # Errors
/// [`TlsError`] for the first that cannot.
pub fn check_tls(settings: &TlsSettings) -> Result<(), TlsError> {
    Certified::load(settings).map(drop)
}

// === impl Certified ===

impl Certified {
    /// Reads the files. Blocks.
    pub(super) fn load(settings: &TlsSettings) -> Result<Self, TlsError> {
        let TlsSettings { certificate, key, client_ca, require_client_certificate } = settings;
        let chain = certificates("network.tls.certificate", certificate)?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|e| unread("network.tls.key", key, "private key", e))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|source| TlsError::Unfit { path: certificate.clone(), source })?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => builder.with_client_cert_verifier(verifier(path, *require_client_certificate, provider)?),
        };
        let config =
            builder.with_single_cert(chain, private).map_err(|source| TlsError::Unfit { path: certificate.clone(), source })?;
        let speaking = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self { grpc: speaking(&[b"h2"]), http: speaking(&[b"h2", b"http/1.1"]) })
    }

    pub(super) fn for_protocol(&self, protocol: Protocol) -> Arc<ServerConfig> {
        Arc::clone(match protocol {
            Protocol::Grpc => &self.grpc,
            Protocol::Http => &self.http,
        })
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |e| unread(key, path, "certificate", e);
    let found: Vec<_> = CertificateDer::pem_file_iter(path).map_err(read)?.collect::<Result<_, _>>().map_err(read)?;
    if found.is_empty() { Err(read(pem::Error::NoItemsFound)) } else { Ok(found) }
}

fn unread(key: &'static str, path: &Path, what: &'static str, error: pem::Error) -> TlsError {
    let path = path.to_owned();
    match error {
        pem::Error::Io(source) => TlsError::Read { key, path, source },
        // what stands in the file may be a key: of all that the error knows only this is told
        pem::Error::NoItemsFound => TlsError::Pem { key, path, what, why: "none was found".into() },
        _ => TlsError::Pem { key, path, what, why: "it is damaged".into() },
    }
}

fn verifier(
    path: &Path,
    is_required: bool,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let unfit = |why: String| TlsError::Roots { path: path.to_owned(), why };
    let mut roots = RootCertStore::empty();
    for root in certificates("network.tls.client-ca", path)? {
        roots.add(root).map_err(|e| unfit(e.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if is_required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|e| unfit(e.to_string()))
}

/// Names in a certificate that was checked: DNS names, URIs, and the common name. Empty for one that cannot be read.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = parse_x509_certificate(certificate) else { return Vec::new() };
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let alternative = alternative.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        _ => None,
    });
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok().map(str::to_owned));
    alternative.chain(common).collect()
}

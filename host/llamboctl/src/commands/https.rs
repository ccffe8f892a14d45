//! Encrypted connections to a host's HTTP port.

use std::{path::Path, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use crate::args::trust::Trust;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A connection, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Encrypts a connection to `host`.
pub(crate) async fn over(stream: TcpStream, host: &str, trust: &Trust) -> Result<Box<dyn Stream>, Error> {
    let name = ServerName::try_from(host.to_owned())?;
    let config = config(trust)?;
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

fn config(trust: &Trust) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    match &trust.ca {
        Some(path) => roots.add_parsable_certificates(certificates(path)?),
        None => roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(match (&trust.cert, &trust.key) {
        (Some(certificate), Some(key)) => {
            builder.with_client_auth_cert(certificates(certificate)?, PrivateKeyDer::from_pem_file(key)?)?
        }
        _ => builder.with_no_client_auth(),
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let named = |e| format!("`{}`: {e}", path.display());
    let found = CertificateDer::pem_file_iter(path).map_err(named)?;
    Ok(found.collect::<Result<_, _>>().map_err(named)?)
}

/// Why a file in PEM form cannot be used; `None`: it can.
pub(crate) fn unusable_certificate(path: &Path) -> Option<String> {
    match certificates(path) {
        Ok(found) if found.is_empty() => Some(format!("`{}` holds no certificate in PEM form", path.display())),
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}

/// The same for a private key. What is wrong with it is not repeated.
pub(crate) fn unusable_key(path: &Path) -> Option<String> {
    use tokio_rustls::rustls::pki_types::pem::Error;
    match PrivateKeyDer::from_pem_file(path) {
        Ok(_) => None,
        Err(Error::Io(error)) => Some(format!("`{}` cannot be read: {error}", path.display())),
        Err(_) => Some(format!("`{}` holds no private key in PEM form", path.display())),
    }
}

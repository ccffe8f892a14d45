//! What a client shows a host, and how it knows the host.

use std::fmt;

use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};

use crate::Error;

/// A connection that shows a token with each call.
pub(crate) type Transport = InterceptedService<Channel, Bearer>;

/// What a client shows a host, and how it knows the host. The default shows nothing, and trusts the roots that the system trusts.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use llambo_client::{Client, Credentials};
/// let token = std::fs::read_to_string("token")?;
/// let credentials = Credentials::default().token(&token)?.ca(std::fs::read("roots.pem")?);
/// let client = Client::connect_with("https://llambo.example.com:7400", &credentials).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct Credentials {
    bearer: Bearer,
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Adds the token to each call.
#[derive(Clone, Default)]
pub(crate) struct Bearer(Option<AsciiMetadataValue>);

// === impl Credentials ===

impl Credentials {
    /// Shows this token with each call. Space around it is left out.
    ///
    /// # Errors
    /// [`Error::Credentials`] for what cannot be a token; the error does not repeat it.
    pub fn token(mut self, token: &str) -> Result<Self, Error> {
        let token = token.trim();
        let value = if token.is_empty() || token.contains(char::is_whitespace) {
            None
        } else {
            AsciiMetadataValue::try_from(format!("Bearer {token}")).ok()
        };
        let why = || Error::Credentials("the token is empty, or has spaces or other characters that no token has".into());
        let mut value = value.ok_or_else(why)?;
        value.set_sensitive(true);
        self.bearer = Bearer(Some(value));
        Ok(self)
    }

    /// Trusts hosts whose certificate these roots, in PEM form, stand behind, and no others.
    pub fn ca(mut self, pem: Vec<u8>) -> Self {
        self.ca = Some(pem);
        self
    }

    /// Shows hosts that ask for it this certificate, with its key, both in PEM form.
    pub fn identity(mut self, certificate_pem: Vec<u8>, key_pem: Vec<u8>) -> Self {
        self.identity = Some((certificate_pem, key_pem));
        self
    }

    pub(crate) fn over(&self, channel: Channel) -> Transport {
        InterceptedService::new(channel, self.bearer.clone())
    }

    pub(crate) fn tls(&self) -> ClientTlsConfig {
        let tls = ClientTlsConfig::new();
        let tls = match &self.ca {
            Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
            None => tls.with_native_roots(),
        };
        match &self.identity {
            Some((certificate, key)) => tls.identity(Identity::from_pem(certificate, key)),
            None => tls,
        }
    }
}

impl fmt::Debug for Credentials {
    /// Which there are, and never what they are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("has_token", &self.bearer.0.is_some())
            .field("has_ca", &self.ca.is_some())
            .field("has_identity", &self.identity.is_some())
            .finish()
    }
}

// === impl Bearer ===

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a token" } else { "no token" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        for bad in ["", " \n", "llambo_se cret", "llambo_secret\u{7}", "Bearer llambo_secret"] {
            let error = Credentials::default().token(bad).unwrap_err().to_string();
            assert!(error.contains("the token is empty, or has spaces") && !error.contains("cret"), "{bad:?}: {error}");
        }
        let credentials = Credentials::default().token(" llambo_secret\n").unwrap();
        assert!(!format!("{credentials:?} {:?}", credentials.bearer).contains("secret"));
    }
}

//! Reads what is shown to the host.

use std::{fs, path::Path};

use llambo_client::Credentials;

use crate::{args::trust::Trust, exit::Failure};

pub(crate) fn credentials(trust: &Trust) -> Result<Credentials, Failure> {
    let mut credentials = Credentials::default();
    if let Some(token) = token(trust)? {
        credentials = credentials.token(&token)?;
    }
    if let Some(path) = &trust.ca {
        credentials = credentials.ca(read("--ca", path)?);
    }
    if let (Some(certificate), Some(key)) = (&trust.cert, &trust.key) {
        credentials = credentials.identity(read("--cert", certificate)?, read("--key", key)?);
    }
    Ok(credentials)
}

/// The token, if there is one to show.
pub(crate) fn token(trust: &Trust) -> Result<Option<String>, Failure> {
    let Some(path) = &trust.token_file else { return Ok(trust.token.clone()) };
    let text = String::from_utf8(read("--token-file", path)?);
    let text = text.map_err(|_| Failure::bad_input(format!("--token-file `{}` holds no text", path.display())))?;
    Ok(Some(text.trim().to_owned()))
}

pub(crate) fn read(flag: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|e| Failure::bad_input(format!("{flag} `{}` cannot be read: {e}", path.display())))
}

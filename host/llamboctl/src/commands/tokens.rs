//! Makes tokens. Needs no host.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    exit::{Failure, OK},
    output,
};

/// So that whoever finds one, in a file or by a scanner, sees what it opens.
const PREFIX: &str = "llambo_";

/// A token of 32 random bytes, from the generator that keys are made with, and its hash.
fn make() -> (String, String) {
    let token = format!("{PREFIX}{}", hex(&rand::random::<[u8; 32]>()));
    let hash = format!("sha256:{}", hex(&Sha256::digest(token.as_bytes())));
    (token, hash)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // a string takes whatever is written
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn new(tenant: &str, json: bool) -> Result<u8, Failure> {
    if !llambo_config::is_name(tenant) {
        let form = "use a lower-case letter, then at most 31 of `a-z`, `0-9` and `-`";
        return Err(Failure::bad_input(format!("`{tenant}` is not a name for a tenant; {form}")));
    }
    let (token, hash) = make();
    let mut out = io::stdout().lock();
    if json {
        output::json(&mut out, &json!({ "tenant": tenant, "token": token, "sha256": hash }))?;
        return Ok(OK);
    }
    writeln!(out, "{token}")?;
    writeln!(out)?;
    writeln!(out, "It is shown this once. The host learns only its hash, from its configuration:")?;
    writeln!(out)?;
    writeln!(out, "tenants:\n  {tenant}:\n    tokens: [\"{hash}\"]")?;
    writeln!(out)?;
    writeln!(out, "or, while it runs, from a line of that tenant's `tokens-file`:")?;
    writeln!(out)?;
    writeln!(out, "{hash}")?;
    Ok(OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_fits_the_configuration_and_no_two_are_alike() {
        let ((one, hash), (other, _)) = (make(), make());
        assert_ne!(one, other);
        assert_eq!(one.len(), PREFIX.len() + 64);
        let text = format!(
            "models: [{{path: 'builtin:demo'}}]\ntypes: {{t: {{count: 1}}}}\ntenants: {{acme: {{tokens: ['{hash}']}}}}\n"
        );
        let config = llambo_config::Config::parse(&text, "c.yaml").unwrap();
        assert_eq!(config.tenants[0].tokens, [<[u8; 32]>::from(Sha256::digest(one.as_bytes()))]);
    }
}

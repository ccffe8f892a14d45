//! Commands that need no host.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    path::Path,
};

use clap::CommandFactory;
use clap_complete::Shell;
use llambo_catalog::{Register, environment};
use llambo_config::{Config, ModelSource};
use serde_json::json;

use super::https;
use crate::{
    args::{Args, Init},
    exit::{Failure, OK},
    output,
};

pub(crate) fn validate(file: &Path, json: bool) -> Result<u8, Failure> {
    let config = Config::load(file).map_err(|errors| Failure::bad_config(errors.to_string()))?;
    let unusable = unusable(&config);
    if !unusable.is_empty() {
        let lines: Vec<_> = unusable.iter().map(|(key, why)| format!("{}: `{key}`: {why}", file.display())).collect();
        return Err(Failure::bad_config(lines.join("\n")));
    }
    let mut out = io::stdout().lock();
    if json {
        output::json(&mut out, &json!({ "file": file.display().to_string(), "valid": true }))?;
    } else {
        writeln!(out, "{} is valid", file.display())?;
    }
    Ok(OK)
}

/// Models of the catalog that are not there, and files that keep others out which cannot be used; with their keys.
fn unusable(config: &Config) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if let Some(tls) = &config.network.tls {
        let certificates = [("certificate", Some(&tls.certificate)), ("client-ca", tls.client_ca.as_ref())];
        for (key, path) in certificates.into_iter().filter_map(|(key, path)| Some((key, path?))) {
            let why = https::unusable_certificate(&path.resolved);
            found.extend(why.map(|why| (format!("network.tls.{key}"), why)));
        }
        found.extend(https::unusable_key(&tls.key.resolved).map(|why| ("network.tls.key".to_owned(), why)));
    }
    for (i, model) in config.models.iter().enumerate() {
        let sources = [("path", Some(&model.source)), ("draft", model.draft.as_ref())];
        for (key, source) in sources {
            if let Some(ModelSource::Catalog(name)) = source {
                found.extend(unregistered(config, name).map(|why| (format!("models[{i}].{key}"), why)));
            }
        }
    }
    for tenant in &config.tenants {
        let Some(path) = &tenant.tokens_file else { continue };
        if let Err(error) = fs::read_to_string(&path.resolved) {
            found.push((format!("tenants.{}.tokens-file", tenant.name), format!("`{path}` cannot be read: {error}")));
        }
    }
    found
}

/// Why a name leads to no model of this machine's catalog; `None`: it does.
fn unregistered(config: &Config, name: &str) -> Option<String> {
    let named = config.catalog.file.as_ref().map(|path| Register::at(&path.resolved));
    match named.or_else(|| Register::of(&environment)) {
        None => Some("there is no home to keep a catalog in: set HOME or XDG_DATA_HOME".into()),
        Some(register) => register.get(name).err().map(|error| error.to_string()),
    }
}

pub(crate) fn init(args: &Init, json: bool) -> Result<u8, Failure> {
    let Init { output: path, force } = args;
    let written = if *force {
        fs::write(path, llambo_config::DEFAULT)
    } else {
        // `create_new` decides in one step: a file that appears meanwhile is never overwritten
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .and_then(|mut f| f.write_all(llambo_config::DEFAULT.as_bytes()))
    };
    written.map_err(|e| {
        let name = path.display();
        Failure::cannot_create(match e.kind() {
            ErrorKind::AlreadyExists => {
                format!("`{name}` exists; give another name with `--output`, or overwrite it with `--force`")
            }
            _ => format!("cannot write `{name}`: {e}"),
        })
    })?;
    let mut out = io::stdout().lock();
    if json {
        output::json(&mut out, &json!({ "file": path.display().to_string() }))?;
    } else {
        writeln!(out, "wrote {}; start with `llambo serve --config {}`", path.display(), path.display())?;
    }
    Ok(OK)
}

pub(crate) fn completion(shell: Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "llamboctl", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_keep_others_out_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.yaml");
        fs::write(folder.path().join("key.pem"), "not a key").unwrap();
        let text = "catalog: {file: none.json}\nmodels: [{path: 'builtin:demo'}, {path: 'catalog:nobody'}]\ntypes: {t: {count: 1}}\n\
            network: {tls: {certificate: gone.pem, key: key.pem}}\ntenants: {a: {tokens-file: gone}}\n";
        fs::write(&path, text).unwrap();
        let found = unusable(&Config::load(&path).unwrap());
        let keys: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["network.tls.certificate", "network.tls.key", "models[1].path", "tenants.a.tokens-file"]);
        assert!(found[1].1.contains("holds no private key"), "{found:?}");
    }

    #[test]
    fn a_file_that_exists_is_kept_without_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.yaml");
        fs::write(&path, "mine").unwrap();
        assert!(init(&Init { output: path.clone(), force: false }, true).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert!(init(&Init { output: path.clone(), force: true }, true).is_ok());
        assert_eq!(fs::read_to_string(&path).unwrap(), llambo_config::DEFAULT);
    }
}

//! Commands that need no host.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    path::Path,
};

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

use crate::{
    args::{Args, Init},
    exit::{Failure, OK},
    output,
};

pub(crate) fn validate(file: &Path, json: bool) -> Result<u8, Failure> {
    llambo_config::Config::load(file).map_err(|errors| Failure::bad_config(errors.to_string()))?;
    let mut out = io::stdout().lock();
    if json {
        output::json(&mut out, &json!({ "file": file.display().to_string(), "valid": true }))?;
    } else {
        writeln!(out, "{} is valid", file.display())?;
    }
    Ok(OK)
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

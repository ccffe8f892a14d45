//! Commands that need no host.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    path::Path,
};

use clap_complete::Shell;
use llambo_catalog::{Register, environment};
use llambo_config::{Config, ModelSource};
use llambo_hardware::Detector;
use serde_json::json;

use super::https;
use crate::{
    args::{
        self,
        machine::{GenerateConfig, Init, Wish},
    },
    exit::{Failure, OK},
    output,
    suited::{Model, Plan},
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
    let text = if args.full { llambo_config::DEFAULT.to_owned() } else { suited(&args.wish)? };
    write(&args.output, args.force, &text)?;
    let name = args.output.display();
    let mut out = io::stdout().lock();
    if json {
        output::json(&mut out, &json!({ "file": name.to_string() }))?;
    } else {
        writeln!(
            out,
            "wrote {name}; see whether it fits with `llambo check --config {name}`, start with `llambo serve --config {name}`"
        )?;
    }
    Ok(OK)
}

pub(crate) fn generate(args: &GenerateConfig, json: bool) -> Result<u8, Failure> {
    let text = suited(&args.wish)?;
    let mut out = io::stdout().lock();
    let Some(path) = &args.output else {
        if json {
            output::json(&mut out, &json!({ "config": text }))?;
        } else {
            out.write_all(text.as_bytes())?;
        }
        return Ok(OK);
    };
    write(path, args.force, &text)?;
    if json {
        output::json(&mut out, &json!({ "file": path.display().to_string() }))?;
    } else {
        writeln!(out, "wrote {}", path.display())?;
    }
    Ok(OK)
}

/// A configuration for this machine. Says on standard error what is odd about the wish.
fn suited(wish: &Wish) -> Result<String, Failure> {
    let model = Model::of(wish.model.as_deref());
    match &model {
        Model::File { path, bytes: None, .. } => {
            // another machine may have it
            let _ = writeln!(io::stderr(), "note: `{}` is not a file here; the host will need it", path.display());
        }
        Model::File { path, .. } if path.to_str().is_none() => {
            return Err(Failure::bad_input(format!("`{}` is no path in UTF-8, which a configuration needs", path.display())));
        }
        Model::File { path, header: None, .. } => {
            let _ = writeln!(
                io::stderr(),
                "note: `{}` is no GGUF file that can be read; `llamboctl models show` says why",
                path.display()
            );
        }
        _ => {}
    }
    let plan = Plan { model, nodes: wish.nodes, node_type: wish.node_type.clone() };
    let text = plan.config(&Detector::new().machine());
    // a builtin name that does not exist is found here, as is every mistake of ours
    llambo_config::Config::parse(&text, "the configuration").map_err(|errors| Failure::bad_input(errors.to_string()))?;
    Ok(text)
}

fn write(path: &Path, force: bool, text: &str) -> Result<(), Failure> {
    let written = if force {
        fs::write(path, text)
    } else {
        // `create_new` decides in one step: a file that appears meanwhile is never overwritten
        OpenOptions::new().write(true).create_new(true).open(path).and_then(|mut f| f.write_all(text.as_bytes()))
    };
    written.map_err(|e| {
        let name = path.display();
        Failure::cannot_create(match e.kind() {
            ErrorKind::AlreadyExists => {
                format!("`{name}` exists; give another name with `--output`, or overwrite it with `--force`")
            }
            _ => format!("cannot write `{name}`: {e}"),
        })
    })
}

pub(crate) fn completion(shell: Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "llamboctl", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(OK)
}

/// The manual page of the program, or one for each command into a folder.
pub(crate) fn manual(folder: Option<&Path>) -> Result<u8, Failure> {
    let Some(folder) = folder else {
        let mut page = Vec::new();
        // into memory, which takes it
        clap_mangen::Man::new(args::command()).render(&mut page)?;
        io::stdout().lock().write_all(&page)?;
        return Ok(OK);
    };
    let cannot = |e| Failure::cannot_create(format!("cannot write manual pages to `{}`: {e}", folder.display()));
    fs::create_dir_all(folder).map_err(cannot)?;
    clap_mangen::generate_to(args::command(), folder).map_err(cannot)?;
    writeln!(io::stdout(), "wrote manual pages to {}; see `man -l {}`", folder.display(), folder.join("llamboctl.1").display())?;
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
        let wish = Wish { node_type: "tiny".into(), ..Wish::default() };
        let init = |force, full| init(&Init { output: path.clone(), force, wish: wish.clone(), full }, true);
        fs::write(&path, "mine").unwrap();
        assert!(init(false, false).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert!(init(true, false).is_ok());
        assert!(llambo_config::Config::load(&path).is_ok());
        assert!(init(true, true).is_ok());
        assert_eq!(fs::read_to_string(&path).unwrap(), llambo_config::DEFAULT);
    }

    #[test]
    fn a_builtin_model_that_is_none_is_refused() {
        let wish = Wish { model: Some("builtin:nonsense".into()), node_type: "tiny".into(), ..Wish::default() };
        assert!(format!("{:?}", suited(&wish).unwrap_err()).contains("builtin:nonsense"));
    }
}

//! The catalog of this machine, which needs no host, and the models of a host.

mod bar;
pub(crate) mod host;
pub(crate) mod show;

use std::{
    fs,
    io::{self, Write},
};

use llambo_catalog::{CatalogError, Entry, Hub, Outline, Presence, Register, Source, data_folder, environment};
use llambo_download::{DownloadError, Event, Order, Patience, download as bring};
use serde_json::{Value, json};

use self::bar::Bar;
use crate::{
    args::models::{Register as NewModel, Unregister, Where},
    exit::{Failure, OK},
    output::{
        self,
        Align::{Left, Right},
    },
};

/// The catalog that is meant.
fn catalog_at(at: &Where) -> Result<Register, Failure> {
    let found = at.catalog.as_ref().map(Register::at).or_else(|| Register::of(&environment));
    found
        .ok_or_else(|| Failure::bad_input("there is no home to keep a catalog in: set HOME or XDG_DATA_HOME, or use `--catalog`"))
}

pub(crate) fn catalog(at: &Where, json: bool) -> Result<u8, Failure> {
    let register = catalog_at(at)?;
    let models = register.models()?;
    let mut out = io::stdout().lock();
    if json {
        output::json(&mut out, &models.iter().map(|(name, entry)| told(name, entry)).collect())?;
        return Ok(OK);
    }
    if models.is_empty() {
        writeln!(out, "No models are registered; `llamboctl models download hf:OWNER/REPO` fetches one.")?;
        return Ok(OK);
    }
    let columns = [
        ("NAME", Left),
        ("ARCHITECTURE", Left),
        ("PARAMETERS", Right),
        ("QUANTIZATION", Left),
        ("SIZE", Right),
        ("CONTEXT", Right),
        ("FILE", Left),
        ("SOURCE", Left),
    ];
    let rows: Vec<_> = models
        .into_iter()
        .map(|(name, entry)| {
            let outline = Outline::read(&entry.path).ok();
            let of = |text: fn(&Outline) -> String| outline.as_ref().map_or_else(|| "-".to_owned(), text);
            let file = match entry.presence() {
                Presence::Here if outline.is_some() => "here",
                Presence::Here => "broken",
                presence => word(presence),
            };
            [
                name,
                of(|o| o.architecture.clone()),
                of(|o| output::count(o.n_params)),
                of(|o| o.quantization.clone()),
                output::bytes(entry.size_bytes),
                of(|o| o.n_context.to_string()),
                file.to_owned(),
                output::for_terminal(&entry.source).into_owned(),
            ]
        })
        .collect();
    output::table(&mut out, columns, &rows)?;
    Ok(OK)
}

pub(crate) async fn register(args: &NewModel, json: bool) -> Result<u8, Failure> {
    let mut source = Source::parse(&args.source)?;
    let name = args.name.clone().unwrap_or_else(|| source.usual_name());
    let shown = match &source {
        Source::Url(_) => {
            return Err(Failure::bad_input(format!("`{source}` is not on this machine; `llamboctl models download` fetches it")));
        }
        Source::Hub(wanted) => {
            let found = Hub::of(&environment).and_then(|hub| hub.find(wanted));
            let shown = source.to_string();
            source = Source::File(found.map(|found| found.path).ok_or_else(|| {
                Failure::bad_input(format!("`{shown}` is not on this machine; `llamboctl models download {shown}` fetches it"))
            })?);
            shown
        }
        _ => source.to_string(),
    };
    take_in(args, source, &name, Some(shown), json).await
}

pub(crate) async fn download(args: &NewModel, json: bool) -> Result<u8, Failure> {
    let source = Source::parse(&args.source)?;
    let name = args.name.clone().unwrap_or_else(|| source.usual_name());
    take_in(args, source, &name, None, json).await
}

/// Brings it here if it is not, looks at it, and gives it its name.
async fn take_in(args: &NewModel, source: Source, name: &str, shown: Option<String>, json: bool) -> Result<u8, Failure> {
    if !llambo_catalog::is_model_name(name) {
        return Err(CatalogError::BadName { name: name.into() }.into());
    }
    let register = catalog_at(&args.at)?;
    // a catalog that cannot be used is told before gigabytes are fetched, and so is a name that is taken
    let there = register.models()?.remove(name);
    let folder = data_folder(&environment).map(|data| data.join("models"));
    let order = Order { source, sha256: args.sha256.clone(), hub: Hub::of(&environment), folder };
    if let Some(there) = there.filter(|there| !args.replace && !is_from(there, &order, shown.as_deref())) {
        return Err(CatalogError::NameTaken { name: name.into(), path: there.path }.into());
    }
    let mut bar = Bar::new(name, json);
    let patience = Patience::default();
    let done = {
        let mut tell = |event: Event| bar.tell(event);
        tokio::select! {
            done = bring(&order, &patience, &mut tell) => done,
            _ = tokio::signal::ctrl_c() => {
                bar.end();
                return Err(Failure::interrupted().with_note("what was fetched is kept, and the same command goes on from there"));
            }
        }
    };
    bar.end();
    let done = done?;
    let entry = Entry::of(&done.file, shown.unwrap_or(done.source), done.is_ours);
    register.insert(name, &entry, args.replace)?;
    let mut out = io::stdout().lock();
    if json {
        output::json(&mut out, &told(name, &entry))?;
        return Ok(OK);
    }
    writeln!(out, "{name}: {}, {}", output::bytes(entry.size_bytes), output::for_terminal(&entry.path.display().to_string()))?;
    writeln!(out, "`llamboctl models show {name}` says what it needs; `path: catalog:{name}` in a configuration loads it")?;
    Ok(OK)
}

/// Whether an entry may be what is about to be registered: then the digest decides in the end.
fn is_from(there: &Entry, order: &Order, shown: Option<&str>) -> bool {
    let same_place = match &order.source {
        Source::File(path) => std::path::absolute(path).is_ok_and(|path| path == there.path),
        Source::Builtin(_) | Source::Url(_) => order.source.to_string() == there.source,
        // a repository's files have names of their own
        Source::Hub(wanted) => there.source.starts_with(&format!("hf:{}", wanted.repository)),
    };
    same_place || shown == Some(there.source.as_str())
}

pub(crate) fn unregister(args: &Unregister, json: bool) -> Result<u8, Failure> {
    let register = catalog_at(&args.at)?;
    let Unregister { name, delete, .. } = args;
    if *delete {
        let entry = register.get(name)?;
        if !entry.is_ours {
            let path = entry.path.display();
            return Err(Failure::bad_input(format!("`{path}` may be used by others, and is not deleted; leave out `--delete`")));
        }
        if let Some((other, _)) = register.models()?.into_iter().find(|(other, it)| other != name && it.path == entry.path) {
            return Err(Failure::bad_input(format!("`{other}` is the same file; unregister it first, or leave out `--delete`")));
        }
    }
    let entry = register.remove(name)?;
    let deleted = *delete
        && match fs::remove_file(&entry.path) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(Failure::io(&format!("delete `{}`", entry.path.display()), &e)),
        };
    let mut out = io::stdout().lock();
    if json {
        output::json(&mut out, &json!({ "name": name, "path": entry.path.display().to_string(), "deleted": deleted }))?;
    } else {
        let path = entry.path.display().to_string();
        let rest = if deleted { "and its file is deleted" } else { "its file stays at" };
        let path = if deleted { String::new() } else { format!(" {}", output::for_terminal(&path)) };
        writeln!(out, "{name} is not registered any more; {rest}{path}")?;
    }
    Ok(OK)
}

fn word(presence: Presence) -> &'static str {
    match presence {
        Presence::Here => "here",
        Presence::Missing => "missing",
        Presence::Changed => "changed",
    }
}

fn told(name: &str, entry: &Entry) -> Value {
    json!({
        "name": name,
        "path": entry.path.display().to_string(),
        "sha256": entry.sha256,
        "size_bytes": entry.size_bytes,
        "source": entry.source,
        "registered_at": entry.registered_at,
        "state": word(entry.presence()),
    })
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        match &error {
            CatalogError::Unpack { .. } => Self::disk(error.to_string()),
            _ => Self::bad_input(error.to_string()),
        }
    }
}

impl From<DownloadError> for Failure {
    fn from(error: DownloadError) -> Self {
        let message = error.to_string();
        match error {
            DownloadError::Catalog(error) => error.into(),
            DownloadError::GivenUp { .. } | DownloadError::Busy { .. } => Self::lost(message),
            DownloadError::Refused { .. } | DownloadError::Hub(_) | DownloadError::Offline(_) => Self::refused(message),
            DownloadError::NoRoom { .. } | DownloadError::DiskFull { .. } | DownloadError::File { .. } => Self::disk(message),
            _ => Self::bad_input(message),
        }
    }
}

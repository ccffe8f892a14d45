//! From what a person wrote to a whole file on this machine.

use std::path::{Path, PathBuf};

use llambo_catalog::{Builtin, Hub, HubFile, ModelFile, Source, digest_of};

use crate::{
    Client, DownloadError, Event, Patience,
    fetch::{Job, fetch},
    hub,
};

/// What is to be fetched, and where things are.
#[derive(Clone, Debug)]
pub struct Order {
    /// Where it comes from.
    pub source: Source,
    /// SHA-256 that it must have, in hex.
    pub sha256: Option<String>,
    /// The hub and its cache.
    pub hub: Option<Hub>,
    /// Where files from plain addresses are kept.
    pub folder: Option<PathBuf>,
}

/// A model on this machine.
#[derive(Clone, Debug)]
pub struct Downloaded {
    /// The file, checked.
    pub file: ModelFile,
    /// Where it is from, to its last detail.
    pub source: String,
    /// Whether it lies in a folder of ours.
    pub is_ours: bool,
}

/// Brings a model to this machine, unless it is there, and looks whether it is one.
///
/// # Errors
/// See [`DownloadError`]; what was fetched before a cut is kept, and is gone on from.
pub async fn download(order: &Order, patience: &Patience, tell: &mut dyn FnMut(Event)) -> Result<Downloaded, DownloadError> {
    let digest = order.sha256.as_deref().map(digest).transpose()?;
    let done = match &order.source {
        Source::Builtin(builtin) => return builtin_file(*builtin),
        Source::File(path) => {
            tell(Event::Checks);
            let file = opened(path.clone()).await?;
            Downloaded { source: path.display().to_string(), file, is_ours: false }
        }
        Source::Url(url) => {
            let client = Client::new(patience.stall)?;
            let folder = order.folder.clone().ok_or(DownloadError::Homeless)?;
            let file = fetch(&client, patience, &by_address(url, &folder, digest.clone())?, tell).await?;
            Downloaded { file, source: llambo_catalog::without_secrets(url), is_ours: true }
        }
        Source::Hub(wanted) => {
            let hub = order.hub.as_ref().ok_or(DownloadError::Homeless)?;
            from_hub(hub, wanted, digest.clone(), patience, tell).await?
        }
    };
    match digest {
        Some(digest) if digest != done.file.digest() => {
            Err(DownloadError::WrongDigest { url: done.source, wanted: digest, found: done.file.digest().into() })
        }
        _ => Ok(done),
    }
}

fn builtin_file(builtin: Builtin) -> Result<Downloaded, DownloadError> {
    Ok(Downloaded { file: builtin.unpack()?, source: builtin.name().into(), is_ours: false })
}

async fn from_hub(
    hub: &Hub,
    wanted: &HubFile,
    digest: Option<String>,
    patience: &Patience,
    tell: &mut dyn FnMut(Event),
) -> Result<Downloaded, DownloadError> {
    let named = |file: &str| HubFile { wanted: Some(file.to_owned()), ..wanted.clone() }.to_string();
    if hub.is_offline {
        let found = hub.find(wanted).ok_or_else(|| DownloadError::Offline(wanted.to_string()))?;
        tell(Event::Checks);
        let file = opened(found.path).await?;
        return Ok(Downloaded { file, source: named(&found.file), is_ours: false });
    }
    let client = Client::new(patience.stall)?;
    let answer = hub::ask(&client, patience, hub, wanted, tell).await?;
    let blob = hub.blob(&wanted.repository, &answer.etag);
    let is_sha256 = answer.etag.len() == 64 && answer.etag.chars().all(|c| c.is_ascii_hexdigit());
    let job = Job {
        url: answer.url.clone(),
        token: hub.token.clone(),
        // the name that the hub's own client gives it: each goes on from what the other has left
        part: blob.with_file_name(format!("{}.incomplete", answer.etag)),
        to: blob,
        lock: hub.lock(&wanted.repository, &answer.etag),
        size: answer.size,
        digest: if is_sha256 { Some(answer.etag.to_ascii_lowercase()) } else { digest },
        is_known: is_sha256 && answer.size.is_some(),
        remedy: "HF_HUB_CACHE",
    };
    let file = fetch(&client, patience, &job, tell).await?;
    let pointer = hub
        .link(wanted, &answer.commit, &answer.file, &answer.etag)
        .map_err(DownloadError::file(hub.snapshot(&wanted.repository, &answer.commit, &answer.file)))?;
    Ok(Downloaded { file: file.moved_to(&pointer)?, source: named(&answer.file), is_ours: false })
}

/// A folder of its own for each address: two that end alike are two files.
fn by_address(url: &str, folder: &Path, digest: Option<String>) -> Result<Job, DownloadError> {
    let bad =
        |e: &dyn std::fmt::Display| DownloadError::BadUrl { url: llambo_catalog::without_secrets(url), problem: e.to_string() };
    let parsed = reqwest::Url::parse(url).map_err(|e| bad(&e))?;
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err(bad(&"it names no host"));
    }
    // a signed query changes from day to day, the file behind it does not
    let place = digest_of(llambo_catalog::without_secrets(url).as_bytes());
    let folder = folder.join(&place[..16]);
    let name = format!("{}.gguf", Source::Url(url.into()).usual_name());
    Ok(Job {
        url: url.into(),
        token: None,
        part: folder.join(format!("{name}.part")),
        lock: folder.join(format!("{name}.lock")),
        to: folder.join(name),
        size: None,
        digest,
        is_known: false,
        remedy: "XDG_DATA_HOME",
    })
}

async fn opened(path: PathBuf) -> Result<ModelFile, DownloadError> {
    let opened = tokio::task::spawn_blocking(move || ModelFile::open(&path)).await;
    Ok(opened.map_err(|e| DownloadError::Client(e.to_string()))??)
}

/// A digest as people paste it.
fn digest(text: &str) -> Result<String, DownloadError> {
    let hex = text.trim().trim_start_matches("sha256:").to_ascii_lowercase();
    if hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(hex);
    }
    Err(DownloadError::BadDigest { digest: text.into() })
}

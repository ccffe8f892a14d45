//! Fetches one file: asks, writes, goes on after cuts, and says how it gets on.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use llambo_catalog::{ModelFile, without_secrets};
use reqwest::{Response, StatusCode, header};
use tokio::{
    task,
    time::{Instant, sleep},
};

use crate::{
    Client, DownloadError, Pace, Progress,
    client::why,
    part::{Bytes, claim},
    resume::{ContentRange, Reply, Step, validator},
};

/// Left free on a disk: a system without any room does nothing well.
const SPARE_BYTES: u64 = 64 << 20;
/// What a GGUF file begins with.
const MAGIC: &[u8] = b"GGUF";
/// Beginnings of what servers send instead of files.
const PAGE: &[u8] = b"<";

/// How long a server is borne with.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Attempts in a row that bring not one byte.
    pub attempts: u32,
    /// The wait after the first of them; each further one doubles it.
    pub first_wait: Duration,
    /// The longest of these waits.
    pub longest_wait: Duration,
    /// The longest wait that a server may ask for.
    pub longest_asked: Duration,
    /// Time without a byte after which a connection is given up.
    pub stall: Duration,
}

/// What happens to a download.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Another process fetches the same file; this one waits for it.
    Waiting,
    /// It begins, or goes on, with so many bytes there.
    Begins {
        /// The address, without secrets.
        url: String,
        /// Bytes there.
        done: u64,
        /// Bytes in all.
        total: Option<u64>,
    },
    /// It gets on.
    Progress(Progress),
    /// What was there is of another file, or the server sends whole files only.
    BeginsAnew,
    /// The next attempt comes after a wait.
    Retries {
        /// What went wrong.
        why: String,
        /// How long.
        wait: Duration,
    },
    /// All is there, and is checked.
    Checks,
}

/// One file to be fetched.
pub(crate) struct Job {
    pub(crate) url: String,
    pub(crate) token: Option<String>,
    /// Where it goes once it is whole.
    pub(crate) to: PathBuf,
    /// Where it lies until then.
    pub(crate) part: PathBuf,
    pub(crate) lock: PathBuf,
    /// Size and digest, where somebody who can be believed says them.
    pub(crate) size: Option<u64>,
    pub(crate) digest: Option<String>,
    /// Whether `part` is named after its content, so that a part of it needs no validator.
    pub(crate) is_known: bool,
    /// Which variable names another place.
    pub(crate) remedy: &'static str,
}

/// Why an attempt did not end with the file.
enum Cut {
    /// Again, after a wait that the server may have named.
    Again { why: String, wait: Option<Duration> },
    /// At once, from the beginning.
    Anew,
    /// Nothing is to be gained.
    For(DownloadError),
}

impl From<DownloadError> for Cut {
    fn from(error: DownloadError) -> Self {
        Self::For(error)
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 8,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            longest_asked: Duration::from_mins(10),
            stall: Duration::from_mins(1),
        }
    }
}

/// The whole file at `job.to`, checked. One that is there already is taken as it is, if its digest is right.
pub(crate) async fn fetch(
    client: &Client,
    patience: &Patience,
    job: &Job,
    tell: &mut dyn FnMut(Event),
) -> Result<ModelFile, DownloadError> {
    let _claim = claim(&job.lock, || tell(Event::Waiting)).await?;
    if job.to.exists() {
        tell(Event::Checks);
        let file = check(&job.to).await;
        match file {
            Ok(file) if job.digest.as_ref().is_none_or(|digest| digest == file.digest()) => return Ok(file),
            // damaged since: what is fetched takes its place
            _ => {}
        }
    }
    let shown = without_secrets(&job.url);
    let (mut fruitless, mut wait, mut anew) = (0, patience.first_wait, 0);
    let mut may_begin_anew = true;
    loop {
        let mut bytes = Bytes::open(&job.part, &job.url, job.size.filter(|_| job.is_known))?;
        let before = bytes.part.n_bytes;
        let attempt = attempt(client, job, &mut bytes, tell).await;
        match attempt {
            Ok(()) => match finish(job, bytes, &shown, before > 0 && may_begin_anew, tell).await? {
                Some(file) => return Ok(file),
                // only once: a file that is wrong when it was fetched in one go stays wrong
                None => may_begin_anew = false,
            },
            Err(Cut::For(error)) => {
                if matches!(error, DownloadError::TooLong { .. } | DownloadError::NotAModel { .. }) {
                    bytes.discard();
                }
                return Err(error);
            }
            Err(Cut::Anew) => {
                anew += 1;
                if anew >= patience.attempts {
                    let why = "the server's answers do not fit together: sizes or names of the file change".into();
                    return Err(DownloadError::GivenUp { url: shown, attempts: anew, why });
                }
            }
            Err(Cut::Again { why, wait: asked }) => {
                if bytes.part.n_bytes > before {
                    (fruitless, wait) = (0, patience.first_wait);
                }
                fruitless += 1;
                if fruitless >= patience.attempts {
                    return Err(DownloadError::GivenUp { url: shown, attempts: fruitless, why });
                }
                if let Some(asked) = asked.filter(|asked| *asked > patience.longest_asked) {
                    return Err(DownloadError::Busy { url: shown, wait: asked });
                }
                let pause = asked.unwrap_or(wait);
                tell(Event::Retries { why, wait: pause });
                sleep(pause).await;
                wait = (wait * 2).min(patience.longest_wait);
            }
        }
    }
}

/// One request and what it brings.
async fn attempt(client: &Client, job: &Job, bytes: &mut Bytes, tell: &mut dyn FnMut(Event)) -> Result<(), Cut> {
    if bytes.part.is_complete() {
        return Ok(());
    }
    let shown = without_secrets(&job.url);
    let ask = bytes.part.ask();
    let mut request = client.following.get(&job.url).header(header::ACCEPT_ENCODING, "identity");
    if let Some(token) = &job.token {
        request = request.bearer_auth(token);
    }
    if ask.from > 0 {
        request = request.header(header::RANGE, format!("bytes={}-", ask.from));
    }
    if let Some(validator) = &ask.if_range {
        request = request.header(header::IF_RANGE, validator);
    }
    let response = request.send().await.map_err(|e| sending(e, &shown))?;
    let reply = reply(&response);
    let total = match bytes.part.judge(&ask, &reply) {
        Step::Complete => return Ok(()),
        Step::Append { total } => total,
        Step::Begin { total } => {
            if bytes.part.n_bytes > 0 {
                tell(Event::BeginsAnew);
            }
            refuse_page(&response, &shown)?;
            bytes.begin(reply.validator, total)?;
            total
        }
        Step::Anew => {
            tell(Event::BeginsAnew);
            bytes.begin(None, None)?;
            return Err(Cut::Anew);
        }
        Step::Senseless => return Err(refused(&response, &shown)),
    };
    let promised = job.size.or(total);
    let room = promised.unwrap_or(0).saturating_sub(bytes.part.n_bytes);
    check_room(&job.part, room, job.remedy)?;
    tell(Event::Begins { url: shown.clone(), done: bytes.part.n_bytes, total: promised });
    take(response, bytes, promised, &shown, tell).await
}

/// Writes a body to the disk.
async fn take(
    mut response: Response,
    bytes: &mut Bytes,
    promised: Option<u64>,
    shown: &str,
    tell: &mut dyn FnMut(Event),
) -> Result<(), Cut> {
    let mut pace = Pace::default();
    let mut first = Vec::new();
    loop {
        tell(Event::Progress(pace.at(Instant::now(), bytes.part.n_bytes, promised)));
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(e) => return Err(Cut::Again { why: why(e), wait: None }),
        };
        if bytes.part.n_bytes < MAGIC.len() as u64 {
            // said before gigabytes of something else have come
            first.extend_from_slice(&chunk[..chunk.len().min(MAGIC.len())]);
            check_beginning(&first, shown)?;
        }
        if let Some(promised) = promised.filter(|promised| bytes.part.n_bytes + chunk.len() as u64 > *promised) {
            return Err(DownloadError::TooLong { url: shown.into(), promised }.into());
        }
        bytes.write(&chunk)?;
    }
    let there = bytes.part.n_bytes;
    match promised {
        Some(promised) if there < promised => {
            Err(Cut::Again { why: format!("the connection ended after {there} of {promised} bytes"), wait: None })
        }
        _ => Ok(()),
    }
}

/// Looks whether it is what was asked for, and gives it its name. `None`: it is not, and is worth being fetched from its beginning.
async fn finish(
    job: &Job,
    bytes: Bytes,
    shown: &str,
    is_pieced: bool,
    tell: &mut dyn FnMut(Event),
) -> Result<Option<ModelFile>, DownloadError> {
    tell(Event::Checks);
    let file = check(&job.part).await;
    let wrong = match (&file, &job.digest) {
        (Ok(file), Some(digest)) if file.digest() != digest => {
            DownloadError::WrongDigest { url: shown.into(), wanted: digest.clone(), found: file.digest().into() }
        }
        (Ok(_), _) => {
            bytes.finish(&job.to)?;
            return ModelFile::clone(&file?).moved_to(&job.to).map(Some).map_err(DownloadError::from);
        }
        (Err(DownloadError::Catalog(llambo_catalog::CatalogError::Broken { problem, .. })), _) => {
            DownloadError::NotAModel { url: shown.into(), problem: problem.clone() }
        }
        (Err(_), _) => return file.map(Some),
    };
    bytes.discard();
    if !is_pieced {
        return Err(wrong);
    }
    tell(Event::BeginsAnew);
    Ok(None)
}

/// Header and digest of a file: as long as reading it takes.
async fn check(path: &Path) -> Result<ModelFile, DownloadError> {
    let path = path.to_owned();
    let opened = task::spawn_blocking(move || ModelFile::open(&path)).await;
    opened.map_err(|e| DownloadError::Client(e.to_string()))?.map_err(DownloadError::from)
}

fn reply(response: &Response) -> Reply {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    Reply {
        status: response.status().as_u16(),
        content_length: text(header::CONTENT_LENGTH).and_then(|text| text.parse().ok()),
        content_range: text(header::CONTENT_RANGE).and_then(ContentRange::parse),
        validator: validator(text(header::ETAG), text(header::LAST_MODIFIED)),
    }
}

/// Whether a failed request may do better another time.
fn sending(error: reqwest::Error, shown: &str) -> Cut {
    if error.is_builder() || error.is_redirect() {
        return Cut::For(DownloadError::BadUrl { url: shown.into(), problem: why(error) });
    }
    Cut::Again { why: why(error), wait: None }
}

/// What a status means that brings no file.
pub(crate) fn advice(status: StatusCode) -> Option<&'static str> {
    Some(match status.as_u16() {
        401 => "it wants to know who asks: for the hub, set HF_TOKEN to a token of https://huggingface.co/settings/tokens",
        403 => "who asks may not have it: for the hub, accept the terms on the page of the model, or take another token",
        404 | 410 => "look whether the name is right",
        408 | 425 | 429 | 500 | 502..=504 => return None,
        _ => "it gives no file at this address",
    })
}

fn refused(response: &Response, shown: &str) -> Cut {
    let status = response.status();
    let refused = |advice| DownloadError::Refused { url: shown.into(), status: status.to_string(), advice };
    match advice(status) {
        Some(advice) => Cut::For(refused(advice)),
        None => Cut::Again { why: format!("the server says {status}"), wait: retry_after(response) },
    }
}

/// `Retry-After`: seconds, or a date.
pub(crate) fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        Some(Duration::from_secs(seconds))
    } else {
        let until = httpdate::parse_http_date(text).ok()?;
        Some(until.duration_since(std::time::SystemTime::now()).unwrap_or_default())
    }
}

fn refuse_page(response: &Response, shown: &str) -> Result<(), DownloadError> {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.starts_with("text/html") {
        return Err(page(shown));
    }
    Ok(())
}

fn page(shown: &str) -> DownloadError {
    let problem = "the server sends a web page; look there with a browser, perhaps it wants a login or has another address for \
        the file (on the hub: /resolve/ instead of /blob/)";
    DownloadError::NotAModel { url: shown.into(), problem: problem.into() }
}

fn check_beginning(first: &[u8], shown: &str) -> Result<(), DownloadError> {
    if first.starts_with(PAGE) {
        return Err(page(shown));
    }
    let n = first.len().min(MAGIC.len());
    if first[..n] != MAGIC[..n] {
        let problem = format!("it begins with {:02x?} instead of `GGUF`", &first[..n]);
        return Err(DownloadError::NotAModel { url: shown.into(), problem });
    }
    Ok(())
}

fn check_room(part: &Path, needed: u64, remedy: &'static str) -> Result<(), DownloadError> {
    let folder = part.parent().unwrap_or(part);
    // a file system that does not say what it has is believed to have enough
    let Ok(about) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free = about.f_bavail.saturating_mul(about.f_frsize);
    let with_spare = needed.saturating_add(SPARE_BYTES);
    if needed > 0 && with_spare > free {
        return Err(DownloadError::NoRoom { folder: folder.into(), needed: with_spare - free, free, remedy });
    }
    Ok(())
}

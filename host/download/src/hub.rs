//! What the Hugging Face hub says of a repository and its files.

use std::time::Duration;

use llambo_catalog::{Hub, HubFile};
use reqwest::{Response, StatusCode, Url, header};
use serde::Deserialize;
use tokio::time::sleep;

use crate::{
    Client, DownloadError, Event, Patience,
    client::why,
    fetch::{advice, retry_after},
};

/// Redirects to a repository's new name.
const RENAMES: usize = 5;
/// More than the list of the largest repositories.
const LIST_BYTES: usize = 16 << 20;

/// A file of the hub, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubAnswer {
    pub(crate) commit: String,
    pub(crate) file: String,
    /// What the content is called: its SHA-256, for files as large as models.
    pub(crate) etag: String,
    pub(crate) size: Option<u64>,
    pub(crate) url: String,
}

#[derive(Deserialize)]
struct Repository {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// Asks which file is meant, and what it is.
pub(crate) async fn ask(
    client: &Client,
    patience: &Patience,
    hub: &Hub,
    wanted: &HubFile,
    tell: &mut dyn FnMut(Event),
) -> Result<HubAnswer, DownloadError> {
    let (owner, name) = wanted.repository.split_once('/').unwrap_or((&wanted.repository, ""));
    let list = address(hub, &["api", "models", owner, name, "revision", &wanted.revision])?;
    let mut response = send(client, patience, hub, (reqwest::Method::GET, list.clone()), wanted, tell).await?;
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| DownloadError::Hub(format!("{list}: {}", why(e))))? {
        if text.len() + chunk.len() > LIST_BYTES {
            return Err(DownloadError::Hub(format!("{list}: the answer is too long for a list of files")));
        }
        text.extend_from_slice(&chunk);
    }
    let repository: Repository = serde_json::from_slice(&text)
        .map_err(|e| DownloadError::Hub(format!("{list}: the answer is no list of files ({e}); is HF_ENDPOINT right?")))?;
    if !is_plain(&repository.sha) {
        return Err(DownloadError::Hub(format!("{list}: `{}` is no commit", repository.sha)));
    }
    let names: Vec<&str> = repository.siblings.iter().map(|file| file.rfilename.as_str()).collect();
    let file = wanted.choose(&names).map_err(DownloadError::Hub)?.to_owned();
    let mut steps = vec![owner, name, "resolve", &repository.sha];
    steps.extend(file.split('/'));
    let url = address(hub, &steps)?;
    let mut at = url.clone();
    for _ in 0..RENAMES {
        let response = send(client, patience, hub, (reqwest::Method::HEAD, at.clone()), wanted, tell).await?;
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let etag = text("x-linked-etag").or_else(|| text("etag")).map(plain_etag);
        let location = text("location").filter(|_| response.status().is_redirection());
        if let (None | Some(_), Some(location)) = (text("x-linked-etag"), location)
            && location.starts_with('/')
        {
            at = at.join(location).map_err(|e| DownloadError::Hub(format!("{at}: {e}")))?;
            continue;
        }
        let etag = etag.filter(|etag| is_plain(etag));
        let etag = etag.ok_or_else(|| DownloadError::Hub(format!("{at}: the answer names no content; is HF_ENDPOINT right?")))?;
        let length = response.status().is_success().then(|| text(header::CONTENT_LENGTH.as_str())).flatten();
        let size = text("x-linked-size").or(length).and_then(|text| text.parse().ok());
        let commit = text("x-repo-commit").filter(|commit| is_plain(commit)).unwrap_or(&repository.sha).to_owned();
        return Ok(HubAnswer { commit, etag, size, file, url: at.into() });
    }
    Err(DownloadError::Hub(format!("{url}: redirected more than {RENAMES} times")))
}

fn address(hub: &Hub, steps: &[&str]) -> Result<Url, DownloadError> {
    let bad = |problem: String| DownloadError::BadUrl { url: hub.endpoint.clone(), problem: format!("{problem} (HF_ENDPOINT)") };
    let mut url = Url::parse(&hub.endpoint).map_err(|e| bad(e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it begins neither with http:// nor with https://".into()));
    }
    url.path_segments_mut().map_err(|()| bad("it has no path".into()))?.pop_if_empty().extend(steps);
    Ok(url)
}

/// One small request, again while the hub is busy.
async fn send(
    client: &Client,
    patience: &Patience,
    hub: &Hub,
    (method, url): (reqwest::Method, Url),
    wanted: &HubFile,
    tell: &mut dyn FnMut(Event),
) -> Result<Response, DownloadError> {
    let (mut wait, mut attempts) = (patience.first_wait, 0);
    loop {
        let mut request = client.plain.request(method.clone(), url.clone()).header(header::ACCEPT_ENCODING, "identity");
        if let Some(token) = &hub.token {
            request = request.bearer_auth(token);
        }
        attempts += 1;
        let (problem, asked) = match request.send().await {
            Ok(response) if response.status().is_success() || response.status().is_redirection() => return Ok(response),
            Ok(response) => match advice(response.status()) {
                Some(advice) => return Err(refused(&response, &url, wanted, advice)),
                None => (format!("the hub says {}", response.status()), retry_after(&response)),
            },
            Err(e) => (why(e), None),
        };
        if attempts >= patience.attempts {
            return Err(DownloadError::GivenUp { url: url.into(), attempts, why: problem });
        }
        if let Some(asked) = asked.filter(|asked: &Duration| *asked > patience.longest_asked) {
            return Err(DownloadError::Busy { url: url.into(), wait: asked });
        }
        let pause = asked.unwrap_or(wait);
        tell(Event::Retries { why: problem, wait: pause });
        sleep(pause).await;
        wait = (wait * 2).min(patience.longest_wait);
    }
}

fn refused(response: &Response, url: &Url, wanted: &HubFile, advice: &'static str) -> DownloadError {
    let told = response.headers().get("x-error-code").and_then(|code| code.to_str().ok());
    match (response.status(), told) {
        (_, Some("GatedRepo")) => {
            let page = format!("{}/{}", url.origin().ascii_serialization(), wanted.repository);
            DownloadError::Hub(format!("`{}` is gated: accept its terms at {page}, and set HF_TOKEN", wanted.repository))
        }
        (StatusCode::NOT_FOUND, Some("RevisionNotFound")) => {
            DownloadError::Hub(format!("`{}` has no revision `{}`", wanted.repository, wanted.revision))
        }
        // the hub tells nobody which private repositories there are
        (StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND, _) => DownloadError::Hub(format!(
            "`{}` is not there, or is private; look whether the name is right, or set HF_TOKEN",
            wanted.repository
        )),
        (status, _) => DownloadError::Refused { url: url.to_string(), status: status.to_string(), advice },
    }
}

/// An etag without its quotes, as the hub's own client names files.
fn plain_etag(etag: &str) -> String {
    etag.trim_start_matches("W/").trim_matches('"').to_owned()
}

/// Whether something may become the name of a file.
fn is_plain(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

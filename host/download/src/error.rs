use std::{io, path::PathBuf, time::Duration};

use llambo_catalog::CatalogError;

/// Why a model is not there. What was fetched of it stays where it is, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The address is none.
    #[error("`{url}` is no address: {problem}")]
    BadUrl {
        /// The address.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The server refused.
    #[error("{url}: the server says {status}; {advice}")]
    Refused {
        /// The address, without secrets.
        url: String,
        /// Its status, such as `404 Not Found`.
        status: String,
        /// What to do.
        advice: &'static str,
    },
    /// It was tried again and again without getting on.
    #[error("{url}: given up after {attempts} attempts without progress: {why}; the same command goes on from what is there")]
    GivenUp {
        /// The address, without secrets.
        url: String,
        /// Attempts since the last byte.
        attempts: u32,
        /// What went wrong the last time.
        why: String,
    },
    /// The server wants a longer wait than anybody has.
    #[error("{url}: the server is busy and asks for {} s of patience; try again then, what is there is kept", wait.as_secs())]
    Busy {
        /// The address, without secrets.
        url: String,
        /// `Retry-After`.
        wait: Duration,
    },
    /// What came is no model.
    #[error("{url} is no model: {problem}")]
    NotAModel {
        /// The address, without secrets.
        url: String,
        /// What it is instead.
        problem: String,
    },
    /// More came than was promised.
    #[error("{url}: the server sends more than the {promised} bytes it promised; this file cannot be trusted and was deleted")]
    TooLong {
        /// The address, without secrets.
        url: String,
        /// Bytes.
        promised: u64,
    },
    /// What came is another file.
    #[error(
        "{url}: SHA-256 is {found} and should be {wanted}; the file was deleted. Either it was damaged on its way, or it is another one"
    )]
    WrongDigest {
        /// The address, without secrets.
        url: String,
        /// What was asked for.
        wanted: String,
        /// What came.
        found: String,
    },
    /// A digest that is none.
    #[error("`{digest}` is no SHA-256: it has 64 hexadecimal digits")]
    BadDigest {
        /// What was given.
        digest: String,
    },
    /// The disk has no room for it.
    #[error("`{}` has room for {free} bytes, and {needed} more are needed; free some, or keep models elsewhere ({remedy})", folder.display())]
    NoRoom {
        /// Where it was to go.
        folder: PathBuf,
        /// Bytes that are missing.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// Which variable names another place.
        remedy: &'static str,
    },
    /// The disk was full in the middle.
    #[error("the disk is full: `{}` has {written} bytes so far, which are kept; free some, and the same command goes on", path.display())]
    DiskFull {
        /// What was fetched so far.
        path: PathBuf,
        /// Bytes of it.
        written: u64,
    },
    /// A file cannot be read or written.
    #[error("cannot use `{}`: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The hub does not have what was asked for, or does not say so in its words.
    #[error("{0}")]
    Hub(String),
    /// The hub may not be asked, and the file is not there.
    #[error("`{0}` is not on this machine, and HF_HUB_OFFLINE forbids to ask for it")]
    Offline(String),
    /// There is no home to keep files in.
    #[error("nowhere to keep models: set HOME, or XDG_DATA_HOME and HF_HOME")]
    Homeless,
    /// The client for HTTP cannot be made.
    #[error("nothing can be fetched here: {0}")]
    Client(String),
    /// The file is there, and is no model.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl DownloadError {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::File { path, source }
    }
}

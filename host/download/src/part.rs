//! What an earlier attempt left on the disk, and the right to go on with it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::{DownloadError, resume::Part};

/// How often somebody who waits for another looks again.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The right to fetch one file, held as long as this is there; the end of the process ends it too.
pub(crate) struct Claim {
    _file: File,
}

/// What is written down beside the bytes that are there.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    url: String,
    validator: Option<String>,
    total: Option<u64>,
}

/// A file that is being fetched.
pub(crate) struct Bytes {
    path: PathBuf,
    pub(crate) file: File,
    pub(crate) part: Part,
    url: String,
}

/// Waits until nobody else fetches what that lock is for; `waiting` is called once if somebody does.
pub(crate) async fn claim(lock: &Path, mut waiting: impl FnMut()) -> Result<Claim, DownloadError> {
    if let Some(folder) = lock.parent() {
        fs::create_dir_all(folder).map_err(DownloadError::file(folder))?;
    }
    let mut is_told = false;
    loop {
        // opened each time: who had it may have removed the file
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(lock).map_err(DownloadError::file(lock))?;
        match file.try_lock() {
            Ok(()) => return Ok(Claim { _file: file }),
            Err(TryLockError::WouldBlock) => {
                if !is_told {
                    waiting();
                    is_told = true;
                }
                sleep(LOOK_EVERY).await;
            }
            Err(TryLockError::Error(source)) => return Err(DownloadError::File { path: lock.into(), source }),
        }
    }
}

// === impl Bytes ===

impl Bytes {
    /// Opens what is there of a file from `url`. A known `size` means that its content is known by a digest.
    pub(crate) fn open(path: &Path, url: &str, size: Option<u64>) -> Result<Self, DownloadError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(DownloadError::file(folder))?;
        }
        // without appending: where to write is decided anew after each reply
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
        let file = file.map_err(DownloadError::file(path))?;
        let n_bytes = file.metadata().map_err(DownloadError::file(path))?.len();
        let note = fs::read(note_of(path)).ok().and_then(|text| serde_json::from_slice::<Note>(&text).ok());
        let note = note.filter(|note| note.url == url).unwrap_or_default();
        let part = Part { n_bytes, validator: note.validator, total: size.or(note.total), is_known: size.is_some() };
        Ok(Self { path: path.into(), file, part, url: url.into() })
    }

    /// Forgets what is there and notes what comes now.
    pub(crate) fn begin(&mut self, validator: Option<String>, total: Option<u64>) -> Result<(), DownloadError> {
        self.file.set_len(0).map_err(DownloadError::file(&self.path))?;
        self.part = Part { n_bytes: 0, validator, total, is_known: self.part.is_known };
        if self.part.is_known {
            return Ok(());
        }
        let note = Note { url: self.url.clone(), validator: self.part.validator.clone(), total };
        let text = serde_json::to_vec(&note).map_err(|e| DownloadError::file(&self.path)(e.into()))?;
        let note = note_of(&self.path);
        fs::write(&note, text).map_err(DownloadError::file(note))
    }

    /// Adds what came.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), DownloadError> {
        use std::os::unix::fs::FileExt;
        match self.file.write_all_at(bytes, self.part.n_bytes) {
            Ok(()) => {
                self.part.n_bytes += bytes.len() as u64;
                Ok(())
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                Err(DownloadError::DiskFull { path: self.path.clone(), written: self.part.n_bytes })
            }
            Err(e) => Err(DownloadError::file(&self.path)(e)),
        }
    }

    /// The whole file, under its name for good.
    pub(crate) fn finish(self, to: &Path) -> Result<(), DownloadError> {
        self.file.sync_all().map_err(DownloadError::file(&self.path))?;
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(DownloadError::file(folder))?;
        }
        fs::rename(&self.path, to).map_err(DownloadError::file(to))?;
        let _ = fs::remove_file(note_of(&self.path));
        Ok(())
    }

    /// Nothing of it is worth keeping.
    pub(crate) fn discard(self) {
        let _ = fs::remove_file(note_of(&self.path));
        let _ = fs::remove_file(&self.path);
    }
}

fn note_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

//! Isolates put aside whole and woken again, in this process or another: what a guest has in its memory and globals, the branches it keeps by name, and
//! the keys and values that its model computed for them.
//!
//! `instrument` gives components doors to their state (`accessor`), `image` takes it out of a guest and puts it into a fresh one, `file` is what lies on disk.

mod accessor;
mod file;
mod image;
mod instrument;

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use llambo_inference::{ModelInfo, TenantName, TypeName};

pub(crate) use self::{
    accessor::Kind,
    file::Kept,
    image::{Access, Image, Named},
    instrument::{Instrumented, instrument},
};

/// The end of a file's name.
const ENDING: &str = "isolate";

/// Where hibernated isolates are kept. One host has it at a time.
#[derive(Debug)]
pub struct Dormitory {
    folder: PathBuf,
    /// Of isolates that sleep on this host.
    owned: Mutex<HashSet<PathBuf>>,
    /// The host ends, and files stay for whoever comes next.
    is_closing: AtomicBool,
    _lock: fs::File,
}

/// A hibernated isolate that no host has taken in yet.
#[derive(Debug)]
pub struct Sleeper {
    pub(crate) path: PathBuf,
    pub(crate) kept: Kept,
}

/// Doors to a component's state.
#[derive(Clone, Debug)]
pub(crate) struct Doors {
    pub(crate) has_memory: bool,
    pub(crate) globals: Vec<Kind>,
}

/// Whose state it is, and what it must find where it is woken.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    /// The node type it was of.
    #[serde(rename = "type")]
    pub node_type: String,
    /// What it was called.
    pub node: String,
    /// Whose it is.
    pub tenant: String,
    /// SHA-256 of its module, in hex.
    pub module: String,
}

/// Why an isolate cannot be put aside, or cannot be woken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HibernateError {
    /// It is not set up for that.
    #[error("{0}")]
    Unfit(String),
    /// The file is damaged, cut, or something else.
    #[error("it is no whole file of an isolate: {0}")]
    Broken(String),
    /// It needs something else than what is here.
    #[error("{what} is {found} here, and was {expected} where it was put aside")]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// What is here.
        found: String,
        /// What was there.
        expected: String,
    },
    /// The guest's state could not be read or set.
    #[error("its state could not be moved: {0}")]
    Failed(String),
    /// The disk refused.
    #[error("{}: {source}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

// === impl Dormitory ===

impl Dormitory {
    /// Makes the folder where it is not there, and takes it for this host.
    ///
    /// # Errors
    /// The folder cannot be used, or another host does.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let lock = fs::File::create(folder.join("lock"))?;
        lock.try_lock().map_err(|e| match e {
            fs::TryLockError::WouldBlock => io::Error::new(io::ErrorKind::ResourceBusy, "another host uses it"),
            fs::TryLockError::Error(e) => e,
        })?;
        Ok(Self { folder: folder.to_owned(), owned: Mutex::default(), is_closing: AtomicBool::new(false), _lock: lock })
    }

    /// Files that belong to no isolate of this host, by name: what others, or an earlier run, put there.
    pub fn strangers(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let owned = self.owned();
        let is_stranger = |path: &PathBuf| path.extension().is_some_and(|e| e == ENDING) && !owned.contains(path);
        // nothing but files: a pipe would be waited for
        let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        let mut files: Vec<_> = files.map(|entry| entry.path()).filter(is_stranger).collect();
        files.sort();
        files
    }

    /// From here on an isolate that is wanted no more leaves its file behind.
    pub fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    /// Where an isolate goes. A file that an earlier run left by the same name is not overwritten.
    pub(crate) fn place_for(&self, node: &str) -> PathBuf {
        let mut owned = self.owned();
        let mut n = 0u32;
        loop {
            let name = if n == 0 { format!("{node}.{ENDING}") } else { format!("{node}~{n}.{ENDING}") };
            let path = self.folder.join(name);
            if !owned.contains(&path) && !path.exists() {
                owned.insert(path.clone());
                return path;
            }
            n += 1;
        }
    }

    /// The file is an isolate's of this host now. False when it was already.
    pub(crate) fn own(&self, path: &Path) -> bool {
        self.owned().insert(path.to_owned())
    }

    /// The file is no isolate's any more.
    pub(crate) fn disown(&self, path: &Path) {
        self.owned().remove(path);
    }

    /// The isolate whose file it is is wanted no more.
    pub(crate) fn discard(&self, path: &Path) {
        if !self.is_closing.load(Ordering::Relaxed) {
            // one that cannot be removed is taken up by the next run
            let _ = fs::remove_file(path);
            self.disown(path);
        }
    }

    fn owned(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a file that only its owner reads; whoever finds it finds it whole.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), HibernateError> {
    let disk = |source| HibernateError::Disk { path: path.to_owned(), source };
    let beside = path.with_extension("unfinished");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&beside).and_then(|mut file| io::Write::write_all(&mut file, bytes));
    let written = written.and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // what is left of it is in nobody's way
        let _ = fs::remove_file(&beside);
    }
    written.map_err(disk)
}

/// Reads and checks a whole file.
pub(crate) fn read(path: &Path) -> Result<Kept, HibernateError> {
    let bytes = fs::read(path).map_err(|source| HibernateError::Disk { path: path.to_owned(), source })?;
    Kept::decode(&bytes).map_err(HibernateError::Broken)
}

impl Sleeper {
    /// Reads and checks a whole file. Blocks.
    ///
    /// # Errors
    /// [`HibernateError::Disk`], [`HibernateError::Broken`].
    pub fn open(path: &Path) -> Result<Self, HibernateError> {
        read(path).map(|kept| Self { path: path.to_owned(), kept })
    }

    /// Whose state it is.
    pub fn origin(&self) -> &Origin {
        &self.kept.origin
    }
}

/// Whether an isolate of this origin can live where things are so.
pub(crate) fn check(origin: &Origin, node_type: &TypeName, tenant: &TenantName, module: &str) -> Result<(), HibernateError> {
    let same = |what, found: &str, expected: &str| {
        if found == expected {
            return Ok(());
        }
        Err(HibernateError::Mismatch { what, found: format!("`{found}`"), expected: format!("`{expected}`") })
    };
    same("its node type", node_type.as_str(), &origin.node_type)?;
    same("its type's tenant", tenant.as_str(), &origin.tenant)?;
    same("the SHA-256 of its module", module, &origin.module)
}

/// Whether a model that a branch stands on is the one that is here.
pub(crate) fn check_model(found: &ModelInfo, expected: &str) -> Result<(), HibernateError> {
    let ModelInfo { name, digest, .. } = found;
    if digest == expected {
        return Ok(());
    }
    let what = "the SHA-256 of a model that it keeps branches of";
    Err(HibernateError::Mismatch { what, found: format!("{digest} (`{name}`)"), expected: expected.to_owned() })
}

//! Copies on disk: files that only this model, this llama.cpp and this tenant can use, written and read by a thread of
//! their own.
//!
//! A file says whose it is, which tokens it holds, and ends with a digest. What does not fit is never loaded: the tokens are computed
//! again instead.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle, Thread},
};

use llambo_catalog::hex;
use llambo_inference::TenantName;
use sha2::{Digest, Sha256};

use super::kept::{Copy, KeptId, Leaving};
use crate::ffi::Token;

const MAGIC: &[u8; 16] = b"llambo kv cache1";
const ENDING: &str = "kv";
/// Jobs that wait for the disk: a slow one loses copies, and never holds the engine up.
const JOBS: usize = 64;
/// More than any context has.
const MAX_TOKENS: u32 = 1 << 24;
const DIGEST_BYTES: usize = 32;

/// What makes a copy usable: the same model, the same llama.cpp, the same kind of cache.
pub(crate) type Fingerprint = [u8; DIGEST_BYTES];

/// Of whatever names the kind of copies; this build of llama.cpp is part of it.
pub(crate) fn fingerprint(parts: &[&str]) -> Fingerprint {
    let mut hash = Sha256::new();
    for part in parts.iter().copied().chain([crate::ffi::build()]) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

enum Job {
    Write(Leaving, String),
    Read(KeptId, String),
    Delete(String),
}

/// What became of a job.
pub(crate) enum Done {
    Wrote { id: KeptId, is_written: bool },
    Read { id: KeptId, copy: Option<Copy> },
}

/// A file of an earlier run.
pub(crate) struct Found {
    name: String,
    pub(crate) tenant: TenantName,
    pub(crate) tokens: Vec<Token>,
    pub(crate) n_bytes: u64,
}

/// The engine's side. Dropping it waits until what was asked for is written.
pub(crate) struct Disk {
    jobs: Option<SyncSender<Job>>,
    done: Receiver<Done>,
    names: HashMap<KeptId, String>,
    thread: Option<JoinHandle<()>>,
}

struct Files {
    folder: PathBuf,
    fingerprint: Fingerprint,
}

// === impl Disk ===

impl Disk {
    /// Uses a folder of its own in `folder`, which is made if need be, and wakes `engine` whenever a job is done. Says what is there already; files that
    /// nobody can use any more are deleted.
    pub(crate) fn open(folder: &Path, fingerprint: Fingerprint, engine: Thread) -> io::Result<(Self, Vec<Found>)> {
        let folder = folder.join(hex(&fingerprint[..8]));
        make_folder(&folder)?;
        let files = Files { folder, fingerprint };
        let found = files.scan()?;
        let (jobs, inbox) = sync_channel(JOBS);
        let (report, done) = sync_channel(2 * JOBS);
        let thread = thread::Builder::new().name("llambo-kv-disk".into()).spawn(move || files.run(&inbox, &report, &engine))?;
        Ok((Self { jobs: Some(jobs), done, names: HashMap::new(), thread: Some(thread) }, found))
    }

    /// What was found is known as `id` from here on.
    pub(crate) fn adopt(&mut self, id: KeptId, found: Found) {
        self.names.insert(id, found.name);
    }

    /// False when it is not going to be written.
    pub(crate) fn write(&mut self, leaving: Leaving) -> bool {
        let (id, name) = (leaving.id, name_of(&leaving.tenant, &leaving.tokens));
        self.names.insert(id, name.clone());
        self.send(Job::Write(leaving, name))
    }

    /// False when it is not going to be read.
    pub(crate) fn read(&mut self, id: KeptId) -> bool {
        match self.names.get(&id).cloned() {
            Some(name) => self.send(Job::Read(id, name)),
            None => false,
        }
    }

    /// A file that is not deleted now is found, and counted, by the next run.
    pub(crate) fn delete(&mut self, id: KeptId) {
        if let Some(name) = self.names.remove(&id) {
            self.send(Job::Delete(name));
        }
    }

    /// What was done since.
    pub(crate) fn done(&self) -> Option<Done> {
        self.done.try_recv().ok()
    }

    fn send(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.jobs = None;
        // nobody reads them any more, and the thread must not wait for that
        let (_, nobody) = sync_channel(0);
        self.done = nobody;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of KV files panicked");
        }
    }
}

// === impl Files ===

impl Files {
    fn run(&self, inbox: &Receiver<Job>, report: &SyncSender<Done>, engine: &Thread) {
        for job in inbox {
            let done = match job {
                Job::Write(leaving, name) => {
                    let written = self.write(&name, &leaving);
                    if let Err(error) = &written {
                        tracing::warn!(folder = %self.folder.display(), %error, "a KV copy cannot be written");
                    }
                    Done::Wrote { id: leaving.id, is_written: written.is_ok() }
                }
                Job::Read(id, name) => {
                    let read = self.read(&name);
                    if let Err(error) = &read {
                        tracing::warn!(folder = %self.folder.display(), %error, "a KV copy cannot be read and is computed again");
                    }
                    Done::Read { id, copy: read.ok().map(Arc::new) }
                }
                Job::Delete(name) => {
                    // gone is what it should be
                    let _ = fs::remove_file(self.folder.join(name));
                    continue;
                }
            };
            // an engine that closes asks for nothing more
            if report.send(done).is_ok() {
                engine.unpark();
            }
        }
    }

    fn write(&self, name: &str, leaving: &Leaving) -> io::Result<()> {
        let unfinished = self.folder.join(name).with_extension("unfinished");
        let written = self.write_to(&unfinished, leaving).and_then(|()| fs::rename(&unfinished, self.folder.join(name)));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    fn write_to(&self, path: &Path, leaving: &Leaving) -> io::Result<()> {
        let mut head = Vec::with_capacity(128 + 4 * leaving.tokens.len());
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&self.fingerprint);
        let tenant = leaving.tenant.as_str().as_bytes();
        for n in [tenant.len(), leaving.tokens.len()] {
            head.extend_from_slice(&u32::try_from(n).map_err(io::Error::other)?.to_le_bytes());
        }
        head.extend_from_slice(tenant);
        head.extend(leaving.tokens.iter().flat_map(|token| token.to_le_bytes()));
        let digest = Sha256::new().chain_update(&head).chain_update(leaving.copy.as_slice()).finalize();
        let mut file = private_file(path)?;
        for part in [&head[..], &digest[..], &leaving.copy[..]] {
            file.write_all(part)?;
        }
        Ok(())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = fs::read(self.folder.join(name))?;
        let head = self.head(&mut bytes.as_slice())?;
        let (head_bytes, rest) = bytes.split_at(head.n_bytes);
        let (digest, copy) = rest.split_at_checked(DIGEST_BYTES).ok_or(io::ErrorKind::UnexpectedEof)?;
        if Sha256::new().chain_update(head_bytes).chain_update(copy).finalize()[..] != *digest {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{name}` is damaged")));
        }
        Ok(bytes.split_off(head.n_bytes + DIGEST_BYTES))
    }

    fn scan(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let path = entry.path();
            let is_ours = path.extension().is_some_and(|e| e == ENDING || e == "unfinished");
            if !is_ours {
                continue;
            }
            let whole = File::open(&path).and_then(|file| {
                let n_bytes = file.metadata()?.len();
                let head = self.head(&mut BufReader::new(file))?;
                Ok((head, n_bytes))
            });
            match (whole, path.file_name().and_then(|n| n.to_str())) {
                (Ok((head, n_bytes)), Some(name)) if path.extension().is_some_and(|e| e == ENDING) => {
                    let n_bytes = n_bytes.saturating_sub((head.n_bytes + DIGEST_BYTES) as u64);
                    found.push(Found { name: name.to_owned(), tenant: head.tenant, tokens: head.tokens, n_bytes });
                }
                // of another model, another llama.cpp, or half written
                _ => drop(fs::remove_file(&path)),
            }
        }
        Ok(found)
    }

    fn head(&self, from: &mut impl Read) -> io::Result<Head> {
        let unusable = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let (mut magic, mut fingerprint) = ([0; MAGIC.len()], [0; DIGEST_BYTES]);
        from.read_exact(&mut magic)?;
        from.read_exact(&mut fingerprint)?;
        if magic != *MAGIC || fingerprint != self.fingerprint {
            return Err(unusable("it is of another model or another llama.cpp"));
        }
        let mut number = || {
            let mut bytes = [0; 4];
            from.read_exact(&mut bytes).map(|()| u32::from_le_bytes(bytes))
        };
        let (n_tenant, n_tokens) = (number()?, number()?);
        if n_tenant > 4096 || n_tokens > MAX_TOKENS {
            return Err(unusable("its head makes no sense"));
        }
        let mut tenant = vec![0; n_tenant as usize];
        from.read_exact(&mut tenant)?;
        let tenant = String::from_utf8(tenant).map_err(|_| unusable("its tenant is not a name"))?;
        let mut tokens = vec![0; 4 * n_tokens as usize];
        from.read_exact(&mut tokens)?;
        let tokens: Vec<Token> = tokens.chunks_exact(4).filter_map(|b| b.try_into().ok()).map(Token::from_le_bytes).collect();
        let n_bytes = MAGIC.len() + DIGEST_BYTES + 8 + tenant.len() + 4 * tokens.len();
        Ok(Head { tenant: tenant.into(), tokens, n_bytes })
    }
}

struct Head {
    tenant: TenantName,
    tokens: Vec<Token>,
    n_bytes: usize,
}

fn name_of(tenant: &TenantName, tokens: &[Token]) -> String {
    let mut hash = Sha256::new().chain_update(tenant.as_str()).chain_update([0]);
    for token in tokens {
        hash.update(token.to_le_bytes());
    }
    let digest = hash.finalize();
    format!("{}.{ENDING}", hex(&digest[..16]))
}

#[cfg(unix)]
fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    // what people said can be read out of it
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaving(id: KeptId, bytes: &[u8]) -> Leaving {
        Leaving { id, tenant: "acme".into(), tokens: [7, -8, 9].as_slice().into(), copy: Arc::new(bytes.to_vec()) }
    }

    fn wait(disk: &Disk) -> Done {
        loop {
            match disk.done() {
                Some(done) => return done,
                None => thread::park_timeout(std::time::Duration::from_millis(20)),
            }
        }
    }

    fn read(disk: &mut Disk, id: KeptId) -> Option<Vec<u8>> {
        assert!(disk.read(id));
        match wait(disk) {
            Done::Read { copy, .. } => copy.map(|c| c.to_vec()),
            Done::Wrote { .. } => panic!("nothing was written"),
        }
    }

    #[test]
    fn a_copy_survives_a_restart_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let open = |print| Disk::open(folder.path(), [print; 32], thread::current()).unwrap();
        let (mut disk, found) = open(1);
        assert!(found.is_empty() && disk.write(leaving(5, b"keys and values")));
        assert!(matches!(wait(&disk), Done::Wrote { id: 5, is_written: true }));
        assert_eq!(read(&mut disk, 5).as_deref(), Some(&b"keys and values"[..]));
        drop(disk);

        let (mut disk, mut found) = open(1);
        let file = found.pop().unwrap();
        assert_eq!((file.tenant.as_str(), file.tokens.as_slice(), file.n_bytes), ("acme", &[7, -8, 9][..], 15));
        let path = folder.path().join("0101010101010101").join(&file.name);
        disk.adopt(9, file);
        assert_eq!(read(&mut disk, 9).as_deref(), Some(&b"keys and values"[..]));
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&mut disk, 9), None);
        fs::write(&path, &bytes[..60]).unwrap();
        assert_eq!(read(&mut disk, 9), None);
        drop(disk);

        // what is no whole file, or of another model, goes
        fs::write(&path, &bytes).unwrap();
        fs::write(folder.path().join("0101010101010101").join("half.unfinished"), b"x").unwrap();
        fs::write(&path, [&bytes[..16], &[2; 40], &bytes[56..]].concat()).unwrap();
        assert!(open(1).1.is_empty() && !path.exists());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }
}

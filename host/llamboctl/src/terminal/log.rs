//! Records on disk, one JSON value on each line, which several programs append to at once.
//!
//! Each append is one write under a lock. Lines that are no JSON are passed over: a machine that lost its power may leave some.

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Bytes of a file: some thousand answers. Beyond it the older half goes.
const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// Only for whom it belongs to: people talk about what is theirs.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// A file of records.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    path: PathBuf,
    max_bytes: u64,
}

impl Log {
    /// The file `name` among what llambo keeps for this user, which need not exist yet.
    ///
    /// # Errors
    /// There is no folder for it, and none can be made.
    pub(crate) fn of_user(name: &str) -> io::Result<Self> {
        let state = folder(env::var_os("XDG_STATE_HOME").map(PathBuf::from), env::var_os("HOME").map(PathBuf::from));
        let folder =
            state.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "neither XDG_STATE_HOME nor HOME names a folder"))?;
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&folder)?;
        Ok(Self::at(folder.join(name)))
    }

    fn at(path: PathBuf) -> Self {
        Self { path, max_bytes: MAX_BYTES }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// All records that can be read, the oldest first. None if there is no file yet.
    pub(crate) fn read(&self) -> io::Result<Vec<Value>> {
        let mut bytes = Vec::new();
        match File::open(&self.path) {
            // somebody else's program may have made it larger than ours ever do
            Ok(mut file) => {
                let length = file.metadata()?.len();
                file.seek(SeekFrom::Start(length.saturating_sub(self.max_bytes * 2)))?;
                file.take(self.max_bytes * 2).read_to_end(&mut bytes)?
            }
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// Adds a record.
    pub(crate) fn append(&self, record: &Value) -> io::Result<()> {
        let mut file = self.locked()?;
        let length = file.metadata()?.len();
        let mut line = String::new();
        if length > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            // the end of a line that was cut off must not spoil this one
            if last != [b'\n'] {
                line.push('\n');
            }
        }
        line.push_str(&record.to_string());
        line.push('\n');
        file.write_all(line.as_bytes())?;
        if length + line.len() as u64 > self.max_bytes {
            self.halve(&mut file)?;
        }
        Ok(())
    }

    /// Opens the file, alone as long as it stays open.
    fn locked(&self) -> io::Result<File> {
        loop {
            let file = OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE).open(&self.path)?;
            match file.lock() {
                Ok(()) => {}
                // some file systems of networks have no locks; one write in append mode has to do there
                Err(e) if e.kind() == ErrorKind::Unsupported => {}
                Err(e) => return Err(e),
            }
            let here = file.metadata()?;
            // while we waited, somebody may have put a shorter file in its place
            if fs::metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == (here.dev(), here.ino())) {
                if here.mode() & 0o077 != 0 {
                    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
                }
                return Ok(file);
            }
        }
    }

    /// Puts a file with the newer half of the records in the place of this one.
    fn halve(&self, file: &mut File) -> io::Result<()> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::End(-i64::try_from(self.max_bytes / 2).unwrap_or(i64::MAX)))?;
        file.read_to_end(&mut bytes)?;
        let first = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        let new = self.path.with_extension("new");
        let mut shorter = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&new)?;
        shorter.write_all(&bytes[first..])?;
        fs::rename(&new, &self.path)
    }
}

/// Where a user's state belongs, as the XDG base directory specification says.
fn folder(state: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    // relative ones are to be ignored
    let state = state.filter(|path| path.is_absolute());
    let home = home.filter(|path| path.is_absolute()).map(|home| home.join(".local/state"));
    Some(state.or(home)?.join("llambo"))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use serde_json::json;

    use super::*;

    fn log(max_bytes: u64) -> (tempfile::TempDir, Log) {
        let folder = tempfile::tempdir().unwrap();
        let log = Log { path: folder.path().join("l.jsonl"), max_bytes };
        (folder, log)
    }

    #[test]
    fn records_come_back_in_order_and_belong_to_their_owner() {
        let (_folder, log) = log(MAX_BYTES);
        assert!(log.read().unwrap().is_empty());
        fs::write(&log.path, "").unwrap();
        fs::set_permissions(&log.path, Permissions::from_mode(0o644)).unwrap();
        for record in [json!("a\nb"), json!({ "n": 1 })] {
            log.append(&record).unwrap();
        }
        assert_eq!(log.read().unwrap(), [json!("a\nb"), json!({ "n": 1 })]);
        assert_eq!(fs::metadata(&log.path).unwrap().mode() & 0o777, FILE_MODE);
    }

    #[test]
    fn a_damaged_file_loses_its_damaged_lines_only() {
        let (_folder, log) = log(MAX_BYTES);
        fs::write(&log.path, b"\"a\"\n\xff\xfe\0\n{\"cut\": ").unwrap();
        assert_eq!(log.read().unwrap(), [json!("a")]);
        log.append(&json!("b")).unwrap();
        assert_eq!(log.read().unwrap(), [json!("a"), json!("b")]);
    }

    #[test]
    fn several_append_at_once_and_nothing_is_lost_or_mixed() {
        let (_folder, log) = log(MAX_BYTES);
        thread::scope(|scope| {
            for writer in 0..4 {
                let log = &log;
                scope.spawn(move || (0..100).for_each(|n| log.append(&json!({ "writer": writer, "n": n })).unwrap()));
            }
        });
        let records = log.read().unwrap();
        assert_eq!(records.len(), 400);
        for writer in 0..4 {
            let own: Vec<_> =
                records.iter().filter(|record| record["writer"] == writer).map(|record| record["n"].clone()).collect();
            assert_eq!(own, (0..100).map(Value::from).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_file_that_grew_too_long_keeps_its_newer_half_also_while_others_append() {
        let (_folder, log) = log(4000);
        thread::scope(|scope| {
            for _ in 0..4 {
                let log = &log;
                scope.spawn(move || (0..200).for_each(|n| log.append(&json!(format!("{n:040}"))).unwrap()));
            }
        });
        log.append(&json!("last")).unwrap();
        let records = log.read().unwrap();
        assert!(fs::metadata(&log.path).unwrap().len() <= 4000 && records.len() > 40, "{}", records.len());
        assert_eq!(records.last(), Some(&json!("last")));
    }

    #[test]
    fn state_lies_where_the_specification_says() {
        let of = |state: Option<&str>, home: Option<&str>| folder(state.map(Into::into), home.map(Into::into));
        assert_eq!(of(Some("/s"), Some("/h")), Some("/s/llambo".into()));
        assert_eq!(of(Some("s"), Some("/h")), Some("/h/.local/state/llambo".into()));
        assert_eq!((of(None, None), of(None, Some(""))), (None, None));
    }
}

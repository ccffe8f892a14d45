//! Published modules on disk, so that they are there again after a restart: a folder for each name, in it each version as
//! `<number>.wasm` and, in `published.json`, which there are and which serves. What is written takes the place of what was there in one step.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use llambo_catalog::digest_of;
use llambo_inference::ModelName;
use serde_json::{Value, json};

use super::ledger::{Row, Version};

const TABLE: &str = "published.json";

/// Where published modules are kept.
pub(crate) struct Folder(PathBuf);

/// A name with its versions, and how many isolates it had.
pub(crate) type Stored = (ModelName, Row, Option<u32>);

/// What is wrong with what was kept.
pub(crate) struct Broken {
    pub(crate) name: String,
    pub(crate) detail: String,
}

impl Folder {
    /// Makes it where it is not there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self(path.to_owned()))
    }

    /// Writes a module's bytes, before it is put into service.
    pub(crate) fn write(&self, name: &ModelName, version: &Version) -> Result<(), String> {
        let folder = self.0.join(name.as_str());
        let path = folder.join(wasm_file(version.number));
        fs::create_dir_all(&folder)
            .and_then(|()| replace(&path, &version.wasm))
            .map_err(|e| format!("{} cannot be written: {e}", path.display()))
    }

    /// Writes which versions there are, and forgets the bytes of those that are gone.
    pub(crate) fn note(&self, name: &ModelName, row: &Row, count: u32, gone: &[u32]) -> Result<(), String> {
        let folder = self.0.join(name.as_str());
        let versions: Vec<_> = row.versions.values().map(to_json).collect();
        let table = json!({ "serving": row.serving, "count": count, "versions": versions }).to_string();
        let path = folder.join(TABLE);
        replace(&path, table.as_bytes()).map_err(|e| format!("{} cannot be written: {e}", path.display()))?;
        for number in gone {
            // one that stays behind is in nobody's way: the table does not name it
            let _ = fs::remove_file(folder.join(wasm_file(*number)));
        }
        Ok(())
    }

    /// Forgets bytes that were not published after all, and the name if it has no others.
    pub(crate) fn forget(&self, name: &ModelName, number: u32) {
        let folder = self.0.join(name.as_str());
        // what stays is overwritten by the next load of that name; a folder that has other versions is not removed
        let _ = fs::remove_file(folder.join(wasm_file(number)));
        let _ = fs::remove_dir(folder);
    }

    /// Forgets a name.
    pub(crate) fn remove(&self, name: &ModelName) -> Result<(), String> {
        let folder = self.0.join(name.as_str());
        match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(format!("{} cannot be removed: {e}", folder.display())),
            _ => Ok(()),
        }
    }

    /// Everything that is kept, and what of it cannot be read.
    pub(crate) fn read(&self) -> (Vec<Stored>, Vec<Broken>) {
        let (mut rows, mut broken) = (Vec::new(), Vec::new());
        let names = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut names: Vec<_> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        for name in names {
            match self.row(&name) {
                Ok(Some((row, count))) => rows.push((ModelName::from(&name), row, count)),
                // a load that was cut short before it came to its table
                Ok(None) => {}
                Err(detail) => broken.push(Broken { name, detail }),
            }
        }
        (rows, broken)
    }

    /// The versions of a name, and how many isolates it had.
    fn row(&self, name: &str) -> Result<Option<(Row, Option<u32>)>, String> {
        let folder = self.0.join(name);
        let table = match fs::read(folder.join(TABLE)) {
            Ok(table) => table,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => return Err(format!("{TABLE} cannot be read: {e}")),
        };
        let table: Value = serde_json::from_slice(&table).map_err(|e| format!("{TABLE} is broken: {e}"))?;
        let listed = table["versions"].as_array().ok_or("published.json names no versions")?;
        let versions = listed.iter().map(|entry| version(&folder, entry));
        let versions = versions.map(|version| version.map(|version| (version.number, version)));
        let versions: BTreeMap<_, _> = versions.collect::<Result<_, _>>()?;
        let serving = table["serving"].as_u64().and_then(|number| u32::try_from(number).ok());
        let serving = serving.filter(|number| versions.contains_key(number)).ok_or("none of its versions serves")?;
        let count = table["count"].as_u64().and_then(|count| u32::try_from(count).ok());
        Ok(Some((Row { serving, versions }, count)))
    }
}

fn wasm_file(number: u32) -> String {
    format!("{number}.wasm")
}

fn to_json(version: &Version) -> Value {
    let loaded_at = version.loaded_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json!({
        "version": version.number,
        "sha256": version.sha256,
        "type": version.node_type.as_str(),
        "loaded_at": loaded_at,
    })
}

fn version(folder: &Path, entry: &Value) -> Result<Version, String> {
    let number = entry["version"].as_u64().and_then(|number| u32::try_from(number).ok()).ok_or("a version has no number")?;
    let (sha256, node_type) = (entry["sha256"].as_str().unwrap_or_default(), entry["type"].as_str().unwrap_or_default());
    let file = wasm_file(number);
    let wasm = fs::read(folder.join(&file)).map_err(|e| format!("{file} cannot be read: {e}"))?;
    if digest_of(&wasm) != sha256 {
        return Err(format!("{file} is not what was published: its SHA-256 is {}, not {sha256}", digest_of(&wasm)));
    }
    Ok(Version {
        number,
        wasm: wasm.into(),
        sha256: sha256.to_owned(),
        node_type: node_type.into(),
        loaded_at: UNIX_EPOCH + Duration::from_secs(entry["loaded_at"].as_u64().unwrap_or(0)),
        made: Arc::default(),
    })
}

/// Whoever reads it finds the old or the new, and never a part.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes)?;
    fs::File::open(&beside)?.sync_all()?;
    fs::rename(&beside, path)
}

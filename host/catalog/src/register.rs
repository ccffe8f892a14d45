//! The catalog: which models this machine has, by name, in one file of the user's data folder.
//!
//! It is written as a whole to a file beside it and renamed; whoever changes it holds a lock. A file that cannot be read is told and
//! left as it is: a catalog is never begun anew over one that is damaged.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{CatalogError, ModelFile, hub::Environment, source::is_model_name};

/// The form of the file; another one is not read.
const VERSION: u32 = 1;

/// A model by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The file, absolute.
    pub path: PathBuf,
    /// SHA-256 when it was registered, lower-case hex.
    pub sha256: String,
    /// Its size then, in bytes.
    pub size_bytes: u64,
    /// Where it is from, as a person writes it.
    pub source: String,
    /// Whether it was fetched to a folder of ours, and may be deleted with its entry.
    #[serde(default)]
    pub is_ours: bool,
    /// Seconds since 1970.
    pub registered_at: u64,
}

/// What has become of a registered file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It lies there, as long as it was.
    Here,
    /// Nothing lies there.
    Missing,
    /// What lies there has another size.
    Changed,
}

/// The catalog's file.
#[derive(Clone, Debug)]
pub struct Register {
    path: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    models: BTreeMap<String, Entry>,
}

// === impl Entry ===

impl Entry {
    /// An entry for a file that was just looked at.
    pub fn of(file: &ModelFile, source: String, is_ours: bool) -> Self {
        let registered_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let path = std::path::absolute(file.path()).unwrap_or_else(|_| file.path().into());
        Self { path, sha256: file.digest().into(), size_bytes: file.size_bytes(), source, is_ours, registered_at }
    }

    /// Whether its file is still there. Looks at the size only.
    pub fn presence(&self) -> Presence {
        match fs::metadata(&self.path) {
            Ok(about) if about.is_file() && about.len() == self.size_bytes => Presence::Here,
            Ok(_) => Presence::Changed,
            Err(_) => Presence::Missing,
        }
    }
}

// === impl Register ===

impl Register {
    /// The catalog in that file.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The user's: `LLAMBO_CATALOG`, else `llambo/catalog.json` in the data folder. `None`: there is no home.
    pub fn of(environment: Environment<'_>) -> Option<Self> {
        let named = environment("LLAMBO_CATALOG").map(PathBuf::from);
        named.or_else(|| Some(data_folder(environment)?.join("catalog.json"))).map(Self::at)
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All models, by name. There are none before the first is registered.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn models(&self) -> Result<BTreeMap<String, Entry>, CatalogError> {
        match fs::read(&self.path) {
            Ok(bytes) => self.parse(&bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(source) => Err(CatalogError::Catalog { path: self.path.clone(), source }),
        }
    }

    /// The model of that name.
    ///
    /// # Errors
    /// There is none, or the file cannot be read.
    pub fn get(&self, name: &str) -> Result<Entry, CatalogError> {
        let mut models = self.models()?;
        models.remove(name).ok_or_else(|| CatalogError::NotRegistered {
            name: name.into(),
            known: models.into_keys().collect(),
            path: self.path.clone(),
        })
    }

    /// Opens the file of a model, and looks whether it is still the one that was registered: as long as reading it takes.
    ///
    /// # Errors
    /// As for [`Self::get`]; it is gone, or another one.
    pub fn open(&self, name: &str) -> Result<ModelFile, CatalogError> {
        let entry = self.get(name)?;
        let file = ModelFile::open(&entry.path)?;
        if file.digest() != entry.sha256 {
            let problem = format!("it is not the file that was registered as `{name}`; register it again with `--replace`");
            return Err(CatalogError::Broken { path: entry.path, problem });
        }
        Ok(file)
    }

    /// Adds a model. Doing so twice with the same content is done once.
    ///
    /// # Errors
    /// The name cannot be one, or is another model's; the file cannot be read or written.
    pub fn insert(&self, name: &str, entry: &Entry, replace: bool) -> Result<(), CatalogError> {
        if !is_model_name(name) {
            return Err(CatalogError::BadName { name: name.into() });
        }
        self.change(|models| match models.get(name) {
            Some(there) if !replace && (&there.path, &there.sha256) != (&entry.path, &entry.sha256) => {
                Err(CatalogError::NameTaken { name: name.into(), path: there.path.clone() })
            }
            _ => {
                models.insert(name.into(), entry.clone());
                Ok(())
            }
        })
    }

    /// Takes a model out. Its file stays.
    ///
    /// # Errors
    /// As for [`Self::get`], and the file cannot be written.
    pub fn remove(&self, name: &str) -> Result<Entry, CatalogError> {
        self.change(|models| {
            models.remove(name).ok_or_else(|| CatalogError::NotRegistered {
                name: name.into(),
                known: models.keys().cloned().collect(),
                path: self.path.clone(),
            })
        })
    }

    fn parse(&self, bytes: &[u8]) -> Result<BTreeMap<String, Entry>, CatalogError> {
        let damaged = |problem| CatalogError::DamagedCatalog { path: self.path.clone(), problem };
        let content: Content = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
        if content.version != VERSION {
            return Err(damaged(format!("it has version {}, and this program reads version {VERSION}", content.version)));
        }
        Ok(content.models)
    }

    /// One change, with nobody beside it.
    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Entry>) -> Result<T, CatalogError>) -> Result<T, CatalogError> {
        let fail = |source| CatalogError::Catalog { path: self.path.clone(), source };
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(fail)?;
        // beside it, since the file itself is replaced; given back when it is closed, also by the end of the process
        let lock = File::create(self.path.with_extension("lock")).map_err(fail)?;
        lock.lock().map_err(fail)?;
        let mut models = self.models()?;
        let done = change(&mut models)?;
        let text = serde_json::to_vec_pretty(&Content { version: VERSION, models }).map_err(|e| fail(e.into()))?;
        let mut part = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
        part.write_all(&text).and_then(|()| part.write_all(b"\n")).and_then(|()| part.as_file().sync_all()).map_err(fail)?;
        part.persist(&self.path).map_err(|e| fail(e.error))?;
        Ok(done)
    }
}

/// Where this user's models and catalog are kept. `None`: there is no home.
pub fn data_folder(environment: Environment<'_>) -> Option<PathBuf> {
    let data = environment("XDG_DATA_HOME").map(PathBuf::from);
    Some(data.or_else(|| Some(PathBuf::from(environment("HOME")?).join(".local/share")))?.join("llambo"))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn entry(path: &str) -> Entry {
        Entry { path: path.into(), sha256: "ab".into(), size_bytes: 1, source: "hf:a/b".into(), is_ours: false, registered_at: 7 }
    }

    #[test]
    fn what_is_registered_is_there_until_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let register = Register::at(folder.path().join("deep/catalog.json"));
        assert!(register.models().unwrap().is_empty());
        register.insert("m", &entry("/m"), false).unwrap();
        register.insert("m", &entry("/m"), false).unwrap();
        let taken = register.insert("m", &entry("/other"), false).unwrap_err().to_string();
        assert!(taken.contains("`m`") && taken.contains("/m"), "{taken}");
        register.insert("m", &entry("/other"), true).unwrap();
        assert_eq!(register.get("m").unwrap().path, Path::new("/other"));
        assert!(register.get("n").unwrap_err().to_string().contains("`m`"));
        assert_eq!(register.remove("m").unwrap(), entry("/other"));
        assert!(register.remove("m").is_err());
        for name in ["", "a/b", "-x", "builtin:demo", "a b", &"x".repeat(65)] {
            assert!(register.insert(name, &entry("/m"), false).is_err(), "{name}");
        }
    }

    #[test]
    fn many_writers_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let register = Register::at(folder.path().join("catalog.json"));
        thread::scope(|scope| {
            for writer in 0..8 {
                let register = &register;
                scope.spawn(move || {
                    for i in 0..20 {
                        register.insert(&format!("m{writer}.{i}"), &entry("/m"), false).unwrap();
                    }
                });
            }
        });
        assert_eq!(register.models().unwrap().len(), 160);
        // nothing lies about
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_damaged_catalog_is_told_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let register = Register::at(folder.path().join("catalog.json"));
        for damage in ["{\"version\": 1, \"models\": {\"m\": ", "", "{\"version\": 9, \"models\": {}}"] {
            fs::write(register.path(), damage).unwrap();
            for error in [register.models().unwrap_err(), register.insert("m", &entry("/m"), true).unwrap_err()] {
                let told = error.to_string();
                assert!(told.contains("catalog.json") && told.contains("move it"), "{told}");
            }
            assert_eq!(fs::read_to_string(register.path()).unwrap(), damage);
        }
    }

    #[test]
    fn a_file_that_went_or_changed_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        let entry = entry(path.to_str().unwrap());
        assert_eq!(entry.presence(), Presence::Missing);
        fs::write(&path, "a").unwrap();
        assert_eq!(entry.presence(), Presence::Here);
        fs::write(&path, "ab").unwrap();
        assert_eq!(entry.presence(), Presence::Changed);
    }
}

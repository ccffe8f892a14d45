//! Which versions of which modules there are, and which of them serve. Pure.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use llambo_catalog::digest_of;
use llambo_edge::ModuleError;
use llambo_inference::{ModelName, TypeName};
use llambo_isolate::{Module, NodeType};

/// One version of a module.
#[derive(Clone)]
pub(crate) struct Version {
    pub(crate) number: u32,
    pub(crate) wasm: Arc<[u8]>,
    pub(crate) sha256: String,
    /// Whose limits it takes.
    pub(crate) node_type: TypeName,
    pub(crate) loaded_at: SystemTime,
    /// Once it has served: its isolates are counted on from there, and it need not be compiled again. Clones share it.
    pub(crate) made: Arc<OnceLock<Arc<NodeType>>>,
}

/// The versions of one name; one of them serves.
pub(crate) struct Row {
    pub(crate) serving: u32,
    pub(crate) versions: BTreeMap<u32, Version>,
}

/// All modules that are published.
#[derive(Default)]
pub(crate) struct Ledger {
    rows: BTreeMap<ModelName, Row>,
    /// The last number of each name, also of those that are gone: no two versions are ever called the same.
    last: BTreeMap<ModelName, u32>,
}

// === impl Version ===

impl Version {
    /// A new one, loaded now.
    pub(crate) fn new(number: u32, wasm: Arc<[u8]>, node_type: TypeName) -> Self {
        let sha256 = digest_of(&wasm);
        Self { number, wasm, sha256, node_type, loaded_at: SystemTime::now(), made: Arc::default() }
    }

    /// What errors call by the name it is published by.
    pub(crate) fn module(&self, name: &ModelName) -> Module {
        Module::from_bytes(&format!("`{name}`"), Arc::clone(&self.wasm))
    }
}

// === impl Ledger ===

impl Ledger {
    pub(crate) fn row(&self, name: &ModelName) -> Option<&Row> {
        self.rows.get(name)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = (&ModelName, &Row)> {
        self.rows.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The number of the next version of a name.
    pub(crate) fn next_number(&self, name: &ModelName) -> u32 {
        self.last.get(name).map_or(1, |last| last.saturating_add(1))
    }

    /// Puts a version in and lets it serve. Of the others the newest `kept` stay. Answers with the one that served before and with those
    /// that are gone.
    pub(crate) fn put(&mut self, name: &ModelName, version: Version, kept: usize) -> (Option<u32>, Vec<u32>) {
        let number = version.number;
        let last = self.last.entry(name.clone()).or_default();
        *last = number.max(*last);
        let before = self.rows.get(name).map(|row| row.serving);
        let row = self.rows.entry(name.clone()).or_insert_with(|| Row { serving: number, versions: BTreeMap::new() });
        row.serving = number;
        row.versions.insert(number, version);
        let others: Vec<u32> = row.versions.keys().copied().filter(|other| *other != number).collect();
        let gone = others[..others.len().saturating_sub(kept)].to_vec();
        row.versions.retain(|number, _| !gone.contains(number));
        (before, gone)
    }

    /// Lets another version serve. Answers with the one before; `None` if it is not there.
    pub(crate) fn serve(&mut self, name: &ModelName, number: u32) -> Option<u32> {
        let row = self.rows.get_mut(name).filter(|row| row.versions.contains_key(&number))?;
        Some(std::mem::replace(&mut row.serving, number))
    }

    /// Takes a name out.
    pub(crate) fn remove(&mut self, name: &ModelName) -> Option<Row> {
        self.rows.remove(name)
    }

    /// The version to go back to: the one asked for, or the newest of those before the one that serves.
    pub(crate) fn earlier(&self, name: &ModelName, asked: Option<u32>) -> Result<&Version, ModuleError> {
        let row = self.known(name)?;
        let found = match asked {
            Some(number) => row.versions.get(&number),
            None => row.versions.range(..row.serving).next_back().map(|(_, version)| version),
        };
        found.ok_or_else(|| ModuleError::UnknownVersion {
            what: asked.map_or_else(|| format!("a version before {}", row.serving), |number| format!("version {number}")),
            name: name.clone(),
            kept: row.versions.keys().map(u32::to_string).collect(),
        })
    }

    pub(crate) fn known(&self, name: &ModelName) -> Result<&Row, ModuleError> {
        self.rows.get(name).ok_or_else(|| ModuleError::Unknown {
            name: name.clone(),
            known: self.rows.keys().map(ToString::to_string).collect(),
        })
    }
}

// === impl Row ===

impl Row {
    pub(crate) fn served(&self) -> Option<&Version> {
        self.versions.get(&self.serving)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u32) -> Version {
        Version {
            number,
            wasm: Arc::new([]),
            sha256: String::new(),
            node_type: "tiny".into(),
            loaded_at: SystemTime::UNIX_EPOCH,
            made: Arc::default(),
        }
    }

    fn numbers(ledger: &Ledger, name: &str) -> Vec<u32> {
        ledger.row(&name.into()).map_or_else(Vec::new, |row| row.versions.keys().copied().collect())
    }

    #[test]
    fn going_back_twice_goes_back_two_versions_and_a_number_brings_any_of_them_back() {
        let (mut ledger, name) = (Ledger::default(), ModelName::from("a"));
        for number in 1..=3 {
            assert_eq!(ledger.next_number(&name), number);
            assert_eq!(ledger.put(&name, version(number), 3).0, (number > 1).then(|| number - 1));
        }
        for (back, before) in [(2, 3), (1, 2)] {
            assert_eq!(ledger.earlier(&name, None).map(|version| version.number), Ok(back));
            assert_eq!(ledger.serve(&name, back), Some(before));
        }
        let none = ledger.earlier(&name, None).map(|version| version.number).unwrap_err();
        assert_eq!(none.to_string(), "a version before 1 of `a` is not kept; there are: 1, 2, 3");
        assert_eq!(ledger.earlier(&name, Some(3)).map(|version| version.number), Ok(3));
        assert_eq!(ledger.earlier(&name, Some(7)).map(|version| version.number).unwrap_err().reason(), "UNKNOWN_VERSION");
        // what is loaded after going back is the newest all the same
        assert_eq!((ledger.next_number(&name), ledger.put(&name, version(4), 3).0), (4, Some(1)));
    }

    #[test]
    fn only_so_many_are_kept_and_the_one_that_serves_always_is() {
        let (mut ledger, name) = (Ledger::default(), ModelName::from("a"));
        for number in 1..=4 {
            ledger.put(&name, version(number), 2);
        }
        assert_eq!(numbers(&ledger, "a"), [2, 3, 4]);
        assert_eq!(ledger.serve(&name, 2), Some(4));
        assert_eq!(ledger.put(&name, version(5), 0), (Some(2), vec![2, 3, 4]));
        assert_eq!(numbers(&ledger, "a"), [5]);
    }

    #[test]
    fn a_name_that_was_gone_counts_on() {
        let (mut ledger, name) = (Ledger::default(), ModelName::from("a"));
        ledger.put(&name, version(1), 2);
        assert!(ledger.remove(&name).is_some() && ledger.len() == 0);
        assert_eq!(ledger.next_number(&name), 2);
        let unknown = ledger.known(&"b".into()).map(|_| ()).unwrap_err();
        assert_eq!(unknown.reason(), "UNKNOWN_MODULE");
    }
}

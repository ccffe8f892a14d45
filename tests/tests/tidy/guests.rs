//! The prebuilt guest modules are those whose checksums were committed.

use std::collections::BTreeMap;
use std::fs;

use sha2::{Digest, Sha256};

use crate::{assert_none, files, has_extension, path_of};

const SUMS: &str = "guest/prebuilt/SHA256SUMS";

#[test]
fn prebuilt_guests_have_the_checksums_beside_them() {
    let sums = fs::read_to_string(path_of(SUMS)).unwrap_or_else(|error| panic!("{SUMS}: {error}; run `cargo xtask guests`"));
    let modules = files().into_iter().filter(|file| file.starts_with("guest/prebuilt/") && has_extension(file, "wasm"));
    let modules = modules.map(|file| {
        let bytes = fs::read(path_of(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let sum: Vec<String> = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        (file.trim_start_matches("guest/prebuilt/").to_owned(), sum.concat())
    });
    let modules: BTreeMap<String, String> = modules.collect();
    assert!(!modules.is_empty(), "guest/prebuilt has no module: run `cargo xtask guests` and commit them");
    assert_none(&complaints(&sums, &modules));
}

/// Compares lines of `sha256sum` with modules and their sums, both by file name.
fn complaints(sums: &str, modules: &BTreeMap<String, String>) -> Vec<String> {
    let remedy = "if its source was meant to change, run `cargo xtask guests` and commit module and sums together";
    let listed = sums.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let listed: BTreeMap<&str, &str> = listed.map(|(sum, name)| (name.trim_start_matches([' ', '*']), sum)).collect();
    let mut complaints = Vec::new();
    for (name, sum) in modules {
        match listed.get(name.as_str()) {
            None => complaints.push(format!("guest/prebuilt/{name} is not listed in {SUMS}; {remedy}")),
            Some(expected) if expected != sum => {
                complaints.push(format!("guest/prebuilt/{name} has SHA-256 {sum}, and {SUMS} says {expected}; {remedy}"));
            }
            Some(_) => {}
        }
    }
    let missing = listed.keys().filter(|name| has_extension(name, "wasm") && !modules.contains_key(**name));
    complaints.extend(missing.map(|name| format!("{SUMS} lists {name}, which is not there; {remedy}")));
    complaints
}

#[test]
fn a_module_that_was_changed_added_or_lost_is_seen() {
    let modules = BTreeMap::from([("a.wasm".to_owned(), "aa".to_owned())]);
    assert_eq!(complaints("aa  a.wasm\n", &modules), Vec::<String>::new());
    assert_eq!(complaints("ab  a.wasm\n", &modules).len(), 1);
    assert_eq!(complaints("aa  a.wasm\nbb *b.wasm\n", &modules).len(), 1);
    assert_eq!(complaints("", &modules).len(), 1);
}

//! Rules of the house that the compiler cannot check. Each failure says what to do about it.
//!
//! Files are those that git knows or would add, so that a rule speaks before the commit and not after it.

mod arrows;
mod code;
mod guests;
mod texts;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The folder of the workspace.
fn root() -> PathBuf {
    // the runner's word first: the checkout may have moved since this was compiled
    let tests = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&tests).parent().expect("the tests' crate lies in the workspace").to_path_buf()
}

/// Paths, relative to the root and with `/`, of all files that belong to the project.
fn files() -> Vec<String> {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = git.output().expect("git runs");
    assert!(output.status.success(), "the list of files comes from git; run this test in a clone: {output:?}");
    let list = String::from_utf8(output.stdout).expect("paths are UTF-8");
    let mut files: Vec<String> = list.split_terminator('\0').map(str::to_owned).collect();
    // deleted, and not yet committed
    files.retain(|file| path_of(file).is_file());
    files.sort();
    files.dedup();
    files
}

fn path_of(file: &str) -> PathBuf {
    root().join(file)
}

fn has_extension(file: &str, extension: &str) -> bool {
    Path::new(file).extension().is_some_and(|found| found == extension)
}

/// Name and text of every file with `extension`.
fn texts_with(extension: &str) -> Vec<(String, String)> {
    let files = files().into_iter().filter(|file| has_extension(file, extension));
    files
        .map(|file| {
            let text = fs::read_to_string(path_of(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            (file, text)
        })
        .collect()
}

/// What `cargo metadata` says with these further words.
fn cargo_metadata(words: &[&str]) -> serde_json::Value {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args(["metadata", "--format-version", "1", "--offline"]).args(words);
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaint(s):\n{}\n", complaints.len(), complaints.join("\n"));
}

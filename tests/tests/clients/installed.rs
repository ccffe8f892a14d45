//! Clients as their registries have them, in `target/clients`: installed once for each list of versions.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Written last: holds the list of versions that was installed.
const DONE: &str = "installed";

/// A file of `tests/clients`.
pub(crate) fn suite(name: &str) -> PathBuf {
    let tests = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&tests).join("clients").join(name)
}

/// An interpreter that has the packages of `requirements.txt`.
pub(crate) fn python() -> PathBuf {
    let list = suite("python/requirements.txt");
    let folder = once("python", &fs::read_to_string(&list).unwrap(), |folder| {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder), "install python3 with its module venv");
        let pip = folder.join("bin/pip");
        run(
            Command::new(pip).args(["install", "--quiet", "--requirement"]).arg(&list),
            "the registry of packages must be reachable",
        );
    });
    folder.join("bin/python")
}

/// A folder with the suites and the packages of `package-lock.json`.
pub(crate) fn node() -> PathBuf {
    npm("node", &suite("node"), &["openai.test.mjs", "ai-sdk.test.mjs"])
}

/// The same for what drives a browser.
pub(crate) fn browser_suite() -> PathBuf {
    npm("browser", &suite("browser"), &["page.test.mjs"])
}

/// Where the page's sources are.
pub(crate) fn page_sources() -> PathBuf {
    suite("../../host/edge/page")
}

/// A folder with the page's sources and what it is made with.
pub(crate) fn page() -> PathBuf {
    npm("page", &page_sources(), &["build.mjs", "test.mjs", "tsconfig.json", "public", "src", "test"])
}

/// A folder with the packages of `package-lock.json`, and these files and folders as they are now: modules are looked for beside the file that names them.
fn npm(name: &str, from: &Path, files: &[&str]) -> PathBuf {
    let folder = once(name, &fs::read_to_string(from.join("package-lock.json")).unwrap(), |folder| {
        fs::create_dir_all(folder).unwrap();
        for name in ["package.json", "package-lock.json", ".npmrc"] {
            fs::copy(from.join(name), folder.join(name)).unwrap();
        }
        run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(folder), "install node and npm");
    });
    for name in files {
        let (from, to) = (from.join(name), folder.join(name));
        if from.is_file() {
            fs::copy(from, to).unwrap();
            continue;
        }
        // what is gone there must be gone here
        let _ = fs::remove_dir_all(&to);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    folder
}

/// Calls `install` unless the same was installed before, as a whole.
fn once(name: &str, versions: &str, install: impl FnOnce(&Path)) -> PathBuf {
    let tests = env::current_exe().unwrap();
    let target = tests.ancestors().nth(3).expect("tests lie in `release/deps` of the target folder");
    let folder = target.join("clients").join(name);
    if fs::read_to_string(folder.join(DONE)).is_ok_and(|done| done == versions) {
        return folder;
    }
    // there, and of another version or not finished; or not there
    let _ = fs::remove_dir_all(&folder);
    install(&folder);
    fs::write(folder.join(DONE), versions).unwrap();
    folder
}

fn run(command: &mut Command, remedy: &str) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}; {remedy}, or run `cargo xtask test`"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}; {remedy}\n{told}", output.status);
}

//! `cargo xtask setup`: what the build needs from the system, found or installed. `build`, `demo`, `test` and `scale`
//! begin with it.
//!
//! The list is that of llama-cpp-sys-2's build script: a C and a C++ compiler, cmake with make (or another generator), and
//! libclang for bindgen. The protocol needs no `protoc`: its compiler is a crate.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::arguments::{self, Failure, Flags, Rest};
use crate::packages::{Package, Rights, Source, is_on_path};
use crate::step::{self, say};
use crate::{environment, libclang};

/// Something the build needs.
struct Need {
    package: Package,
    what: &'static str,
    is_there: fn() -> bool,
}

const NEEDS: &[Need] = &[
    Need {
        package: Package::Compiler,
        what: "a C and a C++ compiler (`cc` and `c++`, or those named by CC and CXX)",
        is_there: has_compilers,
    },
    Need { package: Package::Make, what: "`make` (or the generator named by CMAKE_GENERATOR)", is_there: has_make },
    Need { package: Package::Cmake, what: "`cmake`", is_there: has_cmake },
    Need {
        package: Package::Libclang,
        what: "libclang and clang's headers (LIBCLANG_PATH and BINDGEN_EXTRA_CLANG_ARGS can name them)",
        is_there: has_libclang,
    },
];

/// What the suite `clients` needs besides: OpenAI's clients are run by their own languages.
const CLIENT_NEEDS: &[Need] = &[
    Need { package: Package::Python, what: "`python3` with the module `venv`", is_there: has_python },
    Need { package: Package::Node, what: "`node` and `npm`", is_there: has_node },
];

/// What the tests of the page need besides. It cannot be had everywhere, and they say so where it is not.
const BROWSER_NEEDS: &[Need] =
    &[Need { package: Package::Browser, what: "a `chromium` (LLAMBO_BROWSER can name one)", is_there: has_browser }];

fn has_compilers() -> bool {
    [("CC", "cc"), ("CXX", "c++")].iter().all(|(variable, default)| {
        let named = env::var(variable).ok().filter(|text| !text.trim().is_empty());
        // `CC="ccache gcc"` is common
        named.as_deref().unwrap_or(default).split_whitespace().all(|word| word.starts_with('-') || is_on_path(word))
    })
}

fn has_make() -> bool {
    env::var_os("CMAKE_GENERATOR").is_some() || is_on_path("make") || is_on_path("gmake")
}

fn has_cmake() -> bool {
    is_on_path(&env::var("CMAKE").unwrap_or_else(|_| "cmake".to_owned()))
}

fn has_libclang() -> bool {
    libclang::library().is_some_and(|library| libclang::has_headers(&library))
}

fn has_python() -> bool {
    step::output(Command::new("python3").args(["-c", "import venv, ensurepip"])).is_some()
}

fn has_node() -> bool {
    is_on_path("node") && is_on_path("npm")
}

fn has_browser() -> bool {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    env::var_os("LLAMBO_BROWSER").is_some() || names.into_iter().any(is_on_path)
}

fn missing(needs: &'static [Need]) -> Vec<&'static Need> {
    needs.iter().filter(|need| !(need.is_there)()).collect()
}

/// `cargo xtask setup`.
pub(crate) fn command(words: &[String]) -> Result<(), Failure> {
    arguments::parse(Flags { values: &[], switches: &[], rest: Rest::Refused }, words)?;
    run()?;
    let options: Vec<&str> = environment::current().iter().filter(|(_, value)| *value == "ON").map(|(name, _)| *name).collect();
    say(&format!("setup: everything is there; llama.cpp is built with {}", options.join(" ")));
    Ok(())
}

/// Makes sure that everything the build needs is there, and that cargo knows the processor.
///
/// # Errors
/// When something is missing and cannot be installed from here; the message says what to run.
pub(crate) fn run() -> Result<(), Failure> {
    install_missing(NEEDS)?;
    environment::save()
}

/// Makes sure that other languages' clients can be tested.
///
/// # Errors
/// As for [`run`].
pub(crate) fn clients() -> Result<(), Failure> {
    install_missing(CLIENT_NEEDS)
}

/// Makes sure that the page can be tested in a browser.
///
/// # Errors
/// As for [`run`].
pub(crate) fn browser() -> Result<(), Failure> {
    install_missing(BROWSER_NEEDS)
}

fn install_missing(all: &'static [Need]) -> Result<(), Failure> {
    let needs = missing(all);
    if needs.is_empty() {
        return Ok(());
    }
    for need in &needs {
        say(&format!("setup: missing: {}", need.what));
    }
    let packages: Vec<Package> = needs.iter().map(|need| need.package).collect();
    let Some(source) = Source::detect() else {
        return Err(by_hand(&needs, None, "no package manager that is known here (apt-get, dnf, pacman, zypper, brew)"));
    };
    let rights = Rights::detect(source);
    if rights == Rights::None {
        return Err(by_hand(&needs, Some(source), "not root, and `sudo -n` is not allowed to install"));
    }
    if let Some(words) = source.refresh() {
        // one broken source among many must not stop what the others can give
        if let Err(Failure::Failed(why)) = step::run("fetch the list of packages", &mut rights.command(&words)) {
            say(&format!("setup: going on with the old list: {why}"));
        }
    }
    let words = source.install(&packages);
    if let Err(Failure::Failed(why)) = step::run(&words.join(" "), &mut rights.command(&words)) {
        return Err(by_hand(&needs, Some(source), &why));
    }
    match missing(all) {
        still if still.is_empty() => Ok(()),
        still => Err(by_hand(&still, Some(source), "installed, and still not found")),
    }
}

fn by_hand(needs: &[&Need], source: Option<Source>, why: &str) -> Failure {
    let missing = needs.iter().map(|need| format!("\n  - {}", need.what)).collect::<Vec<_>>().concat();
    let packages: Vec<Package> = needs.iter().map(|need| need.package).collect();
    // names for a system we do not know: Debian's are the most widely understood
    let words = source.unwrap_or(Source::Apt).install(&packages).join(" ");
    let how = match source {
        Some(source) if source.needs_root() => format!("install it as root and try again:\n    sudo {words}"),
        Some(_) => format!("install it and try again:\n    {words}"),
        None => format!("install it and try again; on Debian or Ubuntu that is:\n    sudo {words}"),
    };
    // clang-sys looks nowhere else once this is set, and installing a package does not change it
    let set = env::var("LIBCLANG_PATH").ok().filter(|_| packages.contains(&Package::Libclang));
    let set = set
        .map_or_else(String::new, |path| format!("\nLIBCLANG_PATH is `{path}`: unset it, or let it name the folder of libclang"));
    Failure::Failed(format!(
        "more is needed than is installed, and it could not be installed from here: {why}{missing}\n{how}{set}"
    ))
}

/// Makes sure that `cargo nextest` can be run. False when it could not be installed: `cargo test` then has to do.
pub(crate) fn has_nextest() -> bool {
    is_cargo_command("nextest")
        || step::run(
            "install cargo-nextest, which runs the tests (several minutes, once)",
            environment::cargo().args(["install", "--locked", "cargo-nextest"]),
        )
        .inspect_err(|failure| say(&format!("    {failure:?}")))
        .is_ok()
}

/// Makes sure that `cargo fuzz` can be run by a nightly compiler.
pub(crate) fn needs_cargo_fuzz() -> Result<(), Failure> {
    let nightly = Command::new("rustup").args(["run", "nightly", "rustc", "--version"]).output();
    if !nightly.is_ok_and(|told| told.status.success()) {
        return Err(Failure::Failed("fuzzing needs a nightly compiler: `rustup toolchain install nightly`".into()));
    }
    if is_cargo_command("fuzz") {
        return Ok(());
    }
    step::run("install cargo-fuzz (a minute, once)", environment::cargo().args(["install", "--locked", "cargo-fuzz"]))
}

/// Makes sure that a part of the Rust toolchain, `cargo <command>`, is installed.
pub(crate) fn has_component(command: &str, component: &str) -> bool {
    is_cargo_command(command) || {
        let added = step::run(&format!("add {component}"), Command::new("rustup").args(["component", "add", component]));
        added.is_ok() && is_cargo_command(command)
    }
}

fn is_cargo_command(command: &str) -> bool {
    step::output(environment::cargo().args([command, "--version"])).is_some()
}

/// Where cargo puts what it builds.
///
/// # Errors
/// When cargo does not say.
pub(crate) fn target_folder() -> Result<PathBuf, Failure> {
    let metadata = step::output(environment::cargo().args(["metadata", "--no-deps", "--offline", "--format-version", "1"]));
    let value: Option<serde_json::Value> = metadata.and_then(|text| serde_json::from_str(&text).ok());
    let folder = value.as_ref().and_then(|value| value["target_directory"].as_str());
    folder
        .map(PathBuf::from)
        .ok_or_else(|| Failure::Failed("`cargo metadata` does not say where the target folder is".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_installed_is_named_with_the_command_to_run() {
        let needs: Vec<&Need> = NEEDS.iter().filter(|need| need.package == Package::Libclang).collect();
        let Failure::Failed(text) = by_hand(&needs, Some(Source::Apt), "not root") else { panic!("not a usage error") };
        assert!(text.contains("not root") && text.contains("libclang and clang's headers"), "{text}");
        assert!(text.ends_with("sudo apt-get install -y --no-install-recommends libclang-dev"), "{text}");
    }

    #[test]
    fn every_package_is_needed_once() {
        let mut packages: Vec<Package> = NEEDS.iter().map(|need| need.package).collect();
        packages.dedup();
        assert_eq!(packages.len(), NEEDS.len());
    }
}

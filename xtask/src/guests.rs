//! `cargo xtask guests [--check|--javascript]`: builds the Wasm guests and policies of `guest/` and compares them with the checked-in ones.
//!
//! Without `--check` it rewrites `guest/prebuilt/*.wasm`, their `SHA256SUMS` and `toolchain.txt`. With it nothing that is
//! checked in changes: equal bytes are demanded where the tools are those of `toolchain.txt`, since another compiler or linker
//! may give other bytes; where they are not, it says so. Either way the fresh guests lie in `guest/target/rebuilt/`
//! afterwards, so that tests can run on them as well. With `--javascript` it builds the policy in JavaScript, which is too large to
//! be checked in, with Node's `npm`.
//!
//! The compiler is the one of the `PATH` (or `RUSTC`) if it has a standard library for `wasm32-unknown-unknown`, as after
//! `rustup target add`. Else, on Debian and its kin, Debian's own is unpacked into `guest/.toolchain`: nothing is installed
//! and no root is needed. The linker `wasm-component-ld` comes with rustup's toolchains.

mod debian;

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Crates of the guests' workspace that become modules.
const GUESTS: [&str; 8] =
    ["default-engine", "draft-and-refine", "best-of", "tree-search", "chooser", "branches", "hostile", "caller"];
/// Programs of its crate `commands`, which become core modules.
const COMMANDS: [&str; 4] = ["wasmedge", "wasi-nn", "pointers", "calls"];
/// Crates that become policies, in a folder of that name.
const POLICIES: [&str; 8] = [
    "latency-aware", "shortest-queue", "tenant-budget", "complexity", "scale-to-load", "majority", "banned-words",
    "hostile-policy",
];
/// Built by scripts of their own, with compilers that few have: here their checksums are kept, and no more.
const OTHERS: [&str; 1] = ["policies/latency-aware-c.wasm"];
const TARGET: &str = "wasm32-unknown-unknown";
const COMMAND_TARGET: &str = "wasm32-wasip1";
/// Not by the name `wasm-ld`: older compilers tell a linker of that name twice which one it is.
const COMMAND_LINKER: &str = "rust-lld";
const LINKER: &str = "wasm-component-ld";
/// As in `guest/.cargo/config.toml`, which cargo does not read once flags come from here.
const STACK: &str = "-Clink-arg=-zstack-size=65536";

/// What builds the guests.
struct Toolchain {
    rustc: PathBuf,
    /// Put before the `PATH`: where rustup keeps the linkers.
    path: OsString,
    /// One line for each tool; equal lines promise equal bytes.
    versions: String,
}

/// Builds the guests, then rewrites or checks what is checked in.
///
/// # Errors
/// A sentence that says what is missing, failed or differs, and what to do about it.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let guest = guest_folder()?;
    let check_only = match args {
        [] => false,
        [flag] if flag == "--check" => true,
        [flag] if flag == "--javascript" => return javascript(&guest),
        _ => return Err("usage: cargo xtask guests [--check|--javascript]".into()),
    };
    let toolchain = Toolchain::find(&guest)?;
    let rebuilt = build(&guest, &toolchain)?;
    let prebuilt = guest.join("prebuilt");
    if check_only { check(&prebuilt, &rebuilt, &toolchain) } else { rewrite(&prebuilt, &rebuilt, &toolchain) }
}

/// `guest/` of the checkout that the current folder is in.
fn guest_folder() -> Result<PathBuf, String> {
    let here = env::current_dir().map_err(|e| format!("the current folder cannot be read: {e}"))?;
    here.ancestors()
        .map(|folder| folder.join("guest"))
        .find(|guest| guest.join("Cargo.toml").is_file() && guest.join("sdk").is_dir())
        .ok_or_else(|| format!("no `guest/Cargo.toml` in `{}` or above; run this inside the checkout", here.display()))
}

// === impl Toolchain ===

impl Toolchain {
    fn find(guest: &Path) -> Result<Self, String> {
        let own = env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
        let sysroot = PathBuf::from(output(Command::new(&own).args(["--print", "sysroot"]).current_dir(guest))?.trim());
        let host = host_of(&own, guest)?;
        let tools = sysroot.join("lib/rustlib").join(&host).join("bin");
        let folders = [tools.join("gcc-ld"), tools].into_iter().filter(|folder| folder.is_dir());
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(folders.chain(env::split_paths(&path))).map_err(|e| format!("the PATH is broken: {e}"))?;

        let rustc = if has_wasm_std(&sysroot) { own } else { debian::rustc(guest)? };
        let first_line = |program: &Path| {
            let text = output(Command::new(program).arg("--version").env("PATH", &path).current_dir(guest))?;
            Ok::<_, String>(text.lines().next().unwrap_or_default().trim().to_owned())
        };
        let linker = |name: &str| {
            first_line(Path::new(name)).map_err(|e| {
                let remedy = format!("it comes with rustup's Rust; else `cargo install {LINKER}` and install `lld`");
                format!("{e}\n`{name}` links the guests; {remedy}")
            })
        };
        let versions = [
            first_line(&cargo())?,
            first_line(&rustc)?,
            format!("host {}", host_of(&rustc, guest)?),
            linker(LINKER)?,
            linker("wasm-ld")?,
        ];
        Ok(Self { rustc, path, versions: versions.join("\n") + "\n" })
    }
}

fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

fn host_of(rustc: &Path, folder: &Path) -> Result<String, String> {
    let verbose = output(Command::new(rustc).arg("-vV").current_dir(folder))?;
    let host = verbose.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| format!("`{} -vV` names no host", rustc.display()))
}

fn has_wasm_std(sysroot: &Path) -> bool {
    [TARGET, COMMAND_TARGET].into_iter().all(|target| {
        let folder = sysroot.join("lib/rustlib").join(target).join("lib");
        fs::read_dir(folder)
            .is_ok_and(|files| files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libstd-")))
    })
}

/// Builds every guest and copies it to `guest/target/rebuilt/`. Returns that folder.
fn build(guest: &Path, toolchain: &Toolchain) -> Result<PathBuf, String> {
    let target = guest.join("target");
    let components = GUESTS.iter().chain(&POLICIES).flat_map(|name| ["--package", name]);
    cargo_build(guest, toolchain, TARGET, &components.collect::<Vec<_>>())?;
    cargo_build(guest, toolchain, COMMAND_TARGET, &["--package", "commands"])?;
    let rebuilt = target.join("rebuilt");
    make_folder(&rebuilt.join("policies"))?;
    let built = |kind: &str, name: &str| target.join(kind).join("release").join(format!("{name}.wasm"));
    for name in GUESTS {
        copy(&built(TARGET, &name.replace('-', "_")), &rebuilt.join(format!("{name}.wasm")))?;
    }
    for name in POLICIES {
        copy(&built(TARGET, &name.replace('-', "_")), &rebuilt.join(format!("policies/{name}.wasm")))?;
    }
    for file in OTHERS {
        copy(&guest.join("prebuilt").join(file), &rebuilt.join(file))?;
    }
    for name in COMMANDS {
        copy(&built(COMMAND_TARGET, name), &rebuilt.join(format!("{name}.wasm")))?;
    }
    Ok(rebuilt)
}

fn cargo_build(guest: &Path, toolchain: &Toolchain, target: &str, what: &[&str]) -> Result<(), String> {
    let mut flags = vec![STACK.to_owned(), format!("--remap-path-prefix={}=guest", guest.display())];
    if let Some(home) = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo"))) {
        // else the bytes would tell, and depend on, whose machine built them
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    }
    let mut command = Command::new(cargo());
    command.current_dir(guest).args(["build", "--locked", "--release", "--target", target]).args(what);
    for (key, _) in env::vars_os() {
        // settings meant for the host's build
        let text = key.to_string_lossy();
        let foreign = ["CARGO_PROFILE_", "CARGO_BUILD_", "CARGO_TARGET_", "RUSTC_"].iter().any(|prefix| text.starts_with(prefix));
        if foreign && text != "CARGO_BUILD_JOBS" || matches!(&*text, "RUSTFLAGS" | "CARGO_INCREMENTAL") {
            command.env_remove(&key);
        }
    }
    command
        .env("PATH", &toolchain.path)
        .env("RUSTC", &toolchain.rustc)
        .env("CARGO_TARGET_DIR", guest.join("target"))
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", LINKER)
        .env("CARGO_TARGET_WASM32_WASIP1_LINKER", COMMAND_LINKER)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    let status = command.status().map_err(|e| format!("`cargo` cannot be started: {e}"))?;
    if !status.success() {
        return Err("the guests do not build; the compiler's messages are above".into());
    }
    Ok(())
}

/// Builds the policy in JavaScript into `guest/target/`. Its script says where.
fn javascript(guest: &Path) -> Result<(), String> {
    let folder = guest.join("policies/latency-aware-js");
    for words in [&["install", "--no-fund", "--no-audit"][..], &["run", "build"]] {
        let status = Command::new("npm").args(words).current_dir(&folder).status();
        let status = status.map_err(|e| format!("`npm` cannot be started: {e}; it comes with Node, version 20 or newer"))?;
        if !status.success() {
            return Err(format!("`npm {}` failed in `{}`; its messages are above", words.join(" "), folder.display()));
        }
    }
    Ok(())
}

/// The files of all modules, as they lie in `prebuilt`.
fn modules() -> Vec<String> {
    let guests = GUESTS.iter().chain(&COMMANDS).map(|name| format!("{name}.wasm"));
    let policies = POLICIES.iter().map(|name| format!("policies/{name}.wasm"));
    guests.chain(policies).chain(OTHERS.map(str::to_owned)).collect()
}

fn rewrite(prebuilt: &Path, rebuilt: &Path, toolchain: &Toolchain) -> Result<(), String> {
    make_folder(&prebuilt.join("policies"))?;
    for file in modules() {
        copy(&rebuilt.join(&file), &prebuilt.join(&file))?;
    }
    write(&prebuilt.join("SHA256SUMS"), &checksums(prebuilt)?)?;
    write(&prebuilt.join("toolchain.txt"), &toolchain.versions)?;
    eprintln!("wrote {} guests to `{}`", modules().len(), prebuilt.display());
    Ok(())
}

fn check(prebuilt: &Path, rebuilt: &Path, toolchain: &Toolchain) -> Result<(), String> {
    if read_text(&prebuilt.join("SHA256SUMS"))? != checksums(prebuilt)? {
        return Err("guest/prebuilt: the modules are not those of `SHA256SUMS`; run `cargo xtask guests`".into());
    }
    let differing: Vec<_> = modules()
        .into_iter()
        .filter_map(|file| {
            let same = read(&prebuilt.join(&file)).and_then(|old| Ok(old == read(&rebuilt.join(&file))?));
            same.map(|same| (!same).then_some(file)).transpose()
        })
        .collect::<Result<_, _>>()?;
    if differing.is_empty() {
        eprintln!("guest/prebuilt: {} guests rebuilt, all byte for byte the same", modules().len());
        return Ok(());
    }
    let recorded = read_text(&prebuilt.join("toolchain.txt"))?;
    if recorded == toolchain.versions {
        return Err(format!(
            "guest/prebuilt: {} would be built differently from these sources; run `cargo xtask guests` and commit the result",
            differing.join(", ")
        ));
    }
    eprintln!(
        "guest/prebuilt: {} differ, as they may: they were built by\n{}and now by\n{}",
        differing.join(", "),
        indent(&recorded),
        indent(&toolchain.versions)
    );
    Ok(())
}

/// `SHA256SUMS` of all guests, as `sha256sum` writes and checks it.
fn checksums(folder: &Path) -> Result<String, String> {
    let files = modules();
    output(Command::new("sha256sum").args(&files).current_dir(folder))
        .or_else(|_| output(Command::new("shasum").args(["-a", "256"]).args(&files).current_dir(folder)))
}

/// Runs a command to its end; what it printed, or on failure a sentence with the last lines of its messages.
fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let result = command.output().map_err(|e| format!("`{name}` cannot be started: {e}"))?;
    if result.status.success() {
        return Ok(String::from_utf8_lossy(&result.stdout).into_owned());
    }
    let messages = String::from_utf8_lossy(&result.stderr);
    let lines: Vec<_> = messages.lines().collect();
    let tail = lines[lines.len().saturating_sub(5)..].join("\n");
    Err(format!("`{name}` failed ({}):\n{}", result.status, indent(&tail).trim_end()))
}

fn indent(text: &str) -> String {
    text.lines().flat_map(|line| ["    ", line, "\n"]).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("`{}` cannot be read: {e}", path.display()))
}

fn read_text(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("`{}` cannot be read: {e}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("`{}` cannot be written: {e}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    // its bytes alone: some linkers make modules executable
    fs::write(to, read(from)?).map_err(|e| format!("`{}` cannot be copied to `{}`: {e}", from.display(), to.display()))
}

fn make_folder(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|e| format!("`{}` cannot be created: {e}", path.display()))
}

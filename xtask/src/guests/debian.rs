//! Debian's Rust compiler, unpacked beside the guests where the one at hand cannot compile for Wasm. Nothing is installed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{TARGET, make_folder, output, write};

/// The Debian release whose rustc is new enough for the guests, and what of it has to be unpacked: the compiler, both
/// standard libraries, and every shared library it loads, so that it runs on any release.
const SUITE: &str = "trixie";
#[rustfmt::skip]
const PACKAGES: [&str; 18] = [
    "rustc", "libstd-rust-1.85", "libstd-rust-dev", "libstd-rust-dev-wasm32", "libllvm19", "libc6", "libstdc++6", "libgcc-s1",
    "libz3-4", "libedit2", "libzstd1", "libtinfo6", "libffi8", "zlib1g", "libxml2", "liblzma5", "libbsd0", "libmd0",
];
/// Where Debian itself says to download from; tried after the mirrors that this system names.
const DEBIAN: &str = "http://deb.debian.org/debian";
const KEYRINGS: [&str; 2] = ["/usr/share/keyrings/debian-archive-keyring.pgp", "/usr/share/keyrings/debian-archive-keyring.gpg"];

const INSTALL: &str = "install the targets with `rustup target add wasm32-unknown-unknown wasm32-wasip1`; without them, Debian and Ubuntu \
    need `apt-get`, `dpkg-deb`, the package `debian-archive-keyring` and a Debian mirror within reach";

/// Debian's compiler in `guest/.toolchain`, unpacked there at the first call.
pub(super) fn rustc(guest: &Path) -> Result<PathBuf, String> {
    let home = guest.join(".toolchain");
    let rustc = home.join("rustc");
    if output(Command::new(&rustc).arg("-V")).is_ok() {
        return Ok(rustc);
    }
    eprintln!(
        "no {TARGET} in this Rust; unpacking Debian's compiler into `{}` (195 MB to download, 750 MB on disk)",
        home.display()
    );
    // beside its final place until it is whole, so that an interrupted run leaves nothing that looks usable
    let scratch = guest.join("target/toolchain.partial");
    let unpacked = unpack_debian(&scratch).and_then(|root| {
        let _ = fs::remove_dir_all(&home);
        fs::rename(&root, &home).map_err(|e| format!("`{}` cannot be moved to `{}`: {e}", root.display(), home.display()))
    });
    let _ = fs::remove_dir_all(&scratch);
    unpacked.map_err(|cause| format!("{cause}\nno Rust compiler for {TARGET}: {INSTALL}"))?;
    Ok(rustc)
}

/// Downloads and unpacks [`PACKAGES`] below `scratch` and adds the script that starts the compiler. Returns the folder.
fn unpack_debian(scratch: &Path) -> Result<PathBuf, String> {
    let (libraries, loader) = match (env::consts::OS, env::consts::ARCH) {
        ("linux", "x86_64") => ("x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
        ("linux", "aarch64") => ("aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
        (os, arch) => return Err(format!("Debian's compiler is of no use on {os} {arch}")),
    };
    let mut causes = Vec::new();
    for mirror in mirrors() {
        let _ = fs::remove_dir_all(scratch);
        if let Err(cause) = download(scratch, &mirror) {
            causes.push(cause);
            continue;
        }
        let root = scratch.join("root");
        make_folder(&root)?;
        let debs = fs::read_dir(scratch.join("debs")).map_err(|e| format!("the downloads cannot be listed: {e}"))?;
        for deb in debs.flatten() {
            output(Command::new("dpkg-deb").arg("-x").arg(deb.path()).arg(&root))?;
        }
        let script = format!(
            "#!/bin/sh\n# Debian's rustc with the libraries it was built for, whichever this system has.\n\
             root=$(cd \"$(dirname \"$0\")\" && pwd)/usr\nlib=$root/lib/{libraries}\n\
             exec \"$lib/{loader}\" --argv0 \"$root/bin/rustc\" --library-path \"$lib\" \"$root/bin/rustc\" \"$@\"\n"
        );
        let rustc = root.join("rustc");
        write(&rustc, &script)?;
        output(Command::new("chmod").arg("755").arg(&rustc))?;
        output(Command::new(&rustc).arg("-V"))?;
        return Ok(root);
    }
    Err(causes.join("\n"))
}

/// The Debian mirrors of this system's apt, then Debian's own address.
fn mirrors() -> Vec<String> {
    let targets =
        output(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI) $(ORIGIN)", "Created-By: Packages"]));
    let mut found: Vec<String> = Vec::new();
    for line in targets.unwrap_or_default().lines() {
        // the origin is known only where lists were fetched before; a mirror without the release is passed over in a moment
        let (uri, origin) = line.split_once(' ').unwrap_or((line, ""));
        let uri = uri.trim_end_matches('/').to_owned();
        let perhaps_debian = origin == "Debian" || origin.is_empty() || origin.starts_with('$');
        if perhaps_debian && !uri.contains("security") && !found.contains(&uri) {
            found.push(uri);
        }
    }
    if !found.iter().any(|uri| uri == DEBIAN) {
        found.push(DEBIAN.into());
    }
    found
}

/// Fetches [`PACKAGES`] into `scratch/debs` with lists and state of their own, apart from the system's.
fn download(scratch: &Path, mirror: &str) -> Result<(), String> {
    for folder in ["lists/partial", "cache/archives/partial", "sources", "debs"] {
        make_folder(&scratch.join(folder))?;
    }
    let signed = KEYRINGS.into_iter().find(|file| Path::new(file).is_file()).map(|file| format!("Signed-By: {file}\n"));
    let source = format!("Types: deb\nURIs: {mirror}\nSuites: {SUITE}\nComponents: main\n{}", signed.unwrap_or_default());
    write(&scratch.join("sources/debian.sources"), &source)?;
    write(&scratch.join("status"), "")?;
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(scratch.join("debs")).arg("-qq");
        // as root too it may write there; no translations; a mirror out of reach is an error and not a warning
        for option in ["APT::Sandbox::User=root", "Acquire::Languages=none", "APT::Update::Error-Mode=any"] {
            command.args(["-o", option]);
        }
        let own =
            ["Etc::sourcelist=none", "Etc::sourceparts=sources", "State::lists=lists", "State::status=status", "Cache=cache"];
        for (key, path) in own.iter().filter_map(|dir| dir.split_once('=')) {
            command.arg("-o").arg(format!("Dir::{key}={}", scratch.join(path).display()));
        }
        output(command.args(args)).map(drop).map_err(|e| format!("{SUITE} from {mirror}: {e}"))
    };
    apt(&["update"])?;
    apt(&[&["download"], &PACKAGES[..]].concat())
}

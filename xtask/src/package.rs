//! `cargo xtask package`: programs that run on other machines than the one they were built on.
//!
//! What `cargo xtask build` makes is for this processor and its like. Here llama.cpp becomes modules that lie beside the programs: its code
//! for each kind of processor, of which a host loads the best that its machine can run, and drivers for graphics cards. A package
//! can be moved anywhere as a whole:
//!
//! ```text
//! bin/llambo  bin/llamboctl  lib/llambo/libllama.so...  lib/llambo/libggml-cpu-zen4.so...  lib/llambo/libggml-cuda.so
//! ```
//!
//! A driver for graphics cards is built with its maker's compiler, from exactly the source that the programs were built with: ggml compares
//! one number, and more than that must fit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::arguments::{self, Failure, Flags, Rest};
use crate::packages::is_on_path;
use crate::{environment, setup, step};

pub(crate) const SYNOPSIS: &str = "package [--into FOLDER] [--cuda] [--cuda-architectures LIST]";

const FLAGS: Flags = Flags { values: &["--into", "--cuda-architectures"], switches: &["--cuda"], rest: Rest::Refused };

/// The crate whose source and libraries these are.
const LLAMA: &str = "llama-cpp-sys-2";
/// Programs find the libraries beside them, and these find each other.
const LINK: &str = "-C link-arg=-Wl,-rpath,$ORIGIN/../lib/llambo -C link-arg=-Wl,--disable-new-dtags";
/// Turing to Hopper, and what later ones can compile for themselves.
const ARCHITECTURES: &str = "75-real;80-real;86-real;89-real;90-real;90-virtual";

/// `cargo xtask package`.
pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let parsed = arguments::parse(FLAGS, words)?;
    if !cfg!(target_os = "linux") {
        return Err(Failure::Failed("packages are made on Linux only so far".to_owned()));
    }
    if parsed.has("--cuda") && !has_nvcc() {
        let what = "`--cuda` needs NVIDIA's compiler: install the CUDA toolkit, and put `nvcc` on the path or name it by CUDACXX";
        return Err(Failure::Failed(what.to_owned()));
    }
    setup::run()?;
    let work = setup::target_folder()?.join("package");
    let into = parsed.text("--into").map_or_else(|| work.join("llambo"), |folder| PathBuf::from(arguments::from_here(folder)));
    let (bin, lib) = (into.join("bin"), into.join("lib/llambo"));
    // a module of another source would be loaded beside those of this one
    let _ = fs::remove_dir_all(&lib);
    for folder in [&bin, &lib] {
        fs::create_dir_all(folder).map_err(|error| Failure::because(format!("cannot make `{}`", folder.display()), error))?;
    }
    let libraries = build(&work)?;
    for program in ["llambo", "llamboctl"] {
        copy(&work.join("release").join(program), &bin.join(program))?;
    }
    let mut n_variants = 0;
    for folder in [libraries.join("lib"), libraries.join("backends")] {
        for file in files(&folder)?.into_iter().filter(|file| name(file).contains(".so")) {
            n_variants += usize::from(name(&file).starts_with("libggml-cpu"));
            copy(&file, &lib.join(name(&file)))?;
        }
    }
    if parsed.has("--cuda") {
        let architectures = parsed.text("--cuda-architectures").unwrap_or(ARCHITECTURES);
        copy(&cuda(&work, architectures)?, &lib.join("libggml-cuda.so"))?;
    }
    if n_variants == 0 {
        return Err(Failure::Failed(format!("{LLAMA} built no module for processors in `{}`", libraries.display())));
    }
    println!(
        "{}: {n_variants} variants of the processor's code; `{} check` says which one is used",
        into.display(),
        bin.join("llambo").display()
    );
    Ok(())
}

fn has_nvcc() -> bool {
    std::env::var_os("CUDACXX").is_some() || is_on_path("nvcc")
}

/// Builds the programs and says where llama.cpp's libraries are.
fn build(work: &Path) -> Result<PathBuf, Failure> {
    let words = ["build", "--release", "-p", "llambo", "-p", "llamboctl", "--features", "llambo/modules", "--target-dir"];
    let mut cargo = environment::cargo();
    // variants for processors with AMX are among them, whatever this one has
    cargo.args(words).arg(work).env("RUSTFLAGS", LINK).env("CXXFLAGS", environment::amx_repair());
    step::run("build the programs, and llama.cpp for every kind of processor (20 to 40 minutes on two cores)", &mut cargo)?;
    // built by now: this only asks where
    let told = step::output(cargo.arg("--message-format=json").stdin(Stdio::null())).unwrap_or_default();
    let messages = told.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut folders = messages.filter(|message| {
        message["reason"] == "build-script-executed" && message["package_id"].as_str().is_some_and(|id| id.contains(LLAMA))
    });
    let folder = folders.next().and_then(|message| message["out_dir"].as_str().map(PathBuf::from));
    folder.ok_or_else(|| Failure::Failed(format!("cargo does not say where {LLAMA} was built")))
}

/// Builds the driver for NVIDIA's cards and says where it is.
fn cuda(work: &Path, architectures: &str) -> Result<PathBuf, Failure> {
    let (source, build) = (work.join("ggml-source"), work.join("cuda"));
    let _ = fs::remove_dir_all(&source);
    copy_folder(&ggml_source()?, &source)?;
    // published crates leave this file out, and cmake wants to install it
    let template = source.join("ggml.pc.in");
    fs::write(&template, "").map_err(|error| Failure::because(format!("cannot write `{}`", template.display()), error))?;
    let options = [
        "-DBUILD_SHARED_LIBS=ON", "-DGGML_BACKEND_DL=ON", "-DGGML_NATIVE=OFF", "-DGGML_CPU=OFF", "-DGGML_CUDA=ON",
        "-DGGML_CUDA_NCCL=OFF",
    ];
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(&source).arg("-B").arg(&build).args(options).arg("-DCMAKE_BUILD_TYPE=Release");
    step::run("configure the module for NVIDIA's cards", configure.arg(format!("-DCMAKE_CUDA_ARCHITECTURES={architectures}")))?;
    let mut make = Command::new("cmake");
    make.arg("--build").arg(&build).args(["--parallel", "--target", "ggml-cuda"]);
    step::run("build the module for NVIDIA's cards (up to an hour of processor time for each architecture)", &mut make)?;
    ["bin/libggml-cuda.so", "src/ggml-cuda/libggml-cuda.so"]
        .map(|path| build.join(path))
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| Failure::Failed(format!("cmake left no `libggml-cuda.so` in `{}`", build.display())))
}

/// Where cargo keeps the source that the programs are built with.
fn ggml_source() -> Result<PathBuf, Failure> {
    let told = step::output(environment::cargo().args(["metadata", "--offline", "--format-version", "1"])).unwrap_or_default();
    let metadata: serde_json::Value = serde_json::from_str(&told).unwrap_or_default();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest = packages.filter(|package| package["name"] == LLAMA).find_map(|package| package["manifest_path"].as_str());
    manifest
        .and_then(|path| Some(Path::new(path).parent()?.join("llama.cpp/ggml")))
        .ok_or_else(|| Failure::Failed(format!("`cargo metadata` does not know {LLAMA}")))
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(folder).map_err(|error| Failure::because(format!("cannot read `{}`", folder.display()), error))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// Copies a file; a link stays one.
fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let _ = fs::remove_file(to);
    let copied = match fs::read_link(from) {
        Ok(target) => std::os::unix::fs::symlink(target, to),
        Err(_) => fs::copy(from, to).map(drop),
    };
    copied.map_err(|error| Failure::because(format!("cannot copy `{}` to `{}`", from.display(), to.display()), error))
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to).map_err(|error| Failure::because(format!("cannot make `{}`", to.display()), error))?;
    for file in files(from)? {
        let target = to.join(name(&file));
        if file.is_dir() { copy_folder(&file, &target)? } else { copy(&file, &target)? }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_copied_with_their_links() {
        let folder = std::env::temp_dir().join(format!("llambo-package-{}", std::process::id()));
        fs::create_dir_all(folder.join("from/deep")).unwrap();
        fs::write(folder.join("from/deep/liba.so.1"), "a").unwrap();
        std::os::unix::fs::symlink("liba.so.1", folder.join("from/deep/liba.so")).unwrap();
        // twice, since a package may be made again
        for _ in 0..2 {
            copy_folder(&folder.join("from"), &folder.join("to")).unwrap();
        }
        assert_eq!(fs::read_link(folder.join("to/deep/liba.so")).unwrap(), Path::new("liba.so.1"));
        assert_eq!(fs::read_to_string(folder.join("to/deep/liba.so")).unwrap(), "a");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_source_of_ggml_is_where_cargo_keeps_it() {
        assert!(ggml_source().unwrap().join("src/ggml-cuda").is_dir());
    }
}

//! Where libclang is, looked for in the way of the clang-sys crate: bindgen, which reads llama.cpp's headers, loads what
//! that finds. Looking elsewhere would find libraries that the build then misses.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::step;

/// Finds libclang's shared library. None if the build would not find one either.
pub(crate) fn library() -> Option<PathBuf> {
    if let Some(path) = env::var_os("LIBCLANG_PATH") {
        // clang-sys looks nowhere else once this is set
        let path = PathBuf::from(path);
        return if path.is_file() { Some(path) } else { library_in(&path) };
    }
    search_folders().iter().find_map(|folder| library_in(folder))
}

/// Whether clang's own headers (`stddef.h` and the like), which bindgen needs beside the library, can be found.
/// Debian's `libclang1` comes without them, `libclang-dev` with them.
pub(crate) fn has_headers(library: &Path) -> bool {
    if env::var_os("BINDGEN_EXTRA_CLANG_ARGS").is_some() || step::output(Command::new("clang").arg("--version")).is_some() {
        return true;
    }
    let library = library.canonicalize().unwrap_or_else(|_| library.to_path_buf());
    let near = library.parent().map(|folder| folder.join("clang"));
    let standard = ["/usr/lib/clang", "/usr/lib64/clang", "/usr/local/lib/clang"].map(PathBuf::from);
    let llvm = subfolders(Path::new("/usr/lib")).into_iter().map(|folder| folder.join("lib/clang"));
    near.into_iter()
        .chain(standard)
        .chain(llvm)
        .flat_map(|folder| subfolders(&folder))
        .any(|version| version.join("include/stddef.h").is_file())
}

fn search_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let llvm_config = env::var_os("LLVM_CONFIG_PATH").unwrap_or_else(|| "llvm-config".into());
    if let Some(prefix) = step::output(Command::new(llvm_config).arg("--prefix")) {
        folders.extend(["lib", "lib64"].map(|name| Path::new(&prefix).join(name)));
    }
    for variable in ["LD_LIBRARY_PATH", "LIBRARY_PATH"] {
        folders.extend(env::var_os(variable).iter().flat_map(env::split_paths));
    }
    if cfg!(target_os = "macos") {
        let xcode = step::output(Command::new("xcode-select").arg("--print-path"));
        folders.extend(xcode.map(|path| Path::new(&path).join("Toolchains/XcodeDefault.xctoolchain/usr/lib")));
        folders.push("/Library/Developer/CommandLineTools/usr/lib".into());
        folders.extend(subfolders(Path::new("/usr/local/opt")).into_iter().map(|folder| folder.join("lib")));
    }
    // clang-sys: /usr/local/llvm*/lib*, /usr/local/lib*, /usr/lib* and two levels of folders in them
    for prefix in ["/usr/local", "/usr"] {
        let tops =
            subfolders(Path::new(prefix)).into_iter().filter(|folder| starts_with(folder, "lib") || starts_with(folder, "llvm"));
        for top in tops {
            let below = subfolders(&top);
            folders.extend(below.iter().flat_map(|folder| subfolders(folder)));
            folders.extend(below);
            folders.push(top);
        }
    }
    folders
}

fn library_in(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| is_libclang(path)).collect();
    found.sort();
    found.pop()
}

fn is_libclang(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(OsStr::to_str) else { return false };
    // a link to a library that was uninstalled still has its name
    let fits = name == "libclang.dylib" || name == "libclang.so" || versioned(name);
    fits && path.exists()
}

/// `libclang.so.14`, `libclang-14.so`, `libclang-14.so.13`, but not `libclang-cpp.so.14`.
fn versioned(name: &str) -> bool {
    if let Some(version) = name.strip_prefix("libclang.so.") {
        return version.starts_with(|c: char| c.is_ascii_digit());
    }
    let Some((version, _)) = name.strip_prefix("libclang-").and_then(|rest| rest.split_once(".so")) else { return false };
    version.starts_with(|c: char| c.is_ascii_digit())
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn starts_with(path: &Path, prefix: &str) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_distributions_name_of_the_library_is_known() {
        for name in ["libclang.so.1", "libclang.so.18.1", "libclang-14.so", "libclang-14.so.13"] {
            assert!(versioned(name), "{name}");
        }
        for name in ["libclang-cpp.so.14", "libclang_rt.asan-x86_64.so", "libclangAST.a", "libclang.so.old"] {
            assert!(!versioned(name), "{name}");
        }
    }

    #[test]
    fn the_library_is_found_by_its_name_in_a_folder() {
        let folder = env::temp_dir().join(format!("llambo-libclang-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("libclang-cpp.so.14"), "").unwrap();
        assert_eq!(library_in(&folder), None);
        fs::write(folder.join("libclang-14.so.13"), "").unwrap();
        assert_eq!(library_in(&folder), Some(folder.join("libclang-14.so.13")));
        fs::remove_dir_all(&folder).unwrap();
    }
}

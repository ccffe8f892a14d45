//! The environment of every build: which processor features llama.cpp is compiled for.
//!
//! llama-cpp-sys-2 compiles llama.cpp for AVX2 unless it is told more. On a processor with AVX-512 that is 3.3 times
//! slower than it could be. Telling it `native` is no answer: that also turns on AVX512-FP16, with which decoding with
//! an F16 cache takes twice as long. So the features are detected here and set one by one, as the `GGML_*` variables that
//! its build script hands to cmake. Two traps lie on the way:
//!
//! - The build script notices a change only of variables that were set when it last ran. `.cargo/llama.toml` therefore sets
//!   all of them, always, and what is detected here replaces the values.
//! - A build with other values is another build of llama.cpp, about ten processor minutes. So that plain `cargo` and
//!   editors agree with `cargo xtask`, [`save`] writes the values to `target/cpu.toml`, which `.cargo/config.toml`
//!   includes. `cargo xtask env` prints them for tools that do not read it.
//!
//! AMX needs one more thing: GCC 12 miscompiles the tile configuration (see `xtask/include/amx_tile_load.h`), so that header is
//! included by force through `CXXFLAGS`.
//!
//! Programs built so run on this processor and its like. `GGML_*` variables already in the environment are replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::arguments::{self, Failure, Flags, Rest};

/// The five features that GCC's and ggml's "AVX512" stand for together.
const AVX512: &[&str] = &["avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"];

/// Each option of ggml, the features it needs besides its own name's, and whether those of [`AVX512`] are among them.
const OPTIONS: &[(&str, &[&str], Base)] = &[
    ("GGML_SSE42", &["sse4.2"], Base::Any),
    ("GGML_AVX", &["avx"], Base::Any),
    ("GGML_AVX2", &["avx2"], Base::Any),
    ("GGML_BMI2", &["bmi2"], Base::Any),
    ("GGML_F16C", &["f16c"], Base::Any),
    ("GGML_FMA", &["fma"], Base::Any),
    ("GGML_AVX_VNNI", &["avxvnni"], Base::WithoutAvx512),
    ("GGML_AVX512", &[], Base::Avx512),
    ("GGML_AVX512_VBMI", &["avx512vbmi"], Base::Avx512),
    ("GGML_AVX512_VNNI", &["avx512vnni"], Base::Avx512),
    ("GGML_AVX512_BF16", &["avx512bf16"], Base::Avx512),
    // ggml's AMX code uses all three
    ("GGML_AMX_TILE", AMX, Base::Avx512),
    ("GGML_AMX_INT8", AMX, Base::Avx512),
];
const AMX: &[&str] = &["amx_tile", "amx_int8", "avx512vnni"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    Any,
    Avx512,
    /// AVX-VNNI is AVX512-VNNI for processors without AVX-512; with both, the wider one serves.
    WithoutAvx512,
}

/// Variables that select llama.cpp's code for a processor with `features`. Empty where ggml's x86 options do not apply.
///
/// Features carry Rust's names, and Linux's for AMX. `header` is the repair for AMX; `cxxflags` are the caller's own.
fn variables(features: Option<&BTreeSet<&str>>, header: &Path, cxxflags: Option<&str>) -> BTreeMap<&'static str, String> {
    let Some(features) = features else { return BTreeMap::new() };
    let has = |names: &[&str]| names.iter().all(|name| features.contains(name));
    let mut variables: BTreeMap<&'static str, String> = OPTIONS
        .iter()
        .map(|(option, needed, base)| {
            let fits = match base {
                Base::Any => true,
                Base::Avx512 => has(AVX512),
                Base::WithoutAvx512 => !has(AVX512),
            };
            (*option, if fits && has(needed) { "ON" } else { "OFF" }.to_owned())
        })
        .collect();
    if variables["GGML_AMX_TILE"] == "ON" {
        let repair = format!("-include {}", header.display());
        // a shell that evaluated `cargo xtask env` has it already; twice would be another value, and a rebuild
        let flags = match cxxflags.map(str::trim).filter(|flags| !flags.is_empty()) {
            Some(flags) if flags.contains(&repair) => flags.to_owned(),
            Some(flags) => format!("{flags} {repair}"),
            None => repair,
        };
        variables.insert("CXXFLAGS", flags);
    }
    variables
}

/// What this processor can do. None where it is not an x86-64 one.
#[cfg(target_arch = "x86_64")]
#[expect(clippy::unnecessary_wraps, reason = "other processors give None")]
fn detected() -> Option<BTreeSet<&'static str>> {
    macro_rules! detect {
        ($($name:tt)*) => { [$(($name, std::arch::is_x86_feature_detected!($name))),*] };
    }
    let std_knows = detect!["sse4.2" "avx" "avx2" "bmi2" "f16c" "fma" "avxvnni" "avx512f" "avx512cd" "avx512vl" "avx512dq"
        "avx512bw" "avx512vbmi" "avx512vnni" "avx512bf16"];
    let mut features: BTreeSet<&'static str> = std_knows.into_iter().filter_map(|(name, yes)| yes.then_some(name)).collect();
    // std detects AMX only in nightly compilers
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    features.extend(["amx_tile", "amx_int8"].iter().filter(|name| flags.split_whitespace().any(|flag| flag == **name)));
    Some(features)
}

/// What this processor can do. None where it is not an x86-64 one.
#[cfg(not(target_arch = "x86_64"))]
fn detected() -> Option<BTreeSet<&'static str>> {
    None
}

/// The variables for this machine.
pub(crate) fn current() -> BTreeMap<&'static str, String> {
    for_this_machine(env::var("CXXFLAGS").ok().as_deref())
}

fn for_this_machine(cxxflags: Option<&str>) -> BTreeMap<&'static str, String> {
    variables(detected().as_ref(), &root().join("xtask/include/amx_tile_load.h"), cxxflags)
}

/// Compiler flags, the caller's own among them, with the repair for AMX.
pub(crate) fn amx_repair() -> String {
    let features: BTreeSet<&str> = AVX512.iter().chain(AMX).copied().collect();
    let header = root().join("xtask/include/amx_tile_load.h");
    variables(Some(&features), &header, env::var("CXXFLAGS").ok().as_deref()).remove("CXXFLAGS").unwrap_or_default()
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    // set by `cargo run`, and right also after the checkout was moved with its target folder
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// `cargo`, in the workspace and with the build's environment.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).envs(current());
    cargo
}

/// Writes the variables to `target/cpu.toml`, where `.cargo/config.toml` includes them for every other call of cargo.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn save() -> Result<(), Failure> {
    let path = root().join("target/cpu.toml");
    // without the caller's own flags: they may not be there next time, and cargo takes them from the environment anyway
    let text = as_cargo_config(&for_this_machine(None));
    if fs::read_to_string(&path).is_ok_and(|now| now == text) {
        return Ok(());
    }
    fs::create_dir_all(root().join("target"))
        .and_then(|()| fs::write(&path, text))
        .map_err(|error| Failure::because(format!("cannot write `{}`", path.display()), error))
}

fn as_cargo_config(variables: &BTreeMap<&str, String>) -> String {
    // a JSON string is a TOML string too
    let lines = variables.iter().map(|(name, value)| format!("{name} = {}\n", serde_json::Value::from(value.as_str())));
    format!("# Written by `cargo xtask setup` for this machine's processor.\n[env]\n{}", lines.collect::<Vec<_>>().concat())
}

/// `cargo xtask env`: shell lines that set the build's environment.
pub(crate) fn command(words: &[String]) -> Result<(), Failure> {
    arguments::parse(Flags { values: &[], switches: &[], rest: Rest::Refused }, words)?;
    for (name, value) in current() {
        println!("export {name}='{}'", value.replace('\'', r"'\''"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(features: &[&str]) -> Vec<&'static str> {
        let variables = variables(Some(&features.iter().copied().collect()), Path::new("/x/amx.h"), None);
        variables.into_iter().filter(|(name, value)| *name == "CXXFLAGS" || value == "ON").map(|(name, _)| name).collect()
    }

    fn with_avx512(more: &[&'static str]) -> Vec<&'static str> {
        [&["avx", "avx2"], AVX512, more].concat()
    }

    #[test]
    fn each_option_needs_all_of_its_features() {
        assert_eq!(on(&["avx", "avx2", "fma"]), ["GGML_AVX", "GGML_AVX2", "GGML_FMA"]);
        assert_eq!(on(&with_avx512(&["avx512vnni"])), ["GGML_AVX", "GGML_AVX2", "GGML_AVX512", "GGML_AVX512_VNNI"]);
        // Knights Landing: avx512f and avx512cd only
        assert_eq!(on(&["avx512f", "avx512cd", "avx512vnni"]), Vec::<&str>::new());
    }

    #[test]
    fn avx_vnni_is_for_processors_without_avx512() {
        assert_eq!(on(&["avx2", "avxvnni"]), ["GGML_AVX2", "GGML_AVX_VNNI"]);
        assert!(!on(&with_avx512(&["avxvnni"])).contains(&"GGML_AVX_VNNI"));
    }

    #[test]
    fn amx_is_used_only_whole_and_with_its_repair() {
        let whole = on(&with_avx512(AMX));
        for name in ["GGML_AMX_TILE", "GGML_AMX_INT8", "CXXFLAGS"] {
            assert!(whole.contains(&name), "{name} is missing in {whole:?}");
        }
        assert!(!on(&with_avx512(&["amx_tile", "avx512vnni"])).contains(&"GGML_AMX_TILE"));
    }

    #[test]
    fn the_repair_is_added_to_the_callers_flags_once() {
        let features: BTreeSet<&str> = with_avx512(AMX).into_iter().collect();
        let header = Path::new("/x/amx.h");
        let first = variables(Some(&features), header, Some("-g"))["CXXFLAGS"].clone();
        assert_eq!(first, "-g -include /x/amx.h");
        assert_eq!(variables(Some(&features), header, Some(&first))["CXXFLAGS"], first);
    }

    #[test]
    fn every_option_has_its_default_in_the_cargo_configuration() {
        let text = fs::read_to_string(root().join(".cargo/llama.toml")).unwrap();
        let named: BTreeSet<&str> = text.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name).collect();
        let known: BTreeSet<&str> = OPTIONS.iter().map(|(option, ..)| *option).collect();
        assert_eq!(named, known, "`.cargo/llama.toml` and OPTIONS must name the same variables");
    }

    #[test]
    fn values_are_quoted_for_cargo() {
        let text = as_cargo_config(&BTreeMap::from([("CXXFLAGS", r#"-DX="a b""#.to_owned())]));
        assert!(text.ends_with("[env]\nCXXFLAGS = \"-DX=\\\"a b\\\"\"\n"), "{text}");
    }
}

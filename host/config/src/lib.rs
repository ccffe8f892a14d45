//! cluster-config.yaml: its schema, its defaults and what is wrong with it.
//!
//! One file says everything a host is started with. It is read once, as a whole: every mistake in it is reported together,
//! each with its line, its column and the key it is about, and no configuration comes out of a file that has one.
//!
//! The text becomes a tree that knows where each value stands (`tree`); a decoder reads values out of it, notes what is wrong
//! and goes on (`decode`); the keys with their defaults and ranges are in `sections`. The shipped file describes every key
//! for people.
//!
//! This crate opens the one file it is given and nothing else: it does not look whether models, modules or folders exist,
//! and it knows nothing of the program that will use them.

mod decode;
mod error;
mod schema;
mod sections;
mod spelling;
mod tree;
mod units;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]
mod tests;

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

pub use self::{
    error::{ConfigError, ConfigErrors},
    schema::{
        Access, Balancing, Cache, Catalog, Classifier, Config, Exposure, FilePath, Hibernation, KvType, LogFormat, Logging,
        Metrics, ModelConfig, ModelSource, ModuleSource, Modules, Network, OtlpProtocol, Permission, Policies, Queue, Quota,
        RequestBudget, Scaling, Sessions, Shutdown, Strategy, Tasks, TenantConfig, Tls, Tracing, TypeConfig,
    },
    sections::is_name,
};

use self::sections::Accepted;

/// The shipped cluster-config.yaml: every key with its description, and 1,000 small isolates on the built-in model.
pub const DEFAULT: &str = include_str!("../../../cluster-config.yaml");

/// The largest file that is read, in bytes. A file that lists every key for 1,000 node types has under 1 MiB.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

// === impl Config ===

impl Config {
    /// Reads and checks a file, YAML or JSON. Blocks while it reads. Relative paths in the file count from its folder.
    ///
    /// # Errors
    /// Everything that is wrong with the file, in the order in which it stands there; one error without a place when the
    /// file cannot be read or is larger than [`MAX_FILE_BYTES`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        Self::load_as(path.as_ref(), Accepted::Nothing)
    }

    /// The same as if the file said `network.insecure: true`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_insecure(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        Self::load_as(path.as_ref(), Accepted::Insecure)
    }

    fn load_as(path: &Path, accepted: Accepted) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        let bytes = read(path).map_err(|message| ConfigErrors::whole_file(&name, message))?;
        match String::from_utf8(bytes) {
            Ok(text) => decode_text(&text, &name, folder_of(path), accepted),
            Err(error) => Err(not_utf8(&name, error.as_bytes(), error.utf8_error().valid_up_to())),
        }
    }

    /// Checks a configuration that is already in memory, YAML or JSON.
    ///
    /// `file_name` is what errors call it; relative paths in it count from that file's folder. Nothing is read.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order in which it stands there.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, ConfigErrors> {
        decode_text(text, file_name, folder_of(Path::new(file_name)), Accepted::Nothing)
    }

    /// What [`DEFAULT`] says: how a host starts that was given no file.
    pub fn shipped() -> Self {
        Self::parse(DEFAULT, "cluster-config.yaml").expect("a test parses the shipped file")
    }
}

fn decode_text(text: &str, name: &str, folder: &Path, accepted: Accepted) -> Result<Config, ConfigErrors> {
    let root = tree::parse(text, name)?;
    let decoder = decode::Decoder::new(name);
    let config = sections::config(&root, &decoder, folder, accepted);
    decoder.finish()?;
    Ok(config.expect("a configuration without errors was decoded whole"))
}

fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let explain = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "does not exist; check the path".to_owned(),
        io::ErrorKind::PermissionDenied => "may not be read by this user; give it read permission".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    let file = File::open(path).map_err(explain)?;
    if file.metadata().map_err(explain)?.is_dir() {
        return Err("is a folder; give the path of the file in it".to_owned());
    }
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large from one that fits exactly, also for pipes.
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(explain)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let limit = units::show_size(MAX_FILE_BYTES);
        return Err(format!("is larger than {limit}, the most a configuration may have; check that it is the right file"));
    }
    Ok(bytes)
}

fn not_utf8(name: &str, bytes: &[u8], valid_up_to: usize) -> ConfigErrors {
    let before = String::from_utf8_lossy(&bytes[..valid_up_to]);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let found = bytes.get(valid_up_to).copied().unwrap_or_default();
    let message = format!("byte 0x{found:02x} is not UTF-8; save the file as UTF-8");
    ConfigErrors::one(ConfigError {
        file: name.to_owned(),
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: u32::try_from(column).unwrap_or(u32::MAX),
        path: String::new(),
        message,
    })
}

//! Which model files there are, and whether a file is one.
//!
//! Reads GGUF headers itself, because llama.cpp aborts the process on some broken files: nothing reaches it that has not
//! been checked here. Never loads weights.

mod builtin;
mod error;
mod file;
mod gguf;

pub use builtin::{BUILTINS, Builtin};
pub use error::CatalogError;
pub use file::{ModelFile, digest_of, hex};
pub use gguf::{GgufHeader, Metadata};

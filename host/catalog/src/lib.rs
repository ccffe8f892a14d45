//! Which model files there are, and whether a file is one.
//!
//! Reads GGUF headers itself, because llama.cpp aborts the process on some broken files: nothing reaches it that has not
//! been checked here. Knows where models may come from and where they are kept; never fetches them, never loads weights.

mod builtin;
mod error;
mod file;
mod gguf;
mod hub;
mod outline;
mod register;
mod source;

pub use builtin::{BUILTINS, Builtin};
pub use error::CatalogError;
pub use file::{ModelFile, digest_of, hex};
pub use gguf::{GgufHeader, Metadata};
pub use hub::{Cached, Environment, Hub, environment};
pub use outline::{Outline, available_bytes};
pub use register::{Entry, Presence, Register, data_folder};
pub use source::{HubFile, Source, is_model_name, without_secrets};

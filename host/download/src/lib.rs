//! Fetches model files: from an address, or from a repository of the Hugging Face hub.
//!
//! A file is there whole or not at all. What was fetched before a cut, a full disk or the end of the process is gone on from, as
//! long as it is still the same file there. Two that fetch the same wait for each other. Nothing but whole GGUF files with the
//! right digest comes out of it.

mod client;
mod download;
mod error;
mod fetch;
mod hub;
mod pace;
mod part;
mod resume;

pub use client::Client;
pub use download::{Downloaded, Order, download};
pub use error::DownloadError;
pub use fetch::{Event, Patience};
pub use pace::{Pace, Progress};

//! The engine: one thread per loaded model owns its `llama_context` and decodes the sequences of all isolates in one batch.
//!
//! A request is checked and tokenized by whoever submits it ([`LlamaEngine`]), waits in a bounded inbox, is given the lowest
//! free sequence id, and from then on moves through the phases of [`step`] once per step until it ends. Nothing that a
//! client does (reading slowly, going away) makes the thread wait.

mod chat;
mod constraint;
mod embed;
mod engine;
mod error;
mod ffi;
mod load;
mod sampler;
mod sequence;
mod step;
mod stream;
mod text;
mod worker;

pub use engine::LlamaEngine;
pub use error::LlamaError;
pub use ffi::{max_sequences, system_info};
pub use load::{EngineSettings, KvType};

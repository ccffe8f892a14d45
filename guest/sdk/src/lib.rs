//! What an llambo guest module is written with: Rust over the world `llambo:guest/engine` and the proposal `wasi:nn`.
//!
//! ```no_run
//! use llambo_guest::{Engine, FinishReason, Model, Options, Outcome, Request, emit, export};
//!
//! struct Shouting;
//!
//! impl Engine for Shouting {
//!     fn handle(request: Request) -> Outcome {
//!         let model = Model::open(&request.model)?;
//!         let mut generation = model.generate(&request.prompt, &Options::of(&request)?)?;
//!         for piece in &mut generation {
//!             emit(piece?.to_uppercase())?;
//!         }
//!         Ok(generation.finish()?.reason)
//!     }
//! }
//!
//! export!(Shouting);
//! ```
//!
//! A guest answers one request at a time and keeps its statics from one request to the next. While it waits for the model or
//! for a slow client it is suspended by the host and holds no thread. A panic ends it; the host starts another in its place.

use std::fmt;

mod branch;
mod json;
mod model;
mod options;

/// The world as `wit-bindgen` sees it, for what this crate does not wrap.
#[expect(missing_docs, reason = "generated; `wit/guest.wit` holds the documentation")]
#[allow(clippy::all, clippy::pedantic, reason = "generated")]
#[allow(unsafe_code, unreachable_pub, reason = "generated: calls over the component boundary")]
#[allow(clippy::allow_attributes_without_reason, clippy::unwrap_used, reason = "generated")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "engine",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_engine",
        default_bindings_module: "llambo_guest::bindings",
    });
}

pub use bindings::{
    Guest as Engine,
    llambo::guest::types::{Failure, FinishReason, Message, Prompt, Request, Role},
    wasi::nn::errors::ErrorCode,
};
pub use branch::{Branch, Candidate, Distribution, Growth, Mask, Piece, Scored, Token};
pub use model::{Completion, Error, Finish, Generation, Input, Model};
pub use options::{InvalidOptions, Options};

/// What [`Engine::handle`] returns: how the answer ended, or why there is none.
pub type Outcome = Result<FinishReason, Failure>;

/// Nobody reads the answer any more. An engine should return; what it returns is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// Makes a type that implements [`Engine`] the one that this module exports. Once per module.
#[macro_export]
macro_rules! export {
    ($engine:ident) => {
        $crate::bindings::export_engine!($engine with_types_in $crate::bindings);
    };
}

/// Sends text to the client, in order. Waits while the client is slow.
///
/// Bytes need not be whole UTF-8 at each call: the host holds back a character that is not complete yet.
///
/// # Errors
/// [`Gone`] when nobody reads any more.
pub fn emit(piece: impl AsRef<[u8]>) -> Result<(), Gone> {
    if bindings::llambo::guest::output::emit(piece.as_ref()) { Ok(()) } else { Err(Gone) }
}

// === impl Message ===

impl Message {
    /// Instructions that stand above the conversation.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: Role::System, content: content.into() }
    }

    /// What the person or program says that asks.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: Role::User, content: content.into() }
    }

    /// What the model says, or is made to have said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: Role::Assistant, content: content.into() }
    }
}

// === impl Role ===

impl Role {
    /// The name that chat templates use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

// === impl Gone ===

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client is gone")
    }
}

impl std::error::Error for Gone {}

// === impl Failure ===

impl From<Gone> for Failure {
    fn from(gone: Gone) -> Self {
        Self::Other(gone.to_string())
    }
}

impl From<InvalidOptions> for Failure {
    fn from(error: InvalidOptions) -> Self {
        Self::InvalidRequest(error.to_string())
    }
}

impl From<Error> for Failure {
    /// Always [`Failure::Inference`]: the host holds the cause and tells the client that, with its proper status.
    fn from(error: Error) -> Self {
        Self::Inference(error.message)
    }
}

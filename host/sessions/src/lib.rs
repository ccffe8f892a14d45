//! Conversations that the host keeps, so that isolates need not.
//!
//! A session is what was said in one conversation, and how its next question is to be asked. It changes by turns: a turn begins, which nobody else can
//! do until it has ended, and ends with what was said in it, or as if it had never been. Where there is a folder, a turn's end is on disk before anybody is
//! told of it.
//!
//! ```text
//!  making ──► idle ◄──────► in a turn
//!               │ expired        │
//!               ▼    deleted     ▼
//!              gone ◄────────────┘
//! ```
//!
//! `conversations` is the pure state machine, `store` the thread that writes, [`Sessions`] joins both. Asks no model: whoever does hands in what it said.

mod conversations;
mod error;
mod session;
mod sessions;
mod store;
mod turn;

pub use error::SessionError;
pub use session::{NewSession, Session, SessionId, WhenFull, cuts};
pub use sessions::{Clock, Page, Sessions, Settings, describe_metrics};
pub use turn::Turn;

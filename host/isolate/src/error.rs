use std::path::PathBuf;

use crate::HibernateError;

/// Why no isolate can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The file of a module cannot be read.
    #[error("the module {} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a guest module, or one that does not fit its type's limits.
    #[error("the module {name} cannot be used: {detail}")]
    Module {
        /// What it is called in the configuration.
        name: String,
        /// What is wrong with it, and what to do.
        detail: String,
    },
    /// The module was tried, and did not stand it.
    #[error("the module {name} failed its trial: {detail}")]
    Trial {
        /// What it is called.
        name: String,
        /// What it did.
        detail: String,
    },
    /// An isolate that was put aside cannot be taken up.
    #[error("the isolate in {} cannot be woken here: {source}", path.display())]
    Hibernated {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: HibernateError,
    },
    /// There is no place for so many isolates.
    #[error("there is room for {room} of {wanted} isolates of {memory_mib} MiB: {detail}")]
    Full {
        /// Isolates asked for.
        wanted: u32,
        /// How many of them there is room for.
        room: u32,
        /// Guest memory of each.
        memory_mib: u64,
        /// Which limit stops it, and what lifts it.
        detail: String,
    },
    /// The system refused something that isolates need.
    #[error("{what}: {detail}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        detail: String,
    },
}

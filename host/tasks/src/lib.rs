//! Tasks: requests that are accepted now and answered later, and outlive the process that accepted them.
//!
//! One thread owns a database; all that waits for it is done in one transaction. A task is accepted when it is on the disk, and
//! from then on ends exactly once: killed at any moment, the host runs again what had not ended. A run that is repeated goes on from
//! what the earlier one had made; what somebody was told of it before is never contradicted.
//!
//! ```text
//!   submit ─► store ◄── take ── runner ── dispatcher ── node
//!               │  ◄── progress, end ──┘
//!               └──► events, to whoever follows
//! ```
//!
//! It knows no HTTP. Who may see a task is decided by its tenant, and nothing else.

mod counts;
mod draft;
mod error;
mod events;
mod kept;
mod ledger;
mod metrics;
mod queue;
mod rows;
mod run;
mod runner;
mod schema;
mod store;
mod task;
mod tasks;
mod watchers;
mod work;

use std::{path::PathBuf, time::Duration};

pub use error::{OpenError, TaskError};
pub use events::TaskEvent;
pub use ledger::Filter;
pub use metrics::describe_metrics;
pub use task::{NewTask, Task, TaskFailure, TaskState, Times};
pub use tasks::Tasks;
pub use work::Work;

#[cfg(test)]
mod tests;

/// Where tasks are kept, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A folder of this host alone; `None` keeps them in memory, and they end with the host.
    pub folder: Option<PathBuf>,
    /// Tasks that run at once. At least 1.
    pub max_running: usize,
    /// Tasks that may wait.
    pub max_queued: u64,
    /// Bytes that requests and texts may take together. What runs is finished even when it goes beyond.
    pub max_bytes: u64,
    /// Runs that may break off before a task has failed. At least 1.
    pub attempts: u32,
    /// How long a task is kept after its end.
    pub keep: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            folder: None,
            max_running: 64,
            max_queued: 100_000,
            max_bytes: 1 << 30,
            attempts: 5,
            keep: Duration::from_hours(24),
        }
    }
}

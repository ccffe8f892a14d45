use std::{io, path::PathBuf, time::Duration};

/// What a client is told to wait when the store is behind: it empties its channel many times in that time.
const RETRY_WHEN_BUSY: Duration = Duration::from_secs(1);
/// What a client is told to wait when the queue or the store is full: long enough that some tasks have ended.
const RETRY_WHEN_FULL: Duration = Duration::from_secs(5);

/// Why something could not be done with a task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// There is none, or it is another tenant's, which is not told.
    #[error("there is no task `{id}`; it may have been deleted, or ended longer ago than tasks are kept")]
    Unknown {
        /// The id asked for.
        id: String,
    },
    /// The same id or key came before with something else.
    #[error("a task with the {what} `{value}` was submitted before with another request; use a new one for a new request")]
    Conflict {
        /// `id` or `idempotency key`.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// As many tasks wait as may.
    #[error("{queued} of at most {limit} tasks wait{}; submit again later", if *.of_tenant { ", and this tenant has its share of them" } else { "" })]
    Full {
        /// Tasks that wait now.
        queued: u64,
        /// How many may.
        limit: u64,
        /// Whether others may still submit some.
        of_tenant: bool,
    },
    /// Requests and texts take as much room as they may.
    #[error("requests and texts of tasks take {bytes} of at most {limit} bytes; delete ended tasks, or submit again later")]
    NoRoom {
        /// Bytes in use.
        bytes: u64,
        /// How many may be.
        limit: u64,
    },
    /// More is asked of the store at once than it can do.
    #[error("the task store is behind; try again")]
    Busy,
    /// It waits or runs.
    #[error("task `{id}` has not ended; cancel it first")]
    NotEnded {
        /// Its id.
        id: String,
    },
    /// An offset that no event of the task has.
    #[error("task `{id}` has no event {offset}; leave `Last-Event-ID` out to begin anew")]
    NoEvent {
        /// Its id.
        id: String,
        /// What was asked for.
        offset: u64,
    },
    /// The store could not read or write.
    #[error("the task store failed: {0}; nothing was changed, see the host's log")]
    Storage(String),
    /// The host is about to end.
    #[error("the host ends and takes no more tasks; send it to another one, or again later")]
    Closed,
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Its folder cannot be used.
    #[error("`{}` cannot be used: {source}", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another host has it.
    #[error("another host uses `{}`; give each host a folder of its own", .folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
    },
    /// It was written by a later version.
    #[error(
        "the tasks were written by another version of llambo (form {found}, this one reads {known}); use that one or another folder"
    )]
    Version {
        /// The form on disk.
        found: i64,
        /// The form this version writes.
        known: i64,
    },
    /// The database could not be opened or read.
    #[error("the task store cannot be read: {0}")]
    Storage(String),
    /// Its thread could not be started.
    #[error("the task store's thread cannot start: {0}")]
    Thread(#[source] io::Error),
}

impl TaskError {
    /// A stable upper-case name for clients and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "UNKNOWN_TASK",
            Self::Conflict { .. } => "TASK_CONFLICT",
            Self::Full { .. } | Self::NoRoom { .. } => "TASKS_FULL",
            Self::Busy => "TASKS_BUSY",
            Self::NotEnded { .. } => "TASK_NOT_ENDED",
            Self::NoEvent { .. } => "INVALID_REQUEST",
            Self::Storage(_) => "TASK_STORE_FAILED",
            Self::Closed => "DRAINING",
        }
    }

    /// When to try again; `None` when that is of no use.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Full { .. } | Self::NoRoom { .. } | Self::Storage(_) => Some(RETRY_WHEN_FULL),
            Self::Busy | Self::Closed => Some(RETRY_WHEN_BUSY),
            Self::Unknown { .. } | Self::Conflict { .. } | Self::NotEnded { .. } | Self::NoEvent { .. } => None,
        }
    }
}

impl From<rusqlite::Error> for TaskError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Storage(error.to_string())
    }
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Storage(error.to_string())
    }
}

//! Where changes go before they are true: to disk, or nowhere.

mod sqlite;

use std::{fmt, ops::Range, path::Path, sync::Arc, thread};

use llambo_inference::Message;
use rusqlite::Connection;
use tokio::sync::mpsc;

use crate::{Session, SessionError, SessionId};

/// Changes written with one sync of the disk at most.
const BATCH: usize = 256;
/// Places beside those for the turns of all sessions: for sessions that are made and go.
const OTHER_PLACES: usize = 1024;

/// What became of the sessions.
#[derive(Debug)]
pub(crate) enum Change {
    Made(Box<Session>),
    Said {
        after: Box<Session>,
        new: Vec<Arc<Message>>,
        /// Which messages went for it, counted among those before and the new ones.
        forgotten: Range<usize>,
    },
    Gone(Vec<SessionId>),
    /// Nothing: whoever sent it learns that everything before it is written.
    Nothing,
}

/// Called once a change is kept, or could not be, in the order of the changes. Must not block.
pub(crate) type Then = Box<dyn FnOnce(Result<(), SessionError>) + Send>;

pub(crate) enum Store {
    /// Nothing outlives the process.
    Memory,
    /// A thread writes. It ends with the last sender.
    Disk(mpsc::Sender<Job>),
}

/// Room for one change.
pub(crate) enum Place {
    Memory,
    Disk(mpsc::OwnedPermit<Job>),
}

pub(crate) struct Job {
    change: Change,
    then: Then,
}

// === impl Store ===

impl Store {
    /// Opens what is in `folder`, or begins it. Blocks while it reads.
    pub(crate) fn open(folder: &Path, max_sessions: usize) -> Result<(Self, Vec<Session>), SessionError> {
        let connection = sqlite::open(folder)?;
        let sessions = sqlite::load(&connection)?;
        // each session has at most one turn under way, which holds its place from its beginning to its end
        let places = max_sessions.max(sessions.len()).saturating_add(OTHER_PLACES).min(tokio::sync::Semaphore::MAX_PERMITS);
        let (sender, jobs) = mpsc::channel(places);
        let thread = thread::Builder::new().name("llambo-sessions".into());
        thread
            .spawn(move || run(connection, jobs))
            .map_err(|e| SessionError::NotKept(format!("its thread cannot start: {e}")))?;
        Ok((Self::Disk(sender), sessions))
    }

    pub(crate) fn is_durable(&self) -> bool {
        matches!(self, Self::Disk(_))
    }

    /// Waits for room. Nothing has happened if it is called off.
    pub(crate) async fn place(&self) -> Result<Place, SessionError> {
        match self {
            Self::Memory => Ok(Place::Memory),
            Self::Disk(sender) => sender.clone().reserve_owned().await.map(Place::Disk).map_err(|_| thread_ended()),
        }
    }
}

/// For an error that should never be seen.
pub(crate) fn thread_ended() -> SessionError {
    SessionError::NotKept("its thread has ended; restart the host".into())
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_durable() { "Disk" } else { "Memory" })
    }
}

// === impl Place ===

impl Place {
    /// Hands a change over.
    pub(crate) fn write(self, change: Change, then: Then) {
        match self {
            Self::Memory => then(Ok(())),
            Self::Disk(permit) => {
                permit.send(Job { change, then });
            }
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

fn run(mut connection: Connection, mut jobs: mpsc::Receiver<Job>) {
    let mut batch = Vec::with_capacity(BATCH);
    while jobs.blocking_recv_many(&mut batch, BATCH) > 0 {
        let (changes, thens): (Vec<_>, Vec<_>) = batch.drain(..).map(|job| (job.change, job.then)).unzip();
        let kept = sqlite::write(&mut connection, &changes);
        for (then, kept) in thens.into_iter().zip(kept) {
            then(kept);
        }
    }
}

#[cfg(test)]
mod tests;

//! Rows of the tables as values.

use llambo_inference::{Priority, Usage};
use rusqlite::{Connection, OptionalExtension, Row, named_params};

use crate::{
    kept::{Addition, Pieces},
    queue::Place,
    task::{Task, TaskFailure, TaskState, Times},
};

/// All of a task but its request and its text.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) key: i64,
    pub(crate) tenant: String,
    pub(crate) digest: Vec<u8>,
    pub(crate) weight: f64,
    /// Times that it was taken from the queue: what an earlier run says is not heard.
    pub(crate) runs: i64,
    /// Whether somebody was told text of it before it ended.
    pub(crate) is_told: bool,
    pub(crate) n_bytes: u64,
    pub(crate) task: Task,
}

/// What [`Record`] is read from, in the order in which it is.
macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT key, tenant, digest, weight, runs, told, n_bytes, id, state, model, node_type, interactive, labels, created_ms, ",
            "started_ms, ended_ms, expires_ms, attempts, node, finish_reason, input_tokens, cached_tokens, output_tokens, reason, ",
            "message FROM tasks ",
            $rest
        )
    };
}
pub(crate) use columns;

const STATES: [TaskState; 6] = TaskState::ALL;

/// A state as it is kept.
pub(crate) fn code(state: TaskState) -> i64 {
    STATES.iter().zip(0..).find(|(known, _)| **known == state).map_or(0, |(_, code)| code)
}

// === impl Record ===

impl Record {
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let count = |i: usize| row.get::<_, i64>(i).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let state: usize = row.get(8)?;
        let reason: Option<String> = row.get(23)?;
        let message: Option<String> = row.get(24)?;
        let labels: String = row.get(12)?;
        let task = Task {
            id: row.get(7)?,
            state: *STATES.get(state).ok_or(rusqlite::Error::IntegralValueOutOfRange(8, i64::try_from(state).unwrap_or(-1)))?,
            model: row.get(9)?,
            node_type: row.get(10)?,
            priority: if row.get(11)? { Priority::Interactive } else { Priority::Batch },
            labels: serde_json::from_str(&labels).unwrap_or_default(),
            times: Times { created_ms: row.get(13)?, started_ms: row.get(14)?, ended_ms: row.get(15)?, expires_ms: row.get(16)? },
            attempts: count(17)?,
            node: row.get(18)?,
            text: String::new(),
            finish_reason: row.get(19)?,
            usage: Usage { input_tokens: count(20)?, cached_tokens: count(21)?, output_tokens: count(22)? },
            failure: reason.map(|reason| TaskFailure { reason, message: message.unwrap_or_default() }),
        };
        Ok(Self {
            key: row.get(0)?,
            tenant: row.get(1)?,
            digest: row.get(2)?,
            weight: row.get(3)?,
            runs: row.get(4)?,
            is_told: row.get(5)?,
            n_bytes: row.get(6)?,
            task,
        })
    }

    pub(crate) fn by_id(connection: &Connection, tenant: &str, id: &str) -> rusqlite::Result<Option<Self>> {
        let mut found = connection.prepare_cached(columns!("WHERE tenant = ?1 AND id = ?2"))?;
        found.query_row([tenant, id], Self::read).optional()
    }

    pub(crate) fn by_again(connection: &Connection, tenant: &str, again: &str) -> rusqlite::Result<Option<Self>> {
        let mut found = connection.prepare_cached(columns!("WHERE tenant = ?1 AND again = ?2"))?;
        found.query_row([tenant, again], Self::read).optional()
    }

    pub(crate) fn by_key(connection: &Connection, key: i64) -> rusqlite::Result<Option<Self>> {
        connection.prepare_cached(columns!("WHERE key = ?1"))?.query_row([key], Self::read).optional()
    }

    pub(crate) fn place(&self) -> Place {
        Place { tenant: self.tenant.clone(), weight: self.weight, priority: self.task.priority }
    }

    /// The text behind the first `from` bytes, or a little more, and where what is given begins.
    pub(crate) fn pieces(&self, connection: &Connection, from: u64) -> rusqlite::Result<(u64, Pieces)> {
        if self.task.state.is_ended() {
            let mut found = connection.prepare_cached("SELECT text, cuts FROM tasks WHERE key = ?1")?;
            return found.query_row([self.key], |row| Ok((0, Pieces { text: row.get(0)?, cuts: row.get(1)? })));
        }
        let mut found = connection.prepare_cached(
            "SELECT at_byte, text, cuts FROM progress WHERE task = :task AND at_byte + n_bytes >= :start ORDER BY n",
        )?;
        let mut rows = found.query(named_params! { ":task": self.key, ":start": i64::try_from(from).unwrap_or(i64::MAX) })?;
        let (mut begin, mut pieces) = (None, Pieces::default());
        while let Some(row) = rows.next()? {
            begin.get_or_insert(row.get(0)?);
            pieces.append(&Pieces { text: row.get(1)?, cuts: row.get(2)? });
        }
        Ok((begin.unwrap_or(0), pieces))
    }

    /// What was kept of its generations.
    pub(crate) fn journal(&self, connection: &Connection) -> rusqlite::Result<Vec<Addition>> {
        let mut found =
            connection.prepare_cached("SELECT journal FROM progress WHERE task = ?1 AND journal IS NOT NULL ORDER BY n")?;
        let additions = found.query_map([self.key], |row| row.get::<_, String>(0))?;
        // one that cannot be read ends what can be restored; the text is made again by the seed then
        let mut readable = Vec::new();
        for addition in additions {
            let Ok(addition) = serde_json::from_str(&addition?) else { break };
            readable.push(addition);
        }
        Ok(readable)
    }
}

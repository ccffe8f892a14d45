//! All that may happen to a task, as steps on the tables. A step is done within the transaction that its caller has opened; what it
//! counts in memory is right as long as that is committed, and is read anew when it is not.
//!
//! ```text
//!   submit ─► queued ─► take ─► running ─► end ─► finished, failed, expired
//!               ▲  └─ cancel, sweep ─►│─ cancel ─► cancelled
//!               └──── release ────────┘
//! ```

mod runs;

use llambo_inference::Priority;
use rusqlite::{Connection, params};

pub(crate) use self::runs::{Return, Run, Standing, Taken, Update};
use crate::{
    TaskError,
    counts::{Counts, Limits},
    kept::Pieces,
    queue::Queue,
    rows::{Record, code, columns},
    task::{NewTask, Outcome, Task, TaskFailure, TaskState},
};

/// Tasks that one sweep deletes or ends: the rest waits for the next one, so that nobody waits long for a sweep.
pub(crate) const SWEPT_AT_ONCE: u32 = 500;
/// Keys in the queue of tasks that no longer wait: beyond this, and beyond those that do wait, they are thrown out.
const STALE: u64 = 10_000;
/// Pages that a sweep gives back to the disk.
const PAGES_AT_ONCE: u32 = 256;

pub(crate) struct Ledger {
    pub(crate) connection: Connection,
    limits: Limits,
    queue: Queue,
    pub(crate) counts: Counts,
    n_stale: u64,
    /// Whether there is more to take than before.
    pub(crate) has_more: bool,
    /// Tasks that somebody who watches them should look at again.
    pub(crate) changed: Vec<i64>,
    /// States in which tasks ended.
    pub(crate) ended: Vec<TaskState>,
}

/// A task as somebody who follows it sees it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) key: i64,
    pub(crate) task: Task,
    /// Where `pieces` begin.
    pub(crate) begin: u64,
    pub(crate) pieces: Pieces,
}

/// Which tasks to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those in this state.
    pub state: Option<TaskState>,
    /// Only those that were submitted before this one; the newest come first.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
}

pub(crate) type Sql<T> = rusqlite::Result<T>;

// === impl Ledger ===

impl Ledger {
    /// What ran when the file was last written waits again.
    pub(crate) fn new(connection: Connection, limits: Limits) -> Sql<Self> {
        connection.execute("UPDATE tasks SET state = 0 WHERE state = 1", [])?;
        let (changed, ended) = (Vec::new(), Vec::new());
        let (queue, counts) = (Queue::default(), Counts::default());
        let mut ledger = Self { connection, limits, queue, counts, n_stale: 0, has_more: true, changed, ended };
        ledger.reload()?;
        Ok(ledger)
    }

    /// Reads anew what is counted in memory.
    pub(crate) fn reload(&mut self) -> Sql<()> {
        (self.queue, self.n_stale) = (Queue::default(), 0);
        self.counts = Counts::default();
        self.counts.bytes = self.connection.query_row("SELECT coalesce(sum(n_bytes), 0) FROM tasks", [], |row| row.get(0))?;
        let mut open = self.connection.prepare(columns!("WHERE state < 2 ORDER BY key"))?;
        let mut rows = open.query([])?;
        while let Some(row) = rows.next()? {
            let record = Record::read(row)?;
            self.counts.moved(&record, None, Some(record.task.state));
            if record.task.state == TaskState::Queued {
                self.queue.push(record.key, &record.place());
            }
        }
        Ok(())
    }

    /// A new task, or the one that was submitted before under the same id or key.
    pub(crate) fn submit(&mut self, new: &NewTask, now_ms: i64) -> Sql<Result<(Task, bool), TaskError>> {
        let NewTask { id, key, digest, tenant, weight, work, timeout_ms } = new;
        let again = match key {
            Some(key) => Record::by_again(&self.connection, tenant, key)?.map(|record| ("idempotency key", key, record)),
            None => None,
        };
        let by_id = Record::by_id(&self.connection, tenant, id)?.map(|record| ("id", id, record));
        let found: Vec<_> = again.into_iter().chain(by_id).collect();
        if let Some((what, value, _)) = found.iter().find(|(.., record)| record.digest != digest) {
            return Ok(Err(TaskError::Conflict { what, value: (*value).clone() }));
        }
        if let Some((.., record)) = found.into_iter().next() {
            return Ok(Ok((record.task, false)));
        }
        let text = serde_json::to_string(work).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
        let n_bytes = text.len() as u64;
        if let Err(full) = self.counts.room(self.limits, tenant, *weight, n_bytes) {
            return Ok(Err(full));
        }
        let expires_ms = timeout_ms.map(|ms| now_ms.saturating_add_unsigned(ms));
        let labels = serde_json::to_string(work.labels()).unwrap_or_default();
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO tasks (tenant, id, again, digest, weight, interactive, model, node_type, labels, work, state, created_ms, \
             expires_ms, n_bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0, ?11, ?12, ?13)",
        )?;
        let interactive = work.priority() == Priority::Interactive;
        let key = insert.insert(params![
            tenant,
            id,
            key,
            &digest[..],
            weight,
            interactive,
            work.model(),
            work.node_type(),
            labels,
            text,
            now_ms,
            expires_ms,
            n_bytes
        ])?;
        drop(insert);
        let Some(record) = Record::by_key(&self.connection, key)? else { return Err(rusqlite::Error::QueryReturnedNoRows) };
        self.counts.bytes += n_bytes;
        self.counts.moved(&record, None, Some(TaskState::Queued));
        self.queue.push(key, &record.place());
        self.has_more = true;
        Ok(Ok((record.task, true)))
    }

    /// Ends a task that has not ended. Its key, if it ran.
    pub(crate) fn cancel(&mut self, tenant: &str, id: &str, now_ms: i64) -> Sql<Option<(Task, Option<i64>)>> {
        let Some(record) = Record::by_id(&self.connection, tenant, id)? else { return Ok(None) };
        let ran = (record.task.state == TaskState::Running).then_some(record.key);
        if !record.task.state.is_ended() {
            let failure = TaskFailure { reason: "CANCELLED".into(), message: "the task was called off".into() };
            self.close(&record, TaskState::Cancelled, Some(&failure), now_ms)?;
        }
        Ok(self.show(tenant, id)?.map(|task| (task, ran)))
    }

    /// Forgets a task that has ended.
    pub(crate) fn delete(&mut self, tenant: &str, id: &str) -> Sql<Result<(), TaskError>> {
        let Some(record) = Record::by_id(&self.connection, tenant, id)? else {
            return Ok(Err(TaskError::Unknown { id: id.to_owned() }));
        };
        if !record.task.state.is_ended() {
            return Ok(Err(TaskError::NotEnded { id: id.to_owned() }));
        }
        self.connection.prepare_cached("DELETE FROM tasks WHERE key = ?1")?.execute([record.key])?;
        self.counts.bytes = self.counts.bytes.saturating_sub(record.n_bytes);
        Ok(Ok(()))
    }

    /// A task with its text.
    pub(crate) fn show(&mut self, tenant: &str, id: &str) -> Sql<Option<Task>> {
        let seen = self.see(tenant, id, 0)?;
        Ok(seen.map(|Seen { task, pieces, .. }| Task { text: pieces.text, ..task }))
    }

    /// A task with its text from a byte on. What is seen before the end will not be taken back.
    pub(crate) fn see(&mut self, tenant: &str, id: &str, from: u64) -> Sql<Option<Seen>> {
        let Some(record) = Record::by_id(&self.connection, tenant, id)? else { return Ok(None) };
        let (begin, pieces) = record.pieces(&self.connection, from)?;
        if !record.task.state.is_ended() && !record.is_told && !pieces.text.is_empty() {
            self.connection.prepare_cached("UPDATE tasks SET told = 1 WHERE key = ?1")?.execute([record.key])?;
        }
        Ok(Some(Seen { key: record.key, task: record.task, begin, pieces }))
    }

    /// Tasks without their texts, newest first.
    pub(crate) fn list(&self, tenant: &str, filter: &Filter) -> Sql<Result<Vec<Task>, TaskError>> {
        let before = match &filter.after {
            None => i64::MAX,
            Some(id) => match Record::by_id(&self.connection, tenant, id)? {
                Some(record) => record.key,
                None => return Ok(Err(TaskError::Unknown { id: id.clone() })),
            },
        };
        let mut found = self.connection.prepare_cached(columns!(
            "WHERE tenant = ?1 AND key < ?2 AND (?3 IS NULL OR state = ?3) ORDER BY key DESC LIMIT ?4"
        ))?;
        let rows = found.query_map(params![tenant, before, filter.state.map(code), filter.limit], Record::read)?;
        rows.map(|record| record.map(|record| record.task)).collect::<Sql<_>>().map(Ok)
    }

    /// Ends what waited too long and forgets what ended long ago. Whether there may be more.
    pub(crate) fn sweep(&mut self, now_ms: i64) -> Sql<bool> {
        let late = {
            let mut found =
                self.connection.prepare_cached(columns!("WHERE state = 0 AND expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2"))?;
            found.query_map(params![now_ms, SWEPT_AT_ONCE], Record::read)?.collect::<Sql<Vec<_>>>()?
        };
        for record in &late {
            self.close(record, TaskState::Expired, Outcome::Expired.failure().as_ref(), now_ms)?;
        }
        let keep_ms = i64::try_from(self.limits.keep.as_millis()).unwrap_or(i64::MAX);
        let mut delete = self.connection.prepare_cached(
            "DELETE FROM tasks WHERE key IN (SELECT key FROM tasks WHERE ended_ms <= ?1 ORDER BY ended_ms LIMIT ?2) RETURNING n_bytes",
        )?;
        let (mut n_deleted, mut n_bytes) = (0, 0);
        let mut rows = delete.query(params![now_ms.saturating_sub(keep_ms), SWEPT_AT_ONCE])?;
        while let Some(row) = rows.next()? {
            n_deleted += 1;
            n_bytes += row.get::<_, u64>(0)?;
        }
        drop(rows);
        drop(delete);
        self.counts.bytes = self.counts.bytes.saturating_sub(n_bytes);
        if n_deleted > 0 {
            self.connection.execute_batch(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
        }
        if self.n_stale > STALE.max(self.counts.queued) {
            self.reload()?;
        }
        Ok(late.len().max(n_deleted) >= SWEPT_AT_ONCE as usize)
    }

    /// Puts a task that has not ended into its last state, all its text in one place.
    fn close(&mut self, record: &Record, state: TaskState, failure: Option<&TaskFailure>, now_ms: i64) -> Sql<()> {
        let (_, pieces) = record.pieces(&self.connection, 0)?;
        let n_bytes = pieces.text.len() as u64;
        let (reason, message) = failure.map(|failure| (&failure.reason, &failure.message)).unzip();
        let mut set = self.connection.prepare_cached(
            "UPDATE tasks SET state = ?2, ended_ms = ?3, text = ?4, cuts = ?5, reason = ?6, message = ?7, n_bytes = ?8, work = NULL \
             WHERE key = ?1",
        )?;
        set.execute(params![record.key, code(state), now_ms, pieces.text, pieces.cuts, reason, message, n_bytes])?;
        drop(set);
        self.connection.prepare_cached("DELETE FROM progress WHERE task = ?1")?.execute([record.key])?;
        self.counts.bytes = (self.counts.bytes + n_bytes).saturating_sub(record.n_bytes);
        self.counts.moved(record, Some(record.task.state), None);
        self.n_stale += u64::from(record.task.state == TaskState::Queued);
        self.changed.push(record.key);
        self.ended.push(state);
        Ok(())
    }
}

//! What a run may do to its task.

use std::time::{Duration, Instant};

use llambo_inference::JournalEntry;
use rusqlite::{named_params, params};

use super::{Ledger, Sql};
use crate::{
    Work,
    kept::{Addition, Pieces, restored},
    rows::Record,
    task::{Outcome, TaskFailure, TaskState},
};

/// One run of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Run {
    pub(crate) key: i64,
    n: i64,
}

/// A task that is to run now.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) run: Run,
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) weight: f64,
    pub(crate) work: Work,
    /// What earlier runs had generated.
    pub(crate) kept: Pieces,
    pub(crate) journal: Vec<JournalEntry>,
    pub(crate) expires_ms: Option<i64>,
}

/// What a run has to say since it last did.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Update {
    pub(crate) node: Option<String>,
    /// Where the pieces begin.
    pub(crate) at_byte: usize,
    pub(crate) pieces: Pieces,
    pub(crate) addition: Option<Addition>,
    /// Tokens generated so far.
    pub(crate) n_tokens: u32,
}

/// Whether a run is still the one that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Counts,
    /// The task was called off or deleted: the run should stop.
    Over,
}

/// Why a run gives its task back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Return {
    /// It was never served, or the host ends: as if it had not been taken.
    Unserved(Duration),
    /// It broke off; this is how it ends if that was its last attempt.
    Broken(Duration, TaskFailure),
}

impl Ledger {
    /// Up to `n` tasks, from now on running, and when to ask again if that is known.
    pub(crate) fn take(&mut self, n: usize, now_ms: i64) -> Sql<(Vec<Taken>, Option<Duration>)> {
        let now = Instant::now();
        let mut taken = Vec::new();
        while taken.len() < n
            && let Some(key) = self.queue.pop(now)
        {
            let Some(record) = Record::by_key(&self.connection, key)?.filter(|r| r.task.state == TaskState::Queued) else {
                self.n_stale = self.n_stale.saturating_sub(1);
                continue;
            };
            if record.task.times.expires_ms.is_some_and(|at| at <= now_ms) {
                self.close(&record, TaskState::Expired, Outcome::Expired.failure().as_ref(), now_ms)?;
                continue;
            }
            let spent = record.task.attempts >= self.limits.attempts;
            let work = match self.work(key)? {
                Some(work) if !spent => work,
                work => {
                    let failure = if work.is_none() {
                        TaskFailure { reason: "TASK_STORE_FAILED".into(), message: "what was asked cannot be read".into() }
                    } else {
                        let message = format!("the host ended {} times while the task ran", record.task.attempts);
                        TaskFailure { reason: "ATTEMPTS_EXHAUSTED".into(), message }
                    };
                    self.close(&record, TaskState::Failed, Some(&failure), now_ms)?;
                    continue;
                }
            };
            let mut update = self.connection.prepare_cached(
                "UPDATE tasks SET state = 1, runs = runs + 1, attempts = attempts + 1, started_ms = coalesce(started_ms, ?2) \
                 WHERE key = ?1",
            )?;
            update.execute(params![key, now_ms])?;
            drop(update);
            self.counts.moved(&record, Some(TaskState::Queued), Some(TaskState::Running));
            self.changed.push(key);
            let (_, kept) = record.pieces(&self.connection, 0)?;
            taken.push(Taken {
                run: Run { key, n: record.runs + 1 },
                kept,
                journal: restored(record.journal(&self.connection)?),
                expires_ms: record.task.times.expires_ms,
                id: record.task.id,
                tenant: record.tenant,
                weight: record.weight,
                work,
            });
        }
        Ok((taken, self.queue.next_due(now)))
    }

    /// Keeps what a run has made.
    pub(crate) fn progress(&mut self, run: Run, update: &Update) -> Sql<Standing> {
        let n_bytes = update.pieces.text.len();
        let mut set = self.connection.prepare_cached(
            "UPDATE tasks SET node = coalesce(:node, node), output_tokens = max(output_tokens, :tokens), n_bytes = n_bytes + :bytes \
             WHERE key = :key AND runs = :run AND state = 1",
        )?;
        let n_changed = set.execute(named_params! {
            ":node": update.node, ":tokens": update.n_tokens, ":bytes": n_bytes, ":key": run.key, ":run": run.n,
        })?;
        drop(set);
        if n_changed == 0 {
            return Ok(Standing::Over);
        }
        if n_bytes > 0 || update.addition.is_some() {
            let addition = update.addition.as_ref().and_then(|addition| serde_json::to_string(addition).ok());
            let mut insert = self.connection.prepare_cached(
                "INSERT INTO progress (task, at_byte, n_bytes, text, cuts, journal) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            insert.execute(params![run.key, update.at_byte, n_bytes, update.pieces.text, update.pieces.cuts, addition])?;
        }
        self.counts.bytes += n_bytes as u64;
        self.changed.push(run.key);
        Ok(Standing::Counts)
    }

    /// A run came to its end: the task's only one.
    pub(crate) fn end(&mut self, run: Run, update: &Update, outcome: &Outcome, now_ms: i64) -> Sql<Standing> {
        let Some(record) = self.running(run, update)? else { return Ok(Standing::Over) };
        if let Outcome::Finished { reason, usage } = outcome {
            let mut set = self.connection.prepare_cached(
                "UPDATE tasks SET finish_reason = ?2, input_tokens = ?3, cached_tokens = ?4, output_tokens = ?5 WHERE key = ?1",
            )?;
            set.execute(params![run.key, reason, usage.input_tokens, usage.cached_tokens, usage.output_tokens])?;
        }
        self.close(&record, outcome.state(), outcome.failure().as_ref(), now_ms)?;
        Ok(Standing::Counts)
    }

    /// A run says something else than an earlier one did. What that one said is forgotten, or, if somebody heard it, the task fails.
    pub(crate) fn contradict(&mut self, run: Run, now_ms: i64) -> Sql<Standing> {
        let Some(record) = self.running(run, &Update::default())? else { return Ok(Standing::Over) };
        if record.is_told {
            let failure = TaskFailure {
                reason: "NOT_RESUMABLE".into(),
                message:
                    "the run was interrupted, and the model now continues differently from what was told before; submit it again"
                        .into(),
            };
            self.close(&record, TaskState::Failed, Some(&failure), now_ms)?;
            return Ok(Standing::Over);
        }
        let n_bytes: u64 =
            self.connection
                .query_row("SELECT coalesce(sum(n_bytes), 0) FROM progress WHERE task = ?1", [run.key], |row| row.get(0))?;
        self.connection.prepare_cached("DELETE FROM progress WHERE task = ?1")?.execute([run.key])?;
        self.connection
            .prepare_cached("UPDATE tasks SET n_bytes = n_bytes - ?2, output_tokens = 0 WHERE key = ?1")?
            .execute(params![run.key, n_bytes])?;
        self.counts.bytes = self.counts.bytes.saturating_sub(n_bytes);
        Ok(Standing::Counts)
    }

    /// A run broke off: its task waits again, or has failed.
    pub(crate) fn release(&mut self, run: Run, update: &Update, why: &Return, now_ms: i64) -> Sql<Standing> {
        let Some(record) = self.running(run, update)? else { return Ok(Standing::Over) };
        let (refund, delay) = match why {
            Return::Unserved(delay) => (1, *delay),
            Return::Broken(_, failure) if record.task.attempts >= self.limits.attempts => {
                self.close(&record, TaskState::Failed, Some(failure), now_ms)?;
                return Ok(Standing::Counts);
            }
            Return::Broken(delay, _) => (0, *delay),
        };
        self.connection
            .prepare_cached("UPDATE tasks SET state = 0, attempts = attempts - ?2 WHERE key = ?1")?
            .execute(params![run.key, refund])?;
        self.counts.moved(&record, Some(TaskState::Running), Some(TaskState::Queued));
        match Instant::now().checked_add(delay) {
            Some(due) if !delay.is_zero() => self.queue.push_later(run.key, record.place(), due),
            _ => self.queue.push(run.key, &record.place()),
        }
        self.has_more = true;
        self.changed.push(run.key);
        Ok(Standing::Counts)
    }

    /// The task of a run that counts, with its last words kept.
    fn running(&mut self, run: Run, update: &Update) -> Sql<Option<Record>> {
        match self.progress(run, update)? {
            Standing::Counts => Record::by_key(&self.connection, run.key),
            Standing::Over => Ok(None),
        }
    }

    fn work(&self, key: i64) -> Sql<Option<Work>> {
        let mut found = self.connection.prepare_cached("SELECT work FROM tasks WHERE key = ?1")?;
        let text: Option<String> = found.query_row([key], |row| row.get(0))?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }
}

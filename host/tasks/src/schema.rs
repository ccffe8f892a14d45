//! The tables, and how a file that has them is opened.

use rusqlite::Connection;

use crate::OpenError;

/// The form of the tables; a file of another one is not opened.
const FORM: i64 = 1;

/// `tasks.work` is there until a task has ended; `tasks.text` from then on. In between `progress` has the text, in additions.
const TABLES: &str = "
CREATE TABLE tasks (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    again TEXT,
    digest BLOB NOT NULL,
    weight REAL NOT NULL,
    interactive INTEGER NOT NULL,
    model TEXT NOT NULL,
    node_type TEXT,
    labels TEXT NOT NULL,
    work TEXT,
    state INTEGER NOT NULL,
    runs INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    told INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    started_ms INTEGER,
    ended_ms INTEGER,
    expires_ms INTEGER,
    node TEXT,
    text TEXT NOT NULL DEFAULT '',
    cuts BLOB NOT NULL DEFAULT x'',
    finish_reason TEXT,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    cached_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    message TEXT,
    n_bytes INTEGER NOT NULL
);
CREATE UNIQUE INDEX tasks_by_id ON tasks (tenant, id);
CREATE UNIQUE INDEX tasks_by_again ON tasks (tenant, again) WHERE again IS NOT NULL;
CREATE INDEX tasks_by_key ON tasks (tenant, key);
CREATE INDEX tasks_open ON tasks (state, key) WHERE state < 2;
CREATE INDEX tasks_that_expire ON tasks (expires_ms) WHERE state = 0 AND expires_ms IS NOT NULL;
CREATE INDEX tasks_ended ON tasks (ended_ms) WHERE ended_ms IS NOT NULL;
CREATE TABLE progress (
    n INTEGER PRIMARY KEY,
    task INTEGER NOT NULL,
    at_byte INTEGER NOT NULL,
    n_bytes INTEGER NOT NULL,
    text TEXT NOT NULL,
    cuts BLOB NOT NULL,
    journal TEXT
);
CREATE INDEX progress_of_task ON progress (task, n);
";

/// Makes the tables where there are none. A commit is on the disk when it is done: what a client was told survives a power cut.
pub(crate) fn prepare(connection: &Connection) -> Result<(), OpenError> {
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    // a database in memory has no log of this kind and says so by another word
    connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let form: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match form {
        FORM => {}
        0 => {
            connection.execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {FORM}; COMMIT;"))?;
        }
        found => return Err(OpenError::Version { found, known: FORM }),
    }
    Ok(())
}

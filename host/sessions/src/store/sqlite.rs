//! Tables and statements. One table row for a session, whose head is JSON so that fields can be added, and one for each message.

use std::{fs, os::unix::fs::DirBuilderExt, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use llambo_inference::{Message, Role};
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::Change;
use crate::{Session, SessionError, SessionId, WhenFull, conversations::unknown, session::Spent};

const FILE: &str = "sessions.sqlite";
/// Of the tables below. A later host that changes them counts on.
const VERSION: i64 = 1;
const TABLES: &str = "
    CREATE TABLE session (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, head TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE message (
        session TEXT NOT NULL REFERENCES session (id) ON DELETE CASCADE,
        n INTEGER NOT NULL,
        role TEXT NOT NULL,
        content TEXT NOT NULL,
        PRIMARY KEY (session, n)
    ) STRICT, WITHOUT ROWID;
";
/// `FULL`: what was told is there after the machine lost power, not only after the process was killed. `EXCLUSIVE`: a second host is told so at its start.
/// `secure_delete`: what was said in a session that is gone is overwritten.
const SETTINGS: &str = "
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = ON;
    PRAGMA secure_delete = ON;
";

/// Everything of a session but its name, its tenant and what was said.
#[derive(Serialize, Deserialize)]
struct Head {
    model: String,
    node_type: Option<String>,
    tier: Option<u8>,
    options: Vec<u8>,
    labels: Vec<(String, String)>,
    ttl_ms: u64,
    token_budget: Option<u64>,
    when_full: String,
    parent: Option<String>,
    created_ms: u64,
    used_ms: u64,
    n_turns: u64,
    n_forgotten: u64,
    input_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
}

pub(super) fn open(folder: &Path) -> Result<Connection, SessionError> {
    let shown = folder.display();
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|e| SessionError::NotKept(format!("`sessions.folder` {shown} cannot be made: {e}; name another one")))?;
    let file = folder.join(FILE);
    let opened = Connection::open(&file).and_then(|connection| {
        connection.execute_batch(SETTINGS)?;
        // takes the lock now and not with the first change
        connection.execute_batch("BEGIN IMMEDIATE; COMMIT;")?;
        let version = connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))?;
        if version == 0 {
            connection.execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"))?;
        }
        Ok((connection, version))
    });
    let (connection, version) = opened.map_err(|e| {
        let advice = match e.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "another host has it; give each a folder of its own",
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => "move it away to begin anew",
            _ => "check that this user may read and write it",
        };
        SessionError::NotKept(format!("`{}` cannot be opened: {e}; {advice}", file.display()))
    })?;
    if !(0..=VERSION).contains(&version) {
        let file = file.display();
        return Err(SessionError::NotKept(format!("`{file}` was written by a newer llambo; use that one, or another folder")));
    }
    // what was said is nobody else's to read
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))
        .map_err(|e| SessionError::NotKept(format!("`{}` cannot be kept from others: {e}", file.display())))?;
    Ok(connection)
}

/// All there is.
pub(super) fn load(connection: &Connection) -> Result<Vec<Session>, SessionError> {
    let unreadable = |what: &str, why: &dyn std::fmt::Display| {
        SessionError::NotKept(format!("{what} cannot be read: {why}; move the file in `sessions.folder` away to begin anew"))
    };
    let in_table = |e: rusqlite::Error| unreadable("its table", &e);
    let mut heads = connection.prepare("SELECT id, tenant, head FROM session").map_err(in_table)?;
    let mut said = connection.prepare("SELECT role, content FROM message WHERE session = ?1 ORDER BY n").map_err(in_table)?;
    let rows = heads.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?)));
    let mut sessions = Vec::new();
    for row in rows.map_err(in_table)? {
        let (id, tenant, head) = row.map_err(in_table)?;
        let name = format!("session `{id}`");
        let wrong = |why: &dyn std::fmt::Display| unreadable(&name, why);
        let head: Head = serde_json::from_str(&head).map_err(|e| wrong(&e))?;
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let rows = said.query_map([&id], read).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(|e| wrong(&e))?;
        let message = |(role, content): (String, String)| {
            let role = Role::parse(&role).ok_or_else(|| wrong(&format!("nobody is called {role:?}")))?;
            Ok(Arc::new(Message { role, content }))
        };
        let messages = rows.into_iter().map(message).collect::<Result<Vec<_>, SessionError>>()?;
        let id = SessionId::parse(&id).ok_or_else(|| wrong(&"that is no name"))?;
        sessions.push(head.into_session(id, &tenant, messages).map_err(|why| wrong(&why))?);
    }
    Ok(sessions)
}

/// Writes all of them with one sync of the disk; what became of each. One that cannot be written takes no other with it.
pub(super) fn write(connection: &mut Connection, changes: &[Change]) -> Vec<Result<(), SessionError>> {
    let written = connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|mut all| {
        let mut kept = Vec::with_capacity(changes.len());
        for change in changes {
            let one = all.savepoint()?;
            let done = apply(&one, change);
            if matches!(done, Ok(Ok(()))) {
                one.commit()?;
            }
            kept.push(done.unwrap_or_else(|e| Err(not_kept(&e))));
        }
        all.commit()?;
        Ok(kept)
    });
    written.unwrap_or_else(|e| {
        tracing::error!(n_changes = changes.len(), error = %e, "sessions cannot be written");
        changes.iter().map(|_| Err(not_kept(&e))).collect()
    })
}

fn not_kept(error: &rusqlite::Error) -> SessionError {
    SessionError::NotKept(format!("{error}; check the disk of `sessions.folder`"))
}

fn apply(connection: &Connection, change: &Change) -> rusqlite::Result<Result<(), SessionError>> {
    match change {
        Change::Made(session) => {
            let mut insert = connection.prepare_cached("INSERT INTO session (id, tenant, head) VALUES (?1, ?2, ?3)")?;
            insert.execute(params![session.id.as_str(), session.tenant.as_str(), Head::of(session).text()])?;
            add(connection, &session.id, 0, &session.messages)?;
        }
        Change::Said { after, new, forgotten } => {
            let id = after.id.as_str();
            let mut update = connection.prepare_cached("UPDATE session SET head = ?2 WHERE id = ?1")?;
            if update.execute(params![id, Head::of(after).text()])? == 0 {
                return Ok(Err(unknown(id)));
            }
            let mut last = connection.prepare_cached("SELECT n FROM message WHERE session = ?1 ORDER BY n DESC LIMIT 1")?;
            let last = last.query_row([id], |row| row.get::<_, i64>(0)).optional()?;
            add(connection, &after.id, last.map_or(0, |n| n + 1), new)?;
            if !forgotten.is_empty() {
                let mut forget = connection.prepare_cached(
                    "DELETE FROM message WHERE session = ?1
                     AND n IN (SELECT n FROM message WHERE session = ?1 ORDER BY n LIMIT ?2 OFFSET ?3)",
                )?;
                let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
                forget.execute(params![id, number(forgotten.len()), number(forgotten.start)])?;
            }
        }
        Change::Gone(ids) => {
            let mut delete = connection.prepare_cached("DELETE FROM session WHERE id = ?1")?;
            for id in ids {
                delete.execute([id.as_str()])?;
            }
        }
        Change::Nothing => {}
    }
    Ok(Ok(()))
}

fn add(connection: &Connection, id: &SessionId, from: i64, messages: &[Arc<Message>]) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached("INSERT INTO message (session, n, role, content) VALUES (?1, ?2, ?3, ?4)")?;
    for (n, message) in (from..).zip(messages) {
        insert.execute(params![id.as_str(), n, message.role.as_str(), message.content])?;
    }
    Ok(())
}

// === impl Head ===

impl Head {
    fn of(session: &Session) -> Self {
        Self {
            model: session.model.to_string(),
            node_type: session.node_type.as_ref().map(ToString::to_string),
            tier: session.tier,
            options: session.options.to_vec(),
            labels: session.labels.to_vec(),
            ttl_ms: session.ttl_ms,
            token_budget: session.token_budget,
            when_full: session.when_full.as_str().to_owned(),
            parent: session.parent.as_ref().map(ToString::to_string),
            created_ms: session.created_ms,
            used_ms: session.used_ms,
            n_turns: session.n_turns,
            n_forgotten: session.n_forgotten,
            input_tokens: session.spent.input_tokens,
            cached_tokens: session.spent.cached_tokens,
            output_tokens: session.spent.output_tokens,
        }
    }

    fn text(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are always JSON")
    }

    fn into_session(self, id: SessionId, tenant: &str, messages: Vec<Arc<Message>>) -> Result<Session, String> {
        let when_full = WhenFull::parse(&self.when_full).ok_or_else(|| format!("`when_full` is {:?}", self.when_full))?;
        Ok(Session {
            id,
            tenant: tenant.into(),
            model: self.model.into(),
            node_type: self.node_type.map(Into::into),
            tier: self.tier,
            options: self.options.into(),
            labels: self.labels.into(),
            ttl_ms: self.ttl_ms,
            token_budget: self.token_budget,
            when_full,
            parent: self.parent.as_deref().and_then(SessionId::parse),
            created_ms: self.created_ms,
            used_ms: self.used_ms,
            n_turns: self.n_turns,
            n_forgotten: self.n_forgotten,
            spent: Spent {
                input_tokens: self.input_tokens,
                cached_tokens: self.cached_tokens,
                output_tokens: self.output_tokens,
            },
            messages: Arc::new(messages),
        })
    }
}

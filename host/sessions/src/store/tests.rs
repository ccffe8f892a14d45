use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use llambo_inference::{Message, Role, TenantName, Usage};

use crate::{NewSession, Session, SessionError, Sessions, Settings, WhenFull};

const USAGE: Usage = Usage { input_tokens: 5, cached_tokens: 4, output_tokens: 2 };

fn tenant() -> TenantName {
    "default".into()
}

fn user(text: &str) -> Vec<Message> {
    vec![Message { role: Role::User, content: text.into() }]
}

fn new(system: &str) -> NewSession {
    NewSession {
        model: "m".into(),
        node_type: Some("tiny".into()),
        tier: Some(1),
        options: Arc::from([1, 0, 255]),
        labels: Arc::from([("k".to_owned(), "v".to_owned())]),
        ttl: None,
        token_budget: Some(1000),
        when_full: WhenFull::DropOldest,
        messages: vec![Message { role: Role::System, content: system.into() }],
    }
}

fn texts(session: &Session) -> Vec<&str> {
    session.messages.iter().map(|message| message.content.as_str()).collect()
}

async fn turn(sessions: &Sessions, id: &str, question: &str, n_forget: usize) -> Session {
    let mut turn = sessions.ask(&tenant(), id, user(question)).await.unwrap();
    turn.forget(n_forget);
    turn.finish(format!("re {question}"), USAGE).await.unwrap()
}

/// Opened again after all who had it are gone; its thread lets go of the file a moment later.
async fn reopened(settings: &Settings) -> Sessions {
    let begin = std::time::Instant::now();
    loop {
        match Sessions::open(settings) {
            Ok(sessions) => return sessions,
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(20), "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_was_said_is_there_after_a_restart_and_what_was_not_ended_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { folder: Some(folder.path().join("deep/er")), ..Settings::default() };
    let sessions = reopened(&settings).await;
    assert!(sessions.is_durable());
    let id = sessions.create(&tenant(), new("be brief")).await.unwrap().id;
    turn(&sessions, id.as_str(), "a \0 ü", 0).await;
    turn(&sessions, id.as_str(), "b", 0).await;
    turn(&sessions, id.as_str(), "c", 2).await;
    let fork = sessions.fork(&tenant(), id.as_str(), Some(2)).await.unwrap();
    sessions.append(&tenant(), fork.id.as_str(), user("alone")).await.unwrap();
    let deleted = sessions.create(&tenant(), new("x")).await.unwrap().id;
    sessions.delete(&tenant(), deleted.as_str()).await.unwrap();
    let open = sessions.ask(&tenant(), id.as_str(), user("never answered")).await.unwrap();
    let before = sessions.get(&tenant(), id.as_str()).unwrap();
    assert_eq!(texts(&before), ["be brief", "b", "re b", "c", "re c"]);
    assert_eq!((before.n_forgotten, before.n_turns, before.spent.tokens()), (2, 3, 21));
    let fork = sessions.get(&tenant(), fork.id.as_str()).unwrap();
    assert_eq!((texts(&fork), fork.spent.tokens()), (vec!["be brief", "b", "alone"], 21));
    drop((open, sessions));

    let sessions = reopened(&settings).await;
    assert_eq!(sessions.len(), 2);
    assert_eq!(sessions.get(&tenant(), fork.id.as_str()).unwrap(), fork);
    let after = sessions.get(&tenant(), id.as_str()).unwrap();
    // a turn that was never ended is a use, but not one that is worth writing down
    assert_eq!(after, Session { used_ms: after.used_ms, ..before });
    assert_eq!(texts(&turn(&sessions, id.as_str(), "d", 0).await)[5..], ["d", "re d"]);
}

#[tokio::test]
async fn a_second_host_is_told_that_the_folder_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { folder: Some(folder.path().into()), ..Settings::default() };
    let _first = Sessions::open(&settings).unwrap();
    let error = Sessions::open(&settings).unwrap_err().to_string();
    assert!(error.contains("another host") && error.contains("sessions.sqlite"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sessions.sqlite");
    std::fs::write(&file, "not a database, but somebody's text".repeat(100)).unwrap();
    let settings = Settings { folder: Some(folder.path().into()), ..Settings::default() };
    let error = Sessions::open(&settings).unwrap_err().to_string();
    assert!(error.contains("move it away"), "{error}");
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("not a database"));
}

#[tokio::test]
async fn a_session_that_is_deleted_during_a_turn_stays_deleted() {
    let folder = tempfile::tempdir().unwrap();
    for folder in [None, Some(folder.path().into())] {
        let sessions = Sessions::open(&Settings { folder, ..Settings::default() }).unwrap();
        let id = sessions.create(&tenant(), new("x")).await.unwrap().id;
        let turn = sessions.ask(&tenant(), id.as_str(), user("q")).await.unwrap();
        sessions.delete(&tenant(), id.as_str()).await.unwrap();
        let error = turn.finish("a".into(), USAGE).await.unwrap_err();
        assert_eq!(error.reason(), "UNKNOWN_SESSION");
        assert!(sessions.is_empty());
    }
}

#[tokio::test]
async fn a_turn_has_its_session_for_itself_and_leaves_it_as_it_was_when_dropped() {
    let sessions = Sessions::open(&Settings::default()).unwrap();
    let id = sessions.create(&tenant(), new("x")).await.unwrap().id;
    let id = id.as_str();
    let first = sessions.ask(&tenant(), id, user("q")).await.unwrap();
    assert_eq!(sessions.ask(&tenant(), id, user("q")).await.unwrap_err().reason(), "SESSION_BUSY");
    assert_eq!(sessions.append(&tenant(), id, user("q")).await.unwrap_err().reason(), "SESSION_BUSY");
    assert_eq!(first.prompt(0).len(), 2);
    drop(first);
    assert_eq!(texts(&sessions.get(&tenant(), id).unwrap()), ["x"]);
    sessions.ask(&tenant(), id, user("q")).await.unwrap().keep_partial("half".into(), USAGE);
    assert_eq!(texts(&sessions.get(&tenant(), id).unwrap()), ["x", "q", "half"]);
    // there is nothing to answer
    assert_eq!(sessions.ask(&tenant(), id, vec![]).await.unwrap_err().reason(), "INVALID_REQUEST");
    assert_eq!(sessions.get(&"other".into(), id).unwrap_err().reason(), "UNKNOWN_SESSION");
}

#[tokio::test]
async fn messages_tokens_and_bytes_have_an_end() {
    let settings = Settings { max_messages: 5, max_bytes: 8000, ..Settings::default() };
    let sessions = Sessions::open(&settings).unwrap();
    let refusing = NewSession { when_full: WhenFull::Refuse, token_budget: Some(14), ..new("x") };
    let id = sessions.create(&tenant(), refusing).await.unwrap().id;
    for question in ["a", "b"] {
        turn(&sessions, id.as_str(), question, 0).await;
    }
    let spent = sessions.ask(&tenant(), id.as_str(), user("c")).await.unwrap_err();
    assert_eq!(spent, SessionError::BudgetExhausted { budget: 14, spent: 14, n_prompt: 0 });
    assert_eq!(sessions.append(&tenant(), id.as_str(), user("c")).await.unwrap_err().reason(), "SESSION_FULL");

    let dropping = sessions.create(&tenant(), new("x")).await.unwrap().id;
    for question in ["a", "b"] {
        turn(&sessions, dropping.as_str(), question, 0).await;
    }
    let third = sessions.ask(&tenant(), dropping.as_str(), user("c")).await.unwrap();
    assert_eq!(third.choices(), [2, 4], "the first turn has to go");
    let after = third.finish("re c".into(), USAGE).await.unwrap();
    assert_eq!(texts(&after), ["x", "b", "re b", "c", "re c"]);

    let large = sessions.append(&tenant(), dropping.as_str(), user(&"y".repeat(8000))).await.unwrap_err();
    assert_eq!(large.reason(), "TOO_MANY_SESSIONS");
    sessions.append(&tenant(), dropping.as_str(), user("y")).await.unwrap();
}

#[tokio::test]
async fn what_nobody_uses_goes_in_memory_and_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { folder: Some(folder.path().into()), max_sessions: 1, ..Settings::default() };
    let now = Arc::new(AtomicU64::new(1));
    let clock = Arc::clone(&now);
    let sessions = Sessions::with_clock(&settings, Arc::new(move || clock.load(Ordering::Relaxed))).unwrap();
    let short = || NewSession { ttl: Some(Duration::from_secs(1)), ..new("x") };
    let id = sessions.create(&tenant(), short()).await.unwrap().id;
    assert_eq!(sessions.create(&tenant(), short()).await.unwrap_err().reason(), "TOO_MANY_SESSIONS");
    now.store(900, Ordering::Relaxed);
    turn(&sessions, id.as_str(), "a", 0).await;
    now.store(1800, Ordering::Relaxed);
    assert!(sessions.get(&tenant(), id.as_str()).is_ok(), "its turn was a use");
    now.store(1900, Ordering::Relaxed);
    assert_eq!(sessions.get(&tenant(), id.as_str()).unwrap_err().reason(), "UNKNOWN_SESSION");
    let next = sessions.create(&tenant(), short()).await.unwrap().id;
    sessions.flush().await;
    drop(sessions);
    let clock = Arc::clone(&now);
    let again = reopened(&settings).await;
    drop(again);
    let _ = clock;
    let file = folder.path().join("sessions.sqlite");
    let kept = loop {
        let opened = rusqlite::Connection::open(&file)
            .and_then(|c| c.query_row("SELECT id FROM session", [], |row| row.get::<_, String>(0)));
        match opened {
            Ok(id) => break id,
            Err(error) => assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy), "{error}"),
        }
    };
    assert_eq!(kept, next.as_str());
}

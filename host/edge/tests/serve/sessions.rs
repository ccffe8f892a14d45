use std::{sync::atomic::Ordering, time::Duration};

use futures::{StreamExt, TryStreamExt};
use llambo_client::{Client, Code, Error, Event, Finished, Generation, NewSession, Question};
use serde_json::{Value, json};

use crate::harness::{MAX_REQUEST_BYTES, MODEL, Running, within};

async fn ask(client: &Client, id: &str, text: &str) -> Result<Finished, Error> {
    let events: Vec<Event> = within(client.ask_session(Question::new(id, text)).await?.try_collect()).await?;
    match events.last() {
        Some(Event::Finished(end)) => Ok(end.clone()),
        other => panic!("{other:?}"),
    }
}

/// Everything said in a session, as `role: content`.
async fn said(client: &Client, id: &str) -> Vec<String> {
    let messages = client.session(id).await.unwrap().messages;
    messages.into_iter().map(|message| format!("{}: {}", message.role, message.content)).collect()
}

/// An answer of the `stuck` node, its one word read.
async fn stuck(client: &Client, question: Question) -> Generation {
    let mut events = within(client.ask_session(question)).await.unwrap();
    assert!(matches!(within(events.next()).await, Some(Ok(Event::Started(_)))));
    assert!(matches!(within(events.next()).await, Some(Ok(Event::Piece(_)))));
    events
}

async fn no_longer_busy(client: &Client, id: &str) {
    let idle = async {
        while client.session(id).await.unwrap().session.unwrap().busy {
            tokio::task::yield_now().await;
        }
    };
    within(idle).await;
}

fn short() -> NewSession {
    NewSession::new().node_type("fake").options(|options| options.max_tokens = Some(2))
}

#[tokio::test]
async fn a_conversation_goes_on_from_turn_to_turn() {
    let host = Running::start().await;
    let client = &host.client;
    let made =
        client.create_session(short().system("be brief").message("user", "hi").message("assistant", "yes?")).await.unwrap();
    assert_eq!((made.model.as_str(), made.n_messages, made.durable, made.busy), (MODEL, 3, false, false));
    assert_eq!(made.id.len(), 32);
    let first = ask(client, &made.id, "one").await.unwrap();
    // this engine reads each byte as a token: it was given all that was said
    assert_eq!(first.usage.unwrap().input_tokens, 8 + 2 + 4 + 3);
    let second = ask(client, &made.id, "two").await.unwrap();
    assert_eq!(second.usage.unwrap().input_tokens, 8 + 2 + 4 + 3 + 11 + 3);
    let expected = ["system: be brief", "user: hi", "assistant: yes?", "user: one", "assistant: word1 word2", "user: two"];
    assert_eq!(said(client, &made.id).await[..6], expected);
    let session = client.session(&made.id).await.unwrap().session.unwrap();
    let usage = session.usage.unwrap();
    assert_eq!((session.n_turns, usage.input_tokens, usage.output_tokens), (2, 17 + 31, 4));

    // a question may wait, and be answered later; an answer is no question
    client.append_messages(&made.id, [("user", "three")]).await.unwrap();
    let events: Vec<Event> = client.ask_session(Question::waiting(&made.id)).await.unwrap().try_collect().await.unwrap();
    assert!(matches!(events.last(), Some(Event::Finished(_))));
    let error = client.ask_session(Question::waiting(&made.id)).await.err().unwrap();
    assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, "INVALID_REQUEST"));
    assert_eq!(said(client, &made.id).await.len(), 9);
    host.stop().await;
}

#[tokio::test]
async fn a_session_has_one_turn_at_a_time_and_a_turn_that_is_called_off_has_never_been() {
    let host = Running::start().await;
    let client = &host.client;
    let id = client.create_session(NewSession::new().node_type("stuck").message("user", "before")).await.unwrap().id;
    let first = stuck(client, Question::new(&id, "x")).await;
    let busy = client.ask_session(Question::new(&id, "y")).await.err().unwrap();
    assert_eq!((busy.code(), busy.reason()), (Code::FailedPrecondition, "SESSION_BUSY"));
    assert_eq!(client.append_messages(&id, [("user", "y")]).await.unwrap_err().reason(), "SESSION_BUSY");
    assert_eq!(said(client, &id).await, ["user: before"]);
    drop(first);
    no_longer_busy(client, &id).await;
    assert_eq!(said(client, &id).await, ["user: before"]);

    // a deadline ends it as well; its beginning stays if that was asked for
    let mut late = stuck(client, Question::new(&id, "x").timeout(Duration::from_millis(300))).await;
    assert_eq!(within(late.next()).await.unwrap().unwrap_err().reason(), "DEADLINE_EXCEEDED");
    no_longer_busy(client, &id).await;
    assert_eq!(said(client, &id).await, ["user: before"]);
    drop(stuck(client, Question::new(&id, "x").keep_partial()).await);
    no_longer_busy(client, &id).await;
    assert_eq!(said(client, &id).await, ["user: before", "user: x", "assistant: word1"]);
    host.stop().await;
}

#[tokio::test]
async fn a_session_that_is_deleted_under_a_turn_is_gone() {
    let host = Running::start().await;
    let client = &host.client;
    let id = client.create_session(NewSession::new().node_type("stuck")).await.unwrap().id;
    let turn = stuck(client, Question::new(&id, "x").keep_partial()).await;
    client.delete_session(&id).await.unwrap();
    let gone = client.session(&id).await.unwrap_err();
    assert_eq!((gone.code(), gone.reason()), (Code::NotFound, "UNKNOWN_SESSION"));
    drop(turn);
    assert_eq!(client.delete_session(&id).await.unwrap_err().reason(), "UNKNOWN_SESSION");
    host.stop().await;
}

#[tokio::test]
async fn a_fork_and_its_origin_go_their_own_ways() {
    let host = Running::start().await;
    let client = &host.client;
    let id = client.create_session(short().label("team", "a")).await.unwrap().id;
    ask(client, &id, "one").await.unwrap();
    ask(client, &id, "two").await.unwrap();
    let fork = client.fork_session(&id, Some(2)).await.unwrap();
    assert_eq!((fork.parent.as_str(), fork.n_messages, fork.labels["team"].as_str()), (id.as_str(), 2, "a"));
    ask(client, &fork.id, "other").await.unwrap();
    ask(client, &id, "three").await.unwrap();
    assert_eq!(said(client, &fork.id).await, ["user: one", "assistant: word1 word2", "user: other", "assistant: word1 word2"]);
    assert_eq!(said(client, &id).await.len(), 6);
    client.delete_session(&id).await.unwrap();
    ask(client, &fork.id, "still there").await.unwrap();
    let error = client.fork_session(&fork.id, Some(100)).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, "INVALID_REQUEST"));
    host.stop().await;
}

#[tokio::test]
async fn a_budget_is_kept_within_an_answer_too() {
    let host = Running::start().await;
    let client = &host.client;
    let id = client.create_session(NewSession::new().node_type("fake").token_budget(30)).await.unwrap().id;
    let end = ask(client, &id, "0123456789").await.unwrap();
    assert_eq!(end.usage.unwrap().output_tokens, 20, "what the prompt left");
    let error = ask(client, &id, "more").await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, "SESSION_BUDGET_EXHAUSTED"));
    // the prompt alone would be too much
    let other = client.create_session(NewSession::new().node_type("fake").token_budget(5)).await.unwrap().id;
    assert_eq!(ask(client, &other, "0123456789").await.unwrap_err().reason(), "SESSION_BUDGET_EXHAUSTED");
    host.stop().await;
}

#[tokio::test]
async fn who_hangs_up_has_paid_for_what_was_told() {
    let host = Running::start().await;
    let client = &host.client;
    let id = client.create_session(NewSession::new().node_type("stuck").token_budget(30)).await.unwrap().id;
    drop(stuck(client, Question::new(&id, "x")).await);
    no_longer_busy(client, &id).await;
    let session = client.session(&id).await.unwrap().session.unwrap();
    assert_eq!((session.n_messages, session.n_turns), (0, 0), "it is as it was");
    let usage = session.usage.unwrap();
    assert!(usage.output_tokens == 1 && usage.input_tokens > 0, "{usage:?}");
    host.stop().await;
}

#[tokio::test]
async fn a_session_that_nobody_uses_is_gone_after_its_time() {
    let host = Running::start().await;
    let client = &host.client;
    let id = client.create_session(short().ttl(Duration::from_secs(10))).await.unwrap().id;
    host.now_ms.fetch_add(9_000, Ordering::Relaxed);
    ask(client, &id, "x").await.unwrap();
    host.now_ms.fetch_add(9_000, Ordering::Relaxed);
    assert_eq!(said(client, &id).await.len(), 2);
    host.now_ms.fetch_add(1_000, Ordering::Relaxed);
    assert_eq!(client.session(&id).await.unwrap_err().reason(), "UNKNOWN_SESSION");
    assert!(client.sessions(None).await.unwrap().is_empty());
    let error = client.create_session(short().ttl(Duration::from_hours(169))).await.unwrap_err();
    assert!(error.to_string().contains("sessions.max-ttl"), "{error}");
    host.stop().await;
}

#[tokio::test]
async fn what_no_longer_fits_is_refused_or_forgotten_as_the_session_says() {
    let host = Running::start().await;
    let client = &host.client;
    // this engine holds 1,024 tokens of a byte each
    let long = "x".repeat(300);
    let refusing = client.create_session(short()).await.unwrap().id;
    for _ in 0..3 {
        ask(client, &refusing, &long).await.unwrap();
    }
    let error = ask(client, &refusing, &long).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, "PROMPT_TOO_LONG"));
    assert!(error.to_string().contains("drop_oldest"), "{error}");
    assert_eq!(said(client, &refusing).await.len(), 6, "it is as it was");

    let id = client.create_session(short().system("stays").drop_oldest()).await.unwrap().id;
    for n in 0..9 {
        ask(client, &id, &format!("{n}{long}")).await.unwrap();
    }
    let all = said(client, &id).await;
    assert_eq!(all[0], "system: stays");
    assert!(all[1].starts_with("user: ") && all[all.len() - 2].starts_with("user: 8"), "{all:?}");
    let session = client.session(&id).await.unwrap().session.unwrap();
    assert_eq!((session.n_forgotten + all.len() as u64, session.n_turns), (1 + 18, 9));
    // one question alone can be too long
    assert_eq!(ask(client, &id, &long.repeat(4)).await.unwrap_err().reason(), "PROMPT_TOO_LONG");
    host.stop().await;
}

#[tokio::test]
async fn sessions_are_listed_page_by_page_and_mistakes_are_named() {
    let host = Running::start().await;
    let client = &host.client;
    for _ in 0..1005 {
        client.create_session(short()).await.unwrap();
    }
    assert_eq!(client.sessions(None).await.unwrap().len(), 1005);
    assert_eq!(client.sessions(Some(3)).await.unwrap().len(), 3);
    let cases = [
        (NewSession::new().model("gpt-9"), "UNKNOWN_MODEL"),
        (NewSession::new().message("robot", "x"), "INVALID_REQUEST"),
        (NewSession::new().options(|o| o.top_p = Some(2.0)), "INVALID_OPTION"),
        (NewSession::new().label("k".repeat(65), ""), "INVALID_REQUEST"),
        (NewSession::new().token_budget(0), "INVALID_REQUEST"),
    ];
    for (new, expected) in cases {
        assert_eq!(client.create_session(new).await.unwrap_err().reason(), expected);
    }
    for id in ["", "x", &"0".repeat(32), "../../etc"] {
        assert_eq!(client.session(id).await.unwrap_err().reason(), "UNKNOWN_SESSION");
    }
    host.stop().await;
}

fn parsed(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[tokio::test]
async fn the_same_is_done_over_http() {
    let host = Running::start().await;
    let new =
        json!({ "system": "be brief", "options": { "max_tokens": 2, "seed": 7 }, "ttl_ms": 60_000, "labels": { "team": "a" } });
    let (status, body) = host.call("POST", "/v2/sessions", &new.to_string()).await;
    let made = parsed(&body);
    assert_eq!((status.as_str(), &made["options"]["seed"], &made["durable"]), ("HTTP/1.1 201 Created", &json!(7), &json!(false)));
    let path = format!("/v2/sessions/{}", made["id"].as_str().unwrap());

    let (status, body) = host.call("POST", &format!("{path}/ask"), r#"{"text": "hi"}"#).await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    let events: Vec<(String, Value)> = body
        .split("\n\n")
        .filter_map(|event| event.split_once('\n'))
        .map(|(name, data)| (name.replace("event: ", ""), parsed(data.strip_prefix("data: ").unwrap())))
        .collect();
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["started", "token", "token", "end"]);
    assert_eq!((&events[0].1["model"], &events[1].1["text"]), (&json!(MODEL), &json!("word1")));
    assert_eq!(events[3].1["usage"], json!({ "input_tokens": 10, "output_tokens": 2, "cached_tokens": 0 }));

    let question =
        json!({ "messages": [{ "role": "user", "content": "again" }], "stream": false, "options": { "max_tokens": 1 } });
    let (_, body) = host.call("POST", &format!("{path}/ask"), &question.to_string()).await;
    assert_eq!((&parsed(&body)["text"], &parsed(&body)["finish_reason"]), (&json!("word1"), &json!("length")));
    let append = json!({ "messages": [{ "role": "user", "content": "more" }] });
    let (_, body) = host.call("POST", &format!("{path}/messages"), &append.to_string()).await;
    assert_eq!(parsed(&body)["n_messages"], 6);
    let (_, body) = host.get(&format!("{path}/messages")).await;
    assert_eq!(parsed(&body)["messages"][4], json!({ "role": "assistant", "content": "word1" }));
    let (status, body) = host.call("POST", &format!("{path}/fork"), r#"{"at_message": 1}"#).await;
    assert_eq!((status.as_str(), &parsed(&body)["n_messages"]), ("HTTP/1.1 201 Created", &json!(1)));
    let (_, body) = host.get("/v2/sessions?limit=1").await;
    let page = parsed(&body);
    assert_eq!(page["sessions"].as_array().unwrap().len(), 1);
    let (_, body) = host.get(&format!("/v2/sessions?after={}", page["next"].as_str().unwrap())).await;
    assert_eq!((parsed(&body)["sessions"].as_array().unwrap().len(), &parsed(&body)["next"]), (1, &Value::Null));
    let (_, body) = host.get(&path).await;
    assert_eq!((&parsed(&body)["n_turns"], &parsed(&body)["messages"][0]["role"]), (&json!(2), &json!("system")));

    let (status, _) = host.call("DELETE", &path, "").await;
    assert_eq!(status, "HTTP/1.1 204 No Content");
    let (status, body) = host.get(&path).await;
    let error = &parsed(&body)["error"];
    assert_eq!(status, "HTTP/1.1 404 Not Found");
    assert_eq!((&error["code"], &error["type"]), (&json!("unknown_session"), &json!("not_found_error")));
    host.stop().await;
}

#[tokio::test]
async fn what_is_wrong_over_http_is_told_as_an_error_object() {
    let host = Running::start().await;
    let (_, body) = host.call("POST", "/v2/sessions", r#"{"type": "stuck"}"#).await;
    let id = parsed(&body)["id"].as_str().unwrap().to_owned();
    let turn = stuck(&host.client, Question::new(&id, "x")).await;
    let ask = format!("/v2/sessions/{id}/ask");
    let large = format!(r#"{{"text": "{}"}}"#, "x".repeat(MAX_REQUEST_BYTES));
    let cases = [
        ("POST", "/v2/sessions", r#"{"sytem": "x"}"#, "400", "invalid_request", json!("sytem")),
        ("POST", "/v2/sessions", "{", "400", "invalid_request", Value::Null),
        ("POST", "/v2/sessions", r#"{"options": {"top_p": 2}}"#, "400", "invalid_option", json!("options.top_p")),
        ("POST", "/v2/sessions", r#"{"when_full": "explode"}"#, "400", "invalid_request", json!("when_full")),
        ("POST", &ask, r#"{"text": "y"}"#, "409", "session_busy", Value::Null),
        (
            "POST",
            &ask,
            r#"{"text": "y", "messages": [{"role": "user", "content": ""}]}"#,
            "400",
            "invalid_request",
            json!("text"),
        ),
        ("POST", &ask, &large, "413", "request_too_large", Value::Null),
        ("GET", "/v2/sessions?limit=5000", "", "400", "invalid_request", json!("limit")),
        ("GET", "/v2/sessions?color=red", "", "400", "invalid_request", Value::Null),
        ("GET", "/v2/sessions?after=zzz", "", "400", "invalid_request", Value::Null),
        ("DELETE", "/v2/sessions/x", "", "404", "unknown_session", Value::Null),
    ];
    for (method, path, body, status, code, param) in cases {
        let (line, body) = host.call(method, path, body).await;
        let error = &parsed(&body)["error"];
        assert!(line.contains(status), "{path}: {line} {body}");
        assert_eq!((&error["code"], &error["param"]), (&json!(code), &param), "{path}: {body}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
    drop(turn);
    host.stop().await;
}

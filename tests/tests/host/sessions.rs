//! Conversations that the host keeps, on the real engine and through the end of the process.

use std::path::Path;

use futures::{StreamExt, TryStreamExt};
use llambo_client::{Client, Event, Finished, NewSession, Question};
use llambo_tests::Host;

const MODEL: &str = "models: [{name: demo-small, path: builtin:demo-small, sequences: 8}]\ntypes: {tiny: {count: 4}}\n";

fn durable(folder: &Path) -> String {
    format!("{MODEL}sessions: {{folder: \"{}\"}}\n", folder.display())
}

fn greedy(max_tokens: u32) -> NewSession {
    NewSession::new().options(|options| {
        options.max_tokens = Some(max_tokens);
        options.temperature = Some(0.0);
    })
}

async fn ask(client: &Client, id: &str, text: &str) -> (String, Finished) {
    let events: Vec<Event> = client.ask_session(Question::new(id, text)).await.unwrap().try_collect().await.unwrap();
    let mut answer = String::new();
    for event in events {
        match event {
            Event::Started(_) => {}
            Event::Piece(piece) => answer.push_str(&piece.text),
            Event::Finished(end) => return (answer, end),
        }
    }
    panic!("the answer has no end");
}

async fn said(client: &Client, id: &str) -> Vec<(String, String)> {
    let messages = client.session(id).await.unwrap().messages;
    messages.into_iter().map(|message| (message.role, message.content)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_begins_from_what_the_turns_before_computed() {
    let host = Host::start(MODEL);
    let client = host.client().await;
    let id = client.create_session(greedy(24).system("You explain Rust to people who know other languages.")).await.unwrap().id;
    let (first, end) = ask(&client, &id, "What is ownership, and what is it good for?").await;
    let computed = end.usage.unwrap().input_tokens;
    let (_, end) = ask(&client, &id, "And borrowing?").await;
    let usage = end.usage.unwrap();
    assert!(usage.input_tokens > computed, "the whole conversation is asked: {usage:?}");
    assert!(usage.cached_tokens * 10 > computed * 8, "of {computed} tokens of the first prompt: {usage:?}");
    let all = said(&client, &id).await;
    assert_eq!((all.len(), all[2].1.as_str()), (5, first.as_str()));

    // what was computed for one session is of use for its fork
    let fork = client.fork_session(&id, Some(3)).await.unwrap();
    let (_, end) = ask(&client, &fork.id, "And lifetimes?").await;
    assert!(end.usage.unwrap().cached_tokens > 0, "{end:?}");
    let kept = client.session(&id).await.unwrap().session.unwrap();
    assert_eq!(kept.usage.unwrap().cached_tokens, u64::from(usage.cached_tokens));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_to_be_finished_outlives_a_kill_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let config = durable(folder.path());
    let mut host = Host::start(&config);
    let id = host.client().await.create_session(greedy(8).system("Be brief.")).await.unwrap().id;
    let mut expected = vec![("system".to_owned(), "Be brief.".to_owned())];
    for round in 0..4 {
        let client = host.client().await;
        let question = format!("What is a trait? ({round})");
        let (answer, _) = ask(&client, &id, &question).await;
        expected.extend([("user".to_owned(), question), ("assistant".to_owned(), answer)]);
        // in two of the rounds it is killed in the middle of a turn, in the others right behind the end of one
        let mut open = None;
        if round % 2 == 1 {
            let long = Question::new(&id, "Go on for ever").options(|options| {
                options.max_tokens = Some(900);
                options.ignore_eos = true;
            });
            let mut events = client.ask_session(long).await.unwrap();
            assert!(matches!(events.next().await, Some(Ok(Event::Started(_)))));
            assert!(matches!(events.next().await, Some(Ok(Event::Piece(_)))));
            open = Some(events);
        }
        host.signal("KILL");
        let (status, _) = tokio::task::spawn_blocking(move || host.wait()).await.unwrap();
        assert_eq!(status.code(), None, "a signal ended it");
        drop(open);
        host = Host::start(&config);
        let client = host.client().await;
        let kept = client.session(&id).await.unwrap().session.unwrap();
        assert_eq!((kept.n_turns, kept.durable, kept.busy), (round + 1, true, false));
        assert_eq!(said(&client, &id).await, expected);
    }
    // its keys and values are gone with the process: the same is answered as by one who never lost them
    let (answer, _) = ask(&host.client().await, &id, "And a type?").await;
    let whole = Host::start(MODEL);
    let client = whole.client().await;
    let mut new = greedy(8);
    for (role, content) in &expected {
        new = new.message(role, content);
    }
    let other = client.create_session(new).await.unwrap().id;
    assert_eq!(ask(&client, &other, "And a type?").await.0, answer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_has_one_host_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Host::start(&durable(folder.path()));
    let file = folder.path().join("second.yaml");
    std::fs::write(&file, format!("{}network: {{grpc: 127.0.0.1:0, http: 127.0.0.1:0}}\n", durable(folder.path()))).unwrap();
    let output = llambo_tests::llambo(&["serve", "--config", file.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{told}");
    assert!(told.contains("another host"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn llamboctl_makes_asks_shows_lists_forks_and_deletes() {
    let host = Host::start(MODEL);
    let made =
        host.json(&["session", "create", "--system", "Be brief.", "--max-tokens", "4", "--token-budget", "500", "--ttl", "5m"]);
    let id = made["id"].as_str().unwrap();
    assert_eq!((&made["ttl_ms"], &made["token_budget"], &made["durable"]), (&300_000.into(), &500.into(), &false.into()));
    let answer = host.json(&["session", "ask", id, "What is a trait?"]);
    assert_eq!(answer["usage"]["output_tokens"], 4);
    let shown = host.json(&["session", "show", id]);
    assert_eq!((&shown["n_turns"], &shown["messages"][2]["content"]), (&1.into(), &answer["text"]));
    let fork = host.json(&["session", "fork", id, "--at", "1"]);
    assert_eq!((&fork["parent"], &fork["n_messages"]), (&made["id"], &1.into()));
    assert_eq!(host.json(&["session", "list"]).as_array().unwrap().len(), 2);
    let table = host.llamboctl(&["session", "list", "--limit", "1"]);
    assert_eq!(String::from_utf8_lossy(&table.stdout).lines().count(), 2);
    assert_eq!(host.json(&["session", "delete", id])["deleted"], true);
    let gone = host.llamboctl(&["session", "ask", id, "x"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("there is no session"));
}

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpStream, time::Instant};

use super::{chat, chat_body, content};
use crate::harness::{Running, within};

const CHAT: &str = "/v1/chat/completions";

/// Reads until that was said.
async fn until(stream: &mut TcpStream, said: &str) {
    let (mut all, mut chunk) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&all).contains(said) {
        let n = within(stream.read(&mut chunk)).await.unwrap();
        assert!(n > 0, "the answer ended without {said}: {}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&chunk[..n]);
    }
}

/// Waits until nothing is under way, and says how many requests were called off.
async fn cancelled(host: &Running) -> u64 {
    host.cluster.start_drain();
    host.cluster.drained(Duration::from_secs(20)).await.unwrap();
    host.cluster.status().totals.cancelled
}

/// Waits until so many requests are under way.
async fn in_flight(host: &Running, n: usize) {
    let reached = async {
        while host.cluster.status().in_flight != n {
            tokio::task::yield_now().await;
        }
    };
    within(reached).await;
}

#[tokio::test]
async fn a_client_that_goes_frees_its_nodes() {
    let host = Running::start_fake().await;
    let streamed = chat_body("stall", &json!({ "stream": true, "n": 2 })).to_string();
    let mut stream = host.open("POST", CHAT, "", &streamed).await;
    until(&mut stream, "\"content\":\"word\"").await;
    in_flight(&host, 2).await;
    drop(stream);
    in_flight(&host, 0).await;
    // of these nothing was told yet
    for (path, body) in [
        (CHAT, chat_body("never", &json!({}))),
        (CHAT, chat_body("never", &json!({ "stream": true }))),
        ("/v1/completions", json!({ "prompt": "stall" })),
    ] {
        let silent = host.open("POST", path, "", &body.to_string()).await;
        in_flight(&host, 1).await;
        drop(silent);
        in_flight(&host, 0).await;
    }
    assert_eq!(cancelled(&host).await, 5);
    host.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_gives_its_node_back() {
    let host = Running::start_fake().await;
    let long = chat_body("hello", &json!({ "stream": true, "max_tokens": 10_000_000 })).to_string();
    let mut stream = host.open("POST", CHAT, "", &long).await;
    until(&mut stream, "word1").await;
    // it stays connected
    assert_eq!(cancelled(&host).await, 1);
    drop(stream);
    host.stop().await;
}

#[tokio::test]
async fn what_fails_in_the_middle_says_so_and_is_not_done() {
    let host = Running::start_fake().await;
    let events = chat(&host, "break", json!({ "stream": true })).await.events();
    let [_, word, error] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(word["choices"][0]["delta"]["content"], "word");
    assert_eq!((&error["error"]["type"], &error["error"]["code"]), (&"server_error".into(), &"backend_failed".into()));
    let whole = chat(&host, "break", json!({})).await;
    assert_eq!((whole.status, &whole.error()["code"]), (500, &"backend_failed".into()));
    host.stop().await;
}

#[tokio::test]
async fn time_that_is_over_is_told() {
    let host = Running::start_fake().await;
    let timeout = "llambo-timeout-ms: 300\r\n";
    let whole = host.send("POST", CHAT, timeout, &chat_body("stall", &json!({})).to_string()).await;
    assert_eq!((whole.status, &whole.error()["code"]), (504, &"deadline_exceeded".into()));
    assert_eq!(whole.headers["x-should-retry"], "false");
    let streamed = host.send("POST", CHAT, timeout, &chat_body("stall", &json!({ "stream": true })).to_string()).await;
    assert_eq!(streamed.status, 200);
    assert_eq!(streamed.events().last().unwrap()["error"]["code"], "deadline_exceeded");
    let silent = host.send("POST", CHAT, timeout, &chat_body("never", &json!({ "stream": true })).to_string()).await;
    assert_eq!(silent.status, 504);
    host.stop().await;
}

#[tokio::test]
async fn a_clients_patience_bounds_a_whole_answer_and_the_beginning_of_a_stream() {
    let host = Running::start_fake().await;
    let patience = "X-Stainless-Timeout: 0.3\r\n";
    let slow = |fields| chat_body("slow", &fields).to_string();
    assert_eq!(host.send("POST", CHAT, patience, &slow(json!({}))).await.status, 504);
    let begin = Instant::now();
    let streamed = host.send("POST", CHAT, patience, &slow(json!({ "stream": true }))).await.events();
    assert!(begin.elapsed() > Duration::from_millis(300), "it was slow");
    assert_eq!(streamed.last().unwrap(), "[DONE]");
    let silent = host.send("POST", CHAT, patience, &chat_body("never", &json!({ "stream": true })).to_string()).await;
    assert_eq!(silent.status, 504);
    // what Node's client sends for less than a second
    let zero = host.send("POST", CHAT, "X-Stainless-Timeout: 0\r\n", &slow(json!({}))).await;
    assert_eq!(content(&zero), "wordwordwordwordwordword");
    host.stop().await;
}

// one thread: the recorder of this test must not see the requests of others, nor miss its own
#[tokio::test(flavor = "current_thread")]
async fn requests_are_counted_by_route_and_end() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let host = Running::start_with(handle.clone()).await;
    chat(&host, "say x", json!({})).await;
    chat(&host, "say x", json!({ "stream": true })).await;
    chat(&host, "break", json!({ "stream": true })).await;
    chat(&host, "x", json!({ "model": "other" })).await;
    host.send("GET", "/v1/models/a%2Fb", "", "").await;
    host.send("HEAD", "/v1/models", "", "").await;
    host.get("/livez").await;
    host.send("GET", "/wp-login.php", "", "").await;
    let mut stream = host.open("POST", CHAT, "", &chat_body("stall", &json!({ "stream": true })).to_string()).await;
    until(&mut stream, "word").await;
    drop(stream);
    for (route, code, at_least) in [
        (CHAT, "200", 2),
        (CHAT, "500", 1),
        (CHAT, "404", 1),
        (CHAT, "CANCELLED", 1),
        ("/v1/models/{*id}", "404", 1),
        ("/v1/models", "200", 1),
        ("other", "404", 1),
    ] {
        let line = format!("llambo_edge_requests_total{{method=\"{route}\",code=\"{code}\"}} ");
        let counted = async {
            loop {
                let text = handle.render();
                let found = text.lines().find_map(|text| text.strip_prefix(&line)).and_then(|n| n.parse::<u64>().ok());
                if found.is_some_and(|n| n >= at_least) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(10), counted).await.is_ok(), "{line}\n{}", handle.render());
    }
    assert!(!handle.render().contains("/livez"), "probes are not counted");
    host.stop().await;
}

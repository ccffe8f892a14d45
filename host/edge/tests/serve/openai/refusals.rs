use std::time::Duration;

use serde_json::json;

use super::chat;
use crate::harness::{MAX_REQUEST_BYTES, Running, within};

#[tokio::test]
async fn what_is_wrong_with_a_body_is_told_with_its_field() {
    let host = Running::start_fake().await;
    let user = json!([{ "role": "user", "content": "hello" }]);
    let cases = [
        ("messages[0].role", json!({ "messages": [{ "role": "robot", "content": "x" }] })),
        ("messages[0].content", json!({ "messages": [{ "role": "user", "content": 5 }] })),
        (
            "messages[0].content[1]",
            json!({ "messages": [{ "role": "user", "content": [
            { "type": "text", "text": "x" }, { "type": "image_url", "image_url": { "url": "https://example.org/x.png" } }] }] }),
        ),
        ("messages", json!({ "messages": [] })),
        ("messages", json!({ "messages": [{ "role": "user", "content": "" }] })),
        ("temperature", json!({ "messages": user, "temperature": "hot" })),
        ("temperature", json!({ "messages": user, "temperature": 11 })),
        ("max_tokens", json!({ "messages": user, "max_tokens": 0 })),
        ("max_tokens", json!({ "messages": user, "max_tokens": -5 })),
        ("stop", json!({ "messages": user, "stop": [""] })),
        ("stop", json!({ "messages": user, "stop": { "a": 1 } })),
        ("n", json!({ "messages": user, "n": 1000 })),
        ("logit_bias", json!({ "messages": user, "logit_bias": { "hello": 1 } })),
        ("logit_bias", json!({ "messages": user, "logit_bias": { "1": 101 } })),
        ("top_logprobs", json!({ "messages": user, "logprobs": true, "top_logprobs": 21 })),
        ("top_logprobs", json!({ "messages": user, "top_logprobs": 2 })),
        ("stream_options", json!({ "messages": user, "stream_options": { "include_usage": true } })),
        ("response_format", json!({ "messages": user, "response_format": { "type": "yaml" } })),
        ("tool_choice", json!({ "messages": user, "tools": [], "tool_choice": "perhaps" })),
        ("functions", json!({ "messages": user, "functions": [{ "name": "f" }] })),
        ("modalities", json!({ "messages": user, "modalities": ["text", "audio"] })),
        ("metadata", json!({ "messages": user, "metadata": { "a": "x".repeat(300) } })),
    ];
    for (param, body) in cases {
        let reply = host.post("/v1/chat/completions", &body).await;
        let error = reply.error();
        assert_eq!((reply.status, &error["type"]), (400, &"invalid_request_error".into()), "{body}: {error}");
        let told = error["param"].as_str().unwrap_or_else(|| panic!("{body}: {error}"));
        assert!(told.starts_with(param), "{param}: {error}");
    }
    let missing = host.post("/v1/chat/completions", &json!({})).await.error();
    assert!(missing["message"].as_str().unwrap().contains("missing field `messages`"), "{missing}");
    host.stop().await;
}

#[tokio::test]
async fn every_refusal_has_the_status_and_form_that_clients_know() {
    let host = Running::start_fake().await;
    let chat_path = "/v1/chat/completions";
    let too_large = "x".repeat(MAX_REQUEST_BYTES + 1);
    let cases = [
        (400, "invalid_request", host.send("POST", chat_path, "", "{").await),
        (400, "invalid_request", host.send("POST", chat_path, "", &"[".repeat(5000)).await),
        (400, "invalid_request", host.send("POST", chat_path, "", "").await),
        (404, "model_not_found", chat(&host, "x", json!({ "model": "other" })).await),
        (404, "unknown_url", host.send("GET", "/v1/nothing", "", "").await),
        (405, "method_not_allowed", host.send("GET", chat_path, "", "").await),
        (413, "request_too_large", chat(&host, &too_large, json!({})).await),
        (415, "unsupported_media_type", host.send("POST", chat_path, "Content-Type: text/plain\r\n", "{}").await),
    ];
    for (status, code, reply) in cases {
        assert_eq!((reply.status, &reply.error()["code"]), (status, &code.into()), "{}", reply.body);
        assert_eq!((reply.headers["content-type"].as_str(), reply.headers["x-request-id"].len()), ("application/json", 16));
    }
    host.stop().await;
}

#[tokio::test]
async fn a_body_far_too_large_is_refused_and_not_cut_off() {
    let host = Running::start_fake().await;
    let reply = chat(&host, &"x".repeat(8 << 20), json!({})).await;
    assert_eq!((reply.status, &reply.error()["code"]), (413, &"request_too_large".into()));
    host.stop().await;
}

#[tokio::test]
async fn a_clients_own_name_for_its_request_is_kept_where_it_is_printable() {
    let host = Running::start_fake().await;
    let send = async |id: &str| {
        host.send("GET", "/v1/models", &format!("X-Request-ID: {id}\r\n"), "").await.headers["x-request-id"].clone()
    };
    assert_eq!(send("mine-1").await, "mine-1");
    assert_eq!(send(&"x".repeat(128)).await.len(), 128);
    for bad in ["x".repeat(129), "a b".into(), "é".into()] {
        assert_eq!(send(&bad).await.len(), 16, "{bad}");
    }
    let own = host
        .send("POST", "/v1/chat/completions", "x-request-id: mine-2\r\n", &super::chat_body("show", &json!({})).to_string())
        .await;
    assert!(super::content(&own).contains("\"mine-2\""), "it goes with the request");
    host.stop().await;
}

#[tokio::test]
async fn a_host_that_drains_says_when_to_come_back() {
    let host = Running::start_fake().await;
    host.cluster.start_drain();
    for (path, body) in [
        ("/v1/chat/completions", super::chat_body("hello", &json!({}))),
        ("/v1/chat/completions", super::chat_body("hello", &json!({ "stream": true }))),
        ("/v1/completions", json!({ "prompt": "x" })),
        ("/v1/embeddings", json!({ "input": "x" })),
    ] {
        let reply = host.post(path, &body).await;
        assert_eq!((reply.status, &reply.error()["code"]), (503, &"draining".into()), "{path}");
        assert_eq!((reply.headers["retry-after"].as_str(), reply.headers["retry-after-ms"].as_str()), ("1", "1000"));
    }
    within(host.cluster.drained(Duration::from_secs(5))).await.unwrap();
    host.stop().await;
}

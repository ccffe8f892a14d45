use base64::{Engine, prelude::BASE64_STANDARD};
use llambo_client::Ask;
use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::{
    harness::{Running, within},
    web::Reply,
};

/// Names and data of all events.
fn events(reply: &Reply) -> Vec<(String, Value)> {
    assert_eq!((reply.status, reply.headers["content-type"].as_str()), (200, "text/event-stream"), "{}", reply.body);
    let events = reply.body.split_terminator("\n\n").map(|event| {
        let (name, data) = event.split_once('\n').unwrap();
        let name = name.strip_prefix("event: ").unwrap().to_owned();
        (name, serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap())
    });
    events.collect()
}

/// What runs say, read as the document says.
fn runs(field: &Value) -> Vec<(u32, u32, u32)> {
    let bytes = BASE64_STANDARD.decode(field["runs"].as_str().unwrap()).unwrap();
    let mut numbers = Vec::new();
    let (mut number, mut shift) = (0, 0);
    for byte in bytes {
        number |= u32::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            numbers.push(number);
            (number, shift) = (0, 0);
        }
    }
    assert_eq!(shift, 0);
    numbers.chunks(3).map(|run| (run[0], run[1], run[2])).collect()
}

#[tokio::test]
async fn a_watch_tells_the_status_and_all_nodes_in_runs() {
    let host = Running::start().await;
    let reply = host.send("GET", "/cluster/watch?times=2&interval-ms=100&cells=true", "", "").await;
    let told = events(&reply);
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["field", "status", "status"], "nothing changed between the two");
    let field = &told[0].1;
    assert_eq!((&field["whole"], &field["first_kind"]), (&true.into(), &0.into()));
    assert_eq!((&field["kinds"][0]["type"], &field["kinds"][1]["type"]), (&"fake".into(), &"stuck".into()));
    // three ready ones of the first kind, then one of the second
    assert_eq!(runs(field), [(0, 3, 2), (0, 1, 10)]);
    assert!(told[1].1["span"].is_null() && told[2].1["span"]["ttft_p50_ms"].is_null());
    assert_eq!(told[2].1["status"]["nodes_by_state"]["ready"], 4);
    host.stop().await;
}

#[tokio::test]
async fn a_watch_tells_what_was_served_and_where() {
    let host = Running::start_fake().await;
    let mut stream = host.open("GET", "/cluster/watch?interval-ms=100&cells=true", "", "").await;
    let (mut all, mut chunk) = (String::new(), [0; 4096]);
    let mut asked = false;
    let served = async {
        while !all.contains("\"first_tokens\":1") {
            let n = stream.read(&mut chunk).await.unwrap();
            assert!(n > 0, "{all}");
            all.push_str(std::str::from_utf8(&chunk[..n]).unwrap());
            if !asked && all.contains("event: status") {
                asked = true;
                host.client.infer(Ask::text("x").max_tokens(4)).await.unwrap();
            }
        }
    };
    within(served).await;
    assert!(all.contains("\"generated_tokens\":4"), "{all}");
    let changed = all.split("\n\n").filter(|event| event.contains("event: field")).last().unwrap();
    assert!(changed.contains("\"whole\":false"), "{changed}");
    // a watch does not keep the edge from ending
    host.stop().await;
}

#[tokio::test]
async fn the_node_at_a_place_is_told_and_a_place_without_one_too() {
    let host = Running::start().await;
    let node = host.send("GET", "/cluster/cells/3", "", "").await.json();
    assert_eq!((&node["id"], &node["type"], &node["state"]), (&"stuck-3".into(), &"stuck".into(), &"ready".into()));
    let vacant = host.send("GET", "/cluster/cells/4", "", "").await;
    assert_eq!((vacant.status, &vacant.error()["code"]), (404, &"unknown_node".into()));
    for wrong in ["x", "-1", "4294967296", "%00"] {
        assert_eq!(host.send("GET", &format!("/cluster/cells/{wrong}"), "", "").await.status, 400, "{wrong}");
    }
    host.stop().await;
}

#[tokio::test]
async fn a_watch_that_cannot_be_is_refused() {
    let host = Running::start_fake().await;
    for (query, param) in [("interval-ms=99", "interval-ms"), ("interval-ms=60001", "interval-ms"), ("times=0", "times")] {
        let refused = host.send("GET", &format!("/cluster/watch?{query}"), "", "").await;
        assert_eq!((refused.status, &refused.error()["param"]), (400, &param.into()), "{query}");
    }
    for query in ["interval-ms=x", "cells=maybe", "times=-1", "interval-ms=1&interval-ms=2"] {
        assert_eq!(host.send("GET", &format!("/cluster/watch?{query}"), "", "").await.status, 400, "{query}");
    }
    host.stop().await;
}

#[tokio::test]
async fn a_streamed_answer_names_its_node() {
    let host = Running::start_fake().await;
    let body = r#"{"messages": [{"role": "user", "content": "x"}], "stream": true, "max_tokens": 2, "tier": 0}"#;
    let answer = host.send("POST", "/v1/chat/completions", "", body).await;
    assert!(answer.headers["llambo-node"].starts_with("fake-"), "{:?}", answer.headers);
    let refused = host.send("POST", "/v1/chat/completions", "", &body.replace("\"tier\": 0", "\"tier\": 3")).await;
    assert_eq!((refused.status, &refused.error()["param"]), (400, &"tier".into()));
    host.stop().await;
}

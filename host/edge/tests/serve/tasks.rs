use std::time::Duration;

use llambo_inference::{GenerateRequest, Priority, Prompt, Routing, Sampling, Share};
use llambo_tasks::{NewTask, Work};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::harness::{MAX_REQUEST_BYTES, MODEL, Running, within};

/// Status, headers in lower case, and body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    fn code(&self) -> (u16, String) {
        (self.status, self.json()["error"]["code"].as_str().unwrap().to_owned())
    }
}

fn head(method: &str, path: &str, headers: &[(&str, &str)], n_bytes: usize) -> String {
    let headers = headers.iter().fold(String::new(), |all, (name, value)| all + name + ": " + value + "\r\n");
    format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {n_bytes}\r\n{headers}\r\n")
}

impl Running {
    async fn http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(format!("{}{body}", head(method, path, headers, body.len())).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        within(stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: unchunked(head, body) }
    }

    async fn submit(&self, task: &Value) -> Answer {
        self.http("POST", "/v2/tasks", &[], &task.to_string()).await
    }

    /// The task, once it has ended.
    async fn ended(&self, id: &str) -> Value {
        within(async {
            loop {
                let task = self.http("GET", &format!("/v2/tasks/{id}"), &[], "").await.json();
                if !["queued", "running"].contains(&task["state"].as_str().unwrap()) {
                    return task;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// Each event as its name, id and data.
    async fn events(&self, id: &str, last: Option<&str>) -> Vec<(String, String, Value)> {
        let headers: Vec<_> = last.iter().map(|last| ("Last-Event-ID", *last)).collect();
        let answer = self.http("GET", &format!("/v2/tasks/{id}/events"), &headers, "").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        parsed(&answer.body)
    }
}

fn unchunked(head: &str, body: &str) -> String {
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let (mut rest, mut whole) = (body, String::new());
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        whole.push_str(&after[..length]);
        rest = after[length..].strip_prefix("\r\n").unwrap_or_default();
    }
    whole
}

fn parsed(body: &str) -> Vec<(String, String, Value)> {
    let blocks = body.split("\n\n").filter(|block| block.contains("event:"));
    blocks
        .map(|block| {
            let field = |name: &str| {
                let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                line.unwrap_or_default().trim_start().to_owned()
            };
            (field("event"), field("id"), serde_json::from_str(&field("data")).unwrap())
        })
        .collect()
}

fn text(events: &[(String, String, Value)]) -> String {
    events.iter().filter(|(name, ..)| name == "token").map(|(.., data)| data["text"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_task_is_accepted_run_told_and_forgotten() {
    let host = Running::start().await;
    let accepted = host.submit(&json!({"prompt": "hello", "max_tokens": 3, "id": "mine", "labels": {"a": "b"}})).await;
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    assert!(accepted.head.contains("location: /v2/tasks/mine"), "{}", accepted.head);
    let task = accepted.json();
    assert_eq!((&task["id"], &task["model"], &task["durable"]), (&json!("mine"), &json!(MODEL), &json!(false)));
    assert_eq!((&task["priority"], &task["labels"]), (&json!("batch"), &json!({"a": "b"})));
    let task = host.ended("mine").await;
    assert_eq!((&task["state"], &task["text"]), (&json!("finished"), &json!("word1 word2 word3")));
    assert_eq!((&task["finish_reason"], &task["attempts"]), (&json!("length"), &json!(1)));
    assert_eq!(task["usage"], json!({"input_tokens": 5, "cached_tokens": 0, "output_tokens": 3}));
    assert!(task["node"].as_str().unwrap().starts_with("fake-"));
    assert!(task["created_at_ms"].as_i64() <= task["started_at_ms"].as_i64() && task["ended_at_ms"].is_i64());

    let listed = host.http("GET", "/v2/tasks?state=finished&limit=1", &[], "").await.json();
    assert_eq!((&listed["tasks"][0]["id"], &listed["has_more"]), (&json!("mine"), &json!(false)));
    assert!(listed["tasks"][0]["text"].is_null());
    assert_eq!(host.http("DELETE", "/v2/tasks/mine", &[], "").await.status, 204);
    assert_eq!(host.http("GET", "/v2/tasks/mine", &[], "").await.code(), (404, "unknown_task".into()));
    assert_eq!(host.http("DELETE", "/v2/tasks/mine", &[], "").await.code(), (404, "unknown_task".into()));
    host.stop().await;
}

#[tokio::test]
async fn the_same_task_submitted_twice_is_one_task() {
    let host = Running::start().await;
    let key = [("Idempotency-Key", "k1")];
    let body = r#"{"prompt": "hello", "max_tokens": 3}"#;
    let first = host.http("POST", "/v2/tasks", &key, body).await;
    let again = host.http("POST", "/v2/tasks", &key, r#"{ "max_tokens": 3, "prompt": "hello" }"#).await;
    assert_eq!((first.status, again.status), (202, 200));
    assert_eq!(first.json()["id"], again.json()["id"]);
    let other = host.http("POST", "/v2/tasks", &key, r#"{"prompt": "hello", "max_tokens": 4}"#).await;
    assert_eq!(other.code(), (409, "task_conflict".into()));
    assert_eq!(host.submit(&json!({"prompt": "a", "id": "x"})).await.status, 202);
    assert_eq!(host.submit(&json!({"prompt": "a", "id": "x"})).await.status, 200);
    assert_eq!(host.submit(&json!({"prompt": "b", "id": "x"})).await.code(), (409, "task_conflict".into()));
    assert_eq!(host.http("GET", "/v2/tasks", &[], "").await.json()["tasks"].as_array().unwrap().len(), 2);
    host.stop().await;
}

#[tokio::test]
async fn events_go_on_behind_any_of_them_and_end_once() {
    let host = Running::start().await;
    host.submit(&json!({"prompt": "hello", "max_tokens": 40, "id": "t"})).await;
    let live = host.events("t", None).await;
    let whole = text(&live);
    assert_eq!(whole, host.ended("t").await["text"].as_str().unwrap());
    let names: Vec<_> = live.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!((names[0], names[names.len() - 1], names.len()), ("started", "end", 42));
    assert_eq!((&live[41].1, &live[41].2["state"]), (&"end".to_owned(), &json!("finished")));
    for (i, (_, id, _)) in live.iter().enumerate().take(41) {
        let rest = host.events("t", Some(id)).await;
        assert_eq!(rest, live[i + 1..], "behind {id}");
    }
    let nothing = host.http("GET", "/v2/tasks/t/events", &[("Last-Event-ID", "end")], "").await;
    assert_eq!((nothing.status, nothing.body.as_str()), (204, ""));
    for bad in ["x", "-1", "99999"] {
        let refused = host.http("GET", "/v2/tasks/t/events", &[("Last-Event-ID", bad)], "").await;
        assert_eq!(refused.code(), (400, "invalid_request".into()), "{bad}");
    }
    host.stop().await;
}

#[tokio::test]
async fn a_task_is_called_off_while_it_runs_while_it_waits_and_twice() {
    let host = Running::start().await;
    for id in ["runs", "waits"] {
        assert_eq!(host.submit(&json!({"prompt": "x", "type": "stuck", "id": id})).await.status, 202);
    }
    // whoever reads sees the one word that a stuck node says, and the end when it comes
    let mut reader = TcpStream::connect(host.http).await.unwrap();
    reader.write_all(head("GET", "/v2/tasks/runs/events", &[], 0).as_bytes()).await.unwrap();
    let mut lines = BufReader::new(reader).lines();
    within(async { while lines.next_line().await.unwrap().unwrap() != "event: token" {} }).await;
    assert_eq!(host.http("DELETE", "/v2/tasks/runs", &[], "").await.code(), (409, "task_not_ended".into()));
    for _ in 0..2 {
        for (id, text) in [("waits", ""), ("runs", "word1")] {
            let task = host.http("POST", &format!("/v2/tasks/{id}/cancel"), &[], "").await.json();
            assert_eq!((&task["state"], &task["error"]["reason"]), (&json!("cancelled"), &json!("CANCELLED")), "{id}");
            assert_eq!(task["text"], text);
        }
    }
    within(async { while lines.next_line().await.unwrap().unwrap() != "event: end" {} }).await;
    // the node is free again
    let rest = host.events("waits", None).await;
    assert_eq!(rest.len(), 1, "it never started: {rest:?}");
    within(async {
        while host.cluster.status().in_flight > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    host.stop().await;
}

#[tokio::test]
async fn a_task_whose_time_is_over_expires() {
    let host = Running::start().await;
    host.submit(&json!({"prompt": "x", "type": "stuck", "id": "t", "timeout_ms": 200})).await;
    let task = host.ended("t").await;
    assert_eq!((&task["state"], &task["error"]["reason"]), (&json!("expired"), &json!("DEADLINE_EXCEEDED")));
    assert_eq!(task["text"], "word1", "what it had said is kept");
    host.stop().await;
}

#[tokio::test]
async fn a_task_that_cannot_be_served_fails_with_the_reason() {
    let host = Running::start().await;
    let accepted = host.submit(&json!({"prompt": "break off", "id": "t"})).await;
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    let task = host.ended("t").await;
    assert_eq!((&task["state"], &task["error"]["reason"]), (&json!("failed"), &json!("BACKEND_FAILED")));
    host.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told() {
    let host = Running::start().await;
    let cases = [
        (json!({}), 400, "neither `prompt` nor `messages`"),
        (json!({"prompt": "x", "messages": []}), 400, "both set"),
        (json!({"prompt": ""}), 400, "the prompt is empty"),
        (json!({"prompt": "x", "temprature": 1}), 400, "unknown field `temprature`"),
        (json!({"prompt": "x", "temperature": 11}), 400, "`temperature` is 11"),
        (json!({"prompt": "x", "model": "gpt-9"}), 404, "`gpt-9`"),
        (json!({"prompt": "x", "type": "huge"}), 404, "`huge`"),
        (json!({"prompt": "x", "id": "a/b"}), 400, "`id` must have"),
        (json!({"prompt": "x", "timeout_ms": 0}), 400, "`timeout_ms` is 0"),
        (json!({"prompt": "x", "json_schema": {}, "grammar": "x"}), 400, "both set"),
        (json!({"messages": [{"role": "robot", "content": "x"}]}), 400, "unknown variant `robot`"),
        (json!({"prompt": "x".repeat(MAX_REQUEST_BYTES)}), 413, "raise `network.max-request-size`"),
        (json!([]), 400, ""),
    ];
    for (body, status, what) in cases {
        for path in ["/v2/tasks", "/cluster/execute"] {
            if path == "/cluster/execute" && what.contains("`id`") || what.contains("timeout") {
                continue;
            }
            let answer = host.http("POST", path, &[], &body.to_string()).await;
            let error = answer.json()["error"].clone();
            assert_eq!(answer.status, status, "{error}");
            assert!(error["message"].as_str().unwrap().contains(what), "{error} does not say {what}");
        }
    }
    assert_eq!(host.http("POST", "/v2/tasks", &[], "{").await.status, 400);
    for path in ["/v2/tasks?state=dead", "/v2/tasks?limit=0", "/v2/tasks?limit=x", "/v2/tasks?colour=red"] {
        assert_eq!(host.http("GET", path, &[], "").await.code(), (400, "invalid_request".into()), "{path}");
    }
    assert_eq!(host.http("GET", "/v2/tasks?after=nobody", &[], "").await.code(), (404, "unknown_task".into()));
    host.stop().await;
}

#[tokio::test]
async fn a_tenant_sees_its_own_tasks_only() {
    let host = Running::start().await;
    let request = GenerateRequest {
        id: "x".into(),
        model: MODEL.into(),
        node_type: None,
        prompt: Prompt::Text("x".into()),
        sampling: Sampling::greedy(1),
        share: Share::default(),
        deadline: None,
        routing: Routing::default(),
        priority: Priority::Batch,
        journal: None,
        log: None,
    };
    let (id, tenant) = ("theirs".to_owned(), "other".to_owned());
    let work = Work::of(&request, 1);
    let task = NewTask { id, key: None, digest: [0; 32], tenant, weight: 1.0, work, timeout_ms: None };
    host.tasks.submit(task).await.unwrap();
    for (method, path) in [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/events")] {
        let answer = host.http(method, &format!("/v2/tasks/theirs{path}"), &[], "").await;
        assert_eq!(answer.code(), (404, "unknown_task".into()), "{method} {path}");
    }
    assert_eq!(host.http("GET", "/v2/tasks", &[], "").await.json()["tasks"], json!([]));
    assert_eq!(host.submit(&json!({"prompt": "x", "id": "theirs"})).await.status, 202, "names are their own too");
    host.stop().await;
}

#[tokio::test]
async fn a_request_is_executed_whole_and_called_off_when_its_client_goes() {
    let host = Running::start().await;
    let done = host.http("POST", "/cluster/execute", &[], r#"{"prompt": "hello", "max_tokens": 2, "id": "r"}"#).await.json();
    assert_eq!((&done["text"], &done["id"], &done["finish_reason"]), (&json!("word1 word2"), &json!("r"), &json!("length")));
    assert_eq!((&done["usage"]["output_tokens"], &done["model"]), (&json!(2), &json!(MODEL)));
    assert!(0.0 < done["ttft_ms"].as_f64().unwrap() && done["ttft_ms"].as_f64() <= done["total_ms"].as_f64());
    let late = host.http("POST", "/cluster/execute", &[], r#"{"prompt": "x", "type": "stuck", "timeout_ms": 100}"#).await;
    assert_eq!(late.code(), (504, "deadline_exceeded".into()));

    let body = r#"{"prompt": "x", "type": "stuck"}"#;
    let mut goes = TcpStream::connect(host.http).await.unwrap();
    goes.write_all(format!("{}{body}", head("POST", "/cluster/execute", &[], body.len())).as_bytes()).await.unwrap();
    let in_flight = async |n: usize| {
        within(async {
            while host.cluster.status().in_flight != n {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    };
    in_flight(1).await;
    drop(goes);
    in_flight(0).await;
    host.stop().await;
}

#[tokio::test]
async fn status_and_health_are_told_and_a_host_that_drains_takes_no_tasks() {
    let host = Running::start().await;
    let status = host.http("GET", "/cluster/status", &[], "").await.json();
    assert_eq!((&status["nodes_by_type"]["fake"], &status["models"][0]["name"]), (&json!(3), &json!(MODEL)));
    assert_eq!((&status["queue"]["waiting"], &status["draining"]), (&json!(0), &json!(false)));
    let health = host.http("GET", "/health", &[], "").await;
    assert_eq!((health.status, &health.json()["status"], &health.json()["nodes"]), (200, &json!("ok"), &json!(4)));
    host.submit(&json!({"prompt": "x", "max_tokens": 1, "id": "before"})).await;
    host.ended("before").await;
    host.cluster.start_drain();
    let health = host.http("GET", "/health", &[], "").await;
    assert_eq!((health.status, &health.json()["status"]), (503, &json!("draining")));
    let refused = host.submit(&json!({"prompt": "x"})).await;
    assert_eq!(refused.code(), (503, "draining".into()));
    assert!(refused.head.contains("retry-after: "), "{}", refused.head);
    host.tasks.pause().await;
    assert_eq!(host.http("GET", "/v2/tasks/before", &[], "").await.json()["state"], "finished", "what is there can be read");
    host.stop().await;
}

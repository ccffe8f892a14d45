use serde_json::json;

use super::chat_body;
use crate::harness::Running;

#[tokio::test]
async fn a_tier_is_asked_for_and_told_in_headers() {
    let host = Running::start_fake().await;
    let ask = async |headers: &str, stream: bool| {
        let body = chat_body("show", &json!({ "stream": stream, "max_tokens": 4 })).to_string();
        host.send("POST", "/v1/chat/completions", headers, &body).await
    };
    for stream in [false, true] {
        let reply = ask("llambo-tier: 2\r\n", stream).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let header = |name: &str| reply.headers.get(name).cloned().unwrap_or_default();
        assert!(header("llambo-node").starts_with("fake-"), "{:?}", reply.headers);
        let told = ["llambo-tier", "llambo-tier-wanted", "llambo-tier-by"].map(header);
        assert_eq!(told, ["0", "2", "request"]);
        assert_eq!(header("llambo-tier-reason"), "its client asked for it; no node of tier 2 was free");
    }
    let reply = ask("", false).await;
    assert!(reply.headers.contains_key("llambo-node") && !reply.headers.contains_key("llambo-tier"), "there is one tier only");
    for wrong in ["3", "-1", "high", ""] {
        let reply = ask(&format!("llambo-tier: {wrong}\r\n"), false).await;
        assert_eq!(reply.status, 400, "{wrong}: {}", reply.body);
        assert!(reply.error()["message"].as_str().unwrap().contains("`llambo-tier` must be 0, 1 or 2"), "{}", reply.body);
    }
    host.stop().await;
}

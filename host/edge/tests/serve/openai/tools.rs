use serde_json::{Value, json};

use super::{chat, content};
use crate::harness::Running;

fn weather() -> Value {
    json!([{ "type": "function", "function": {
        "name": "weather",
        "description": "The weather of a place",
        "parameters": { "type": "object", "properties": { "place": { "type": "string" } }, "required": ["place"] },
    } }])
}

const CALL: &str = "say Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"place\": \"Rome\"}}\n</tool_call>";

#[tokio::test]
async fn a_call_in_the_text_becomes_a_call() {
    let host = Running::start_fake().await;
    let answer = chat(&host, CALL, json!({ "tools": weather() })).await.json();
    let choice = &answer["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&"tool_calls".into(), &"Let me see.".into()));
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!((&call["type"], &call["function"]["name"]), (&"function".into(), &"weather".into()));
    assert_eq!(call["function"]["arguments"], r#"{"place":"Rome"}"#);
    assert!(call["id"].as_str().unwrap().starts_with("call_"));
    let other = chat(&host, &CALL.replace("weather", "news"), json!({ "tools": weather() })).await;
    assert!(content(&other).contains("<tool_call>"), "no such tool was offered");
    let none = chat(&host, CALL, json!({ "tools": weather(), "tool_choice": "none" })).await;
    assert!(content(&none).contains("<tool_call>"), "calls are not looked for");
    host.stop().await;
}

#[tokio::test]
async fn a_streamed_call_comes_behind_the_text() {
    let host = Running::start_fake().await;
    let events = chat(&host, CALL, json!({ "tools": weather(), "tool_choice": "auto", "stream": true })).await.events();
    let text: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "Let me see.");
    let calls: Vec<&Value> = events.iter().filter_map(|event| event["choices"][0]["delta"]["tool_calls"].get(0)).collect();
    let [call] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!((&call["index"], &call["type"], &call["function"]["name"]), (&0.into(), &"function".into(), &"weather".into()));
    assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "tool_calls");
    host.stop().await;
}

#[tokio::test]
async fn a_call_that_must_be_is_a_constraint_and_streams_as_it_is_written() {
    let host = Running::start_fake().await;
    for choice in [json!("required"), json!({ "type": "function", "function": { "name": "weather" } })] {
        let told = json!(r#"say {"name": "weather", "arguments": {"place": "Rome"}}"#);
        let fields = json!({ "tools": weather(), "tool_choice": choice, "stream": true });
        let events = chat(&host, told.as_str().unwrap(), fields).await.events();
        assert_eq!(events[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": null }));
        let calls: Vec<&Value> = events.iter().filter_map(|event| event["choices"][0]["delta"]["tool_calls"].get(0)).collect();
        assert!(calls.len() > 2 && calls[0]["id"].is_string() && calls[1].get("id").is_none(), "{calls:?}");
        let arguments: String = calls.iter().map(|call| call["function"]["arguments"].as_str().unwrap()).collect();
        assert_eq!((arguments.as_str(), &calls[0]["function"]["name"]), (r#"{"place": "Rome"}"#, &"weather".into()));
        assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "tool_calls");
        let whole = chat(&host, told.as_str().unwrap(), json!({ "tools": weather(), "tool_choice": choice })).await.json();
        let message = &whole["choices"][0]["message"];
        assert_eq!((&message["content"], &message["tool_calls"][0]["function"]["arguments"]), (&Value::Null, &arguments.into()));
    }
    host.stop().await;
}

#[tokio::test]
async fn the_model_reads_tools_calls_and_results() {
    let host = Running::start_fake().await;
    let call = |id: &str| json!({ "id": id, "type": "function", "function": { "name": "weather", "arguments": "{\"place\":\"Rome\"}" } });
    let body = json!({
        "messages": [
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": "Weather?" },
            { "role": "assistant", "content": "I ask.", "tool_calls": [call("a"), call("b")] },
            { "role": "tool", "tool_call_id": "a", "content": "sun" },
            { "role": "tool", "tool_call_id": "b", "content": [{ "type": "text", "text": "rain" }] },
            { "role": "user", "content": "show" },
        ],
        "tools": weather(),
        "parallel_tool_calls": false,
    });
    let seen = content(&host.post("/v1/chat/completions", &body).await);
    for expected in [
        r"Be brief.\n\n# Tools\n\n",
        r#"<tools>\n{\"type\":\"function\",\"function\":{\"name\":\"weather\""#,
        r#"I ask.\n<tool_call>\n{\"name\":\"weather\",\"arguments\":{\"place\":\"Rome\"}}\n</tool_call>\n<tool_call>"#,
        r"<tool_response>\nsun\n</tool_response>\n<tool_response>\nrain\n</tool_response>",
        "stop: [\n            \"</tool_call>\",",
    ] {
        assert!(seen.contains(expected), "{expected} is not in {seen}");
    }
    assert_eq!(seen.matches("role: System").count(), 1);
    host.stop().await;
}

#[tokio::test]
async fn a_form_leaves_no_place_for_calls() {
    let host = Running::start_fake().await;
    let both = json!({ "tools": weather(), "response_format": { "type": "json_object" } });
    let reply = chat(&host, "hello", both.clone()).await;
    assert_eq!((reply.status, &reply.error()["param"]), (400, &"tool_choice".into()));
    let mut none = both;
    none["tool_choice"] = "none".into();
    assert_eq!(chat(&host, "hello", none).await.status, 200);
    let required = json!({ "tools": weather(), "tool_choice": "required", "grammar": "root ::= \"a\"" });
    assert_eq!(chat(&host, "hello", required).await.error()["param"], "grammar");
    host.stop().await;
}

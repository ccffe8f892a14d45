use serde_json::{Value, json};

use super::{chat, content};
use crate::harness::{MODEL, Running};

#[tokio::test]
async fn a_whole_answer_has_everything_that_clients_read() {
    let host = Running::start_fake().await;
    let reply = chat(&host, "hello", json!({ "model": MODEL, "max_tokens": 3, "unknown_field": [1] })).await;
    let answer = reply.json();
    assert_eq!(content(&reply), "word1 word2 word3");
    assert_eq!((&answer["object"], &answer["model"]), (&"chat.completion".into(), &MODEL.into()));
    assert_eq!(answer["id"], format!("chatcmpl-{}", reply.headers["x-request-id"]));
    assert_eq!(answer["system_fingerprint"], "fp_0123456789");
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    let choice = &answer["choices"][0];
    assert_eq!((&choice["index"], &choice["finish_reason"]), (&0.into(), &"length".into()));
    assert_eq!(choice["message"], json!({ "role": "assistant", "content": "word1 word2 word3", "refusal": null }));
    assert_eq!(choice["logprobs"], Value::Null);
    let usage =
        json!({ "prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8, "prompt_tokens_details": { "cached_tokens": 0 } });
    assert_eq!(answer["usage"], usage);
    let cached = chat(&host, "say x", json!({})).await.json();
    assert_eq!(cached["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
    host.stop().await;
}

#[tokio::test]
async fn a_stream_tells_its_role_its_text_and_its_end() {
    let host = Running::start_fake().await;
    let events = chat(&host, "hello", json!({ "stream": true, "max_tokens": 2 })).await.events();
    let [role, first, second, end, done] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(role["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    assert_eq!(first["choices"][0]["delta"], json!({ "content": "word1" }));
    assert_eq!(second["choices"][0]["delta"], json!({ "content": " word2" }));
    assert_eq!((&end["choices"][0]["delta"], &end["choices"][0]["finish_reason"]), (&json!({}), &"length".into()));
    assert_eq!(first["choices"][0]["finish_reason"], Value::Null);
    assert_eq!(done, "[DONE]");
    for event in &events[..4] {
        assert_eq!((&event["object"], &event["id"]), (&"chat.completion.chunk".into(), &role["id"]));
        assert!(event.get("usage").is_none(), "nobody asked for it: {event}");
    }
    host.stop().await;
}

#[tokio::test]
async fn a_stream_ends_with_its_usage_where_that_is_asked_for() {
    let host = Running::start_fake().await;
    let fields = json!({ "stream": true, "max_tokens": 2, "stream_options": { "include_usage": true } });
    let events = chat(&host, "hello", fields).await.events();
    let [all @ .., usage, done] = events.as_slice() else { panic!("{events:?}") };
    assert!(all.iter().all(|event| event.get("usage") == Some(&Value::Null)), "{all:?}");
    assert_eq!((&usage["choices"], &usage["usage"]["total_tokens"]), (&json!([]), &7.into()));
    assert_eq!(done, "[DONE]");
    host.stop().await;
}

#[tokio::test]
async fn several_answers_have_an_index_and_a_seed_each() {
    let host = Running::start_fake().await;
    let answer = chat(&host, "show", json!({ "n": 3, "seed": 40, "metadata": {}, "user": "u1" })).await.json();
    let choices = answer["choices"].as_array().unwrap();
    for (i, choice) in choices.iter().enumerate() {
        assert_eq!(choice["index"], i);
        let seen = choice["message"]["content"].as_str().unwrap();
        let drawn = format!("seed: Some(\n            {},", 40 + i);
        assert!(seen.contains(&drawn) && seen.contains("\"user\",\n                \"u1\""), "{seen}");
    }
    assert_eq!(
        (choices.len(), &answer["usage"]["prompt_tokens"], &answer["usage"]["completion_tokens"]),
        (3, &10.into(), &15.into())
    );
    host.stop().await;
}

#[tokio::test]
async fn more_answers_than_nodes_come_one_after_the_other() {
    let host = Running::start_fake().await;
    // more than fits between the node and its client, so that an answer that nobody reads would keep its node
    let fields = json!({ "n": 8, "max_tokens": 600, "stream": true, "stream_options": { "include_usage": true } });
    let events = chat(&host, "hello", fields).await.events();
    let ends: Vec<u64> = events
        .iter()
        .filter(|event| event["choices"][0]["finish_reason"] == "length")
        .map(|event| event["choices"][0]["index"].as_u64().unwrap())
        .collect();
    assert_eq!(ends.len(), 8, "{ends:?}");
    assert_eq!(events[events.len() - 2]["usage"]["completion_tokens"], 4800);
    host.stop().await;
}

#[tokio::test]
async fn every_option_reaches_the_node() {
    let host = Running::start_fake().await;
    let fields = json!({
        "temperature": 0.25, "top_p": 0.5, "max_completion_tokens": 7, "stop": ["x", "y"], "presence_penalty": 1, "frequency_penalty": -1,
        "logit_bias": { "5": -100 }, "metadata": { "team": "red" }, "service_tier": "flex", "top_k": 3, "min_p": 0.125,
        "repeat_penalty": 1.5, "ignore_eos": true,
        "response_format": { "type": "json_schema", "json_schema": { "name": "n", "strict": true, "schema": { "z": 1, "a": 2 } } },
    });
    let reply = chat(&host, "show", fields).await;
    let seen: String = content(&reply).split_whitespace().collect();
    for expected in [
        "temperature:0.25,",
        "top_p:0.5,",
        "max_tokens:Some(7,),",
        "stop:[\"x\",\"y\",],",
        "presence_penalty:1.0,",
        "frequency_penalty:-1.0,",
        "LogitBias{token:5,bias:-100.0,}",
        "(\"team\",\"red\",)",
        "priority:Batch,",
        "top_k:3,",
        "min_p:0.125,",
        "repeat_penalty:1.5,",
        "ignore_eos:true,",
        r#"JsonSchema("{\"z\":1,\"a\":2}",)"#,
    ] {
        assert!(seen.contains(expected), "{expected} is not in {seen}");
    }
    assert_eq!(reply.json()["service_tier"], "flex");
    host.stop().await;
}

#[tokio::test]
async fn messages_are_read_in_all_their_forms() {
    let host = Running::start_fake().await;
    let body = json!({ "messages": [
        { "role": "developer", "content": [{ "type": "text", "text": "Be " }, { "type": "text", "text": "brief." }] },
        { "role": "user", "name": "me", "content": "Hi" },
        { "role": "assistant", "content": null, "refusal": "No." , "tool_calls": null },
        { "role": "user", "content": "show" },
    ] });
    let reply = host.post("/v1/chat/completions", &body).await;
    let seen: String = content(&reply).split_whitespace().collect();
    assert!(seen.contains(r#"Message{role:System,content:"Bebrief.",},Message{role:User,content:"Hi",}"#), "{seen}");
    let forms = json!({ "response_format": { "type": "json_object" } });
    assert!(content(&chat(&host, "show", forms).await).contains(r#"{\"type\":\"object\"}"#));
    assert!(content(&chat(&host, "show", json!({ "response_format": { "type": "text" } })).await).contains("constraint: None"));
    assert!(content(&chat(&host, "show", json!({ "grammar": "root ::= \"a\"" })).await).contains("Gbnf("));
    host.stop().await;
}

#[tokio::test]
async fn tokens_are_told_with_their_likelihood() {
    let host = Running::start_fake().await;
    let fields = json!({ "logprobs": true, "top_logprobs": 2 });
    let answer = chat(&host, "say hé!", fields.clone()).await.json();
    let tokens = answer["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    let bytes: Vec<u64> = tokens.iter().map(|token| token["bytes"][0].as_u64().unwrap()).collect();
    assert_eq!(bytes, [0x68, 0xc3, 0xa9, 0x21]);
    assert_eq!((&tokens[0]["token"], &tokens[0]["logprob"]), (&"h".into(), &(-0.5).into()));
    assert_eq!(tokens[0]["top_logprobs"][1], json!({ "token": "B", "logprob": -2.0, "bytes": [66] }));

    let mut fields = fields;
    fields["stream"] = true.into();
    let events = chat(&host, "say hé!", fields).await.events();
    let streamed: Vec<Value> =
        events.iter().filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array().cloned()).flatten().collect();
    assert_eq!(streamed, tokens);
    host.stop().await;
}

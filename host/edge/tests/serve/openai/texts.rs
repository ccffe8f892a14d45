use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::harness::{MODEL, Running};

#[tokio::test]
async fn texts_go_on_in_the_order_of_their_prompts() {
    let host = Running::start_fake().await;
    let body = json!({ "prompt": ["say one", "say three"], "n": 2, "echo": true });
    let answer = host.post("/v1/completions", &body).await.json();
    let texts: Vec<&str> = answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["say oneone", "say oneone", "say threethree", "say threethree"]);
    assert_eq!((&answer["object"], &answer["choices"][3]["index"]), (&"text_completion".into(), &3.into()));
    // each prompt counts once, each answer by itself
    assert_eq!((&answer["usage"]["prompt_tokens"], &answer["usage"]["completion_tokens"]), (&20.into(), &20.into()));
    host.stop().await;
}

#[tokio::test]
async fn a_streamed_text_says_the_same() {
    let host = Running::start_fake().await;
    let body = json!({ "prompt": "say hello", "stream": true, "stream_options": { "include_usage": true } });
    let events = host.post("/v1/completions", &body).await.events();
    let [pieces @ .., end, usage, done] = events.as_slice() else { panic!("{events:?}") };
    let text: String = pieces.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!((text.as_str(), &end["choices"][0]["finish_reason"]), ("hello", &"stop".into()));
    assert_eq!((&usage["choices"], &usage["usage"]["total_tokens"], done), (&json!([]), &15.into(), &"[DONE]".into()));
    host.stop().await;
}

#[tokio::test]
async fn prompts_may_be_tokens() {
    let host = Running::start_fake().await;
    // in this vocabulary each byte is a token
    let tokens: Vec<u8> = "say é".bytes().collect();
    for prompt in [json!(tokens), json!([tokens])] {
        let answer = host.post("/v1/completions", &json!({ "prompt": prompt })).await.json();
        assert_eq!(answer["choices"][0]["text"], "é");
    }
    for bad in [
        json!([256]),
        json!([0xc3]),
        json!([]),
        json!([[]]),
        json!(""),
        json!(["x", ""]),
        json!({}),
        json!([1, "x"]),
        json!([-1]),
    ] {
        let reply = host.post("/v1/completions", &json!({ "prompt": bad })).await;
        assert_eq!(reply.status, 400, "{bad}");
        assert!(reply.error()["param"].as_str().unwrap().starts_with("prompt"), "{bad}: {}", reply.body);
    }
    host.stop().await;
}

#[tokio::test]
async fn likelihoods_are_told_in_the_older_form() {
    let host = Running::start_fake().await;
    let answer = host.post("/v1/completions", &json!({ "prompt": "say né!", "logprobs": 1 })).await.json();
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["n", "bytes:\\xc3", "bytes:\\xa9", "!"]));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 2, 2]));
    assert_eq!((&logprobs["token_logprobs"][3], &logprobs["top_logprobs"][3]), (&(-0.5).into(), &json!({ "A": -2.0 })));
    host.stop().await;
}

#[tokio::test]
async fn what_completions_cannot_do_is_refused_by_name() {
    let host = Running::start_fake().await;
    let cases = [
        ("suffix", json!({ "suffix": "end" })),
        ("best_of", json!({ "best_of": 3 })),
        ("logprobs", json!({ "logprobs": 21 })),
        ("logprobs", json!({ "logprobs": 1, "echo": true })),
        ("n", json!({ "n": 0 })),
        ("n", json!({ "n": 129 })),
        ("stream_options", json!({ "stream_options": {} })),
    ];
    for (param, fields) in cases {
        let mut body = json!({ "prompt": "hello" });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let reply = host.post("/v1/completions", &body).await;
        assert_eq!((reply.status, &reply.error()["param"]), (400, &param.into()), "{}", reply.body);
    }
    host.stop().await;
}

#[tokio::test]
async fn texts_are_points_as_numbers_or_packed() {
    let host = Running::start_fake().await;
    let answer = host.post("/v1/embeddings", &json!({ "input": ["a", "bc"], "model": MODEL, "dimensions": 4 })).await.json();
    assert_eq!((&answer["object"], &answer["data"][1]["index"], &answer["model"]), (&"list".into(), &1.into(), &MODEL.into()));
    assert_eq!(answer["data"][0]["embedding"], json!([0.5, 0.5, 0.5, 0.5]));
    assert_eq!(answer["usage"], json!({ "prompt_tokens": 3, "total_tokens": 3 }));
    let packed = host.post("/v1/embeddings", &json!({ "input": "a", "encoding_format": "base64" })).await.json();
    let bytes = STANDARD.decode(packed["data"][0]["embedding"].as_str().unwrap()).unwrap();
    assert_eq!(bytes, [0.5f32; 4].map(f32::to_le_bytes).concat());
    let cases = [
        ("input", json!({ "input": [] })),
        ("input", json!({ "input": "" })),
        ("input", json!({ "input": ["a", ""] })),
        ("input", json!({ "input": [1, 2] })),
        ("input", json!({ "input": [[1], [2]] })),
        ("dimensions", json!({ "input": "a", "dimensions": 3 })),
        ("encoding_format", json!({ "input": "a", "encoding_format": "hex" })),
    ];
    for (param, body) in cases {
        let reply = host.post("/v1/embeddings", &body).await;
        assert_eq!((reply.status, &reply.error()["param"]), (400, &param.into()), "{}", reply.body);
    }
    let unknown = host.post("/v1/embeddings", &json!({ "input": "a", "model": "other" })).await;
    assert_eq!((unknown.status, &unknown.error()["code"]), (404, &"model_not_found".into()));
    host.stop().await;
}

#[tokio::test]
async fn models_are_listed_and_found() {
    let host = Running::start_fake().await;
    let list = host.send("GET", "/v1/models", "", "").await.json();
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&"list".into(), &MODEL.into()));
    let one = host.send("GET", &format!("/v1/models/{}", MODEL.replace('-', "%2D")), "", "").await;
    assert_eq!(one.json(), list["data"][0]);
    assert_eq!((&one.json()["object"], &one.json()["max_model_len"]), (&"model".into(), &1024.into()));
    let unknown = host.send("GET", "/v1/models/of%2Fsomebody/else", "", "").await;
    assert_eq!((unknown.status, &unknown.error()["code"]), (404, &"model_not_found".into()));
    assert!(unknown.error()["message"].as_str().unwrap().contains("`of/somebody/else`"), "{}", unknown.body);
    host.stop().await;
}

#[tokio::test]
async fn the_document_describes_every_route_and_refers_only_to_what_is_there() {
    let host = Running::start_fake().await;
    let document = host.send("GET", "/openapi.json", "", "").await.json();
    for (path, method) in [
        ("/v1/chat/completions", "post"),
        ("/v1/completions", "post"),
        ("/v1/embeddings", "post"),
        ("/v1/models", "get"),
        ("/v1/models/{id}", "get"),
        ("/cluster/watch", "get"),
        ("/cluster/cells/{place}", "get"),
    ] {
        assert!(document["paths"][path][method]["responses"]["200"].is_object(), "{path}");
    }
    let mut open = vec![&document];
    let mut n_references = 0;
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                    n_references += 1;
                    assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference} leads nowhere");
                }
                open.extend(members.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    assert!(n_references > 20, "{n_references}");
    assert!(document["components"]["schemas"]["CommonFields"]["properties"]["logit_bias"].is_object());
    host.stop().await;
}

//! What OpenAI's clients rely on, request by request. The clients themselves are tested in `tests/tests/clients`.

mod answers;
mod ends;
mod refusals;
mod texts;
mod tiers;
mod tools;

use serde_json::{Value, json};

use crate::{harness::Running, web::Reply};

/// Asks for a chat completion of one message, with more fields.
async fn chat(host: &Running, content: &str, fields: Value) -> Reply {
    host.post("/v1/chat/completions", &chat_body(content, &fields)).await
}

fn chat_body(content: &str, fields: &Value) -> Value {
    let mut body = json!({ "messages": [{ "role": "user", "content": content }] });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

/// The text of a whole answer.
fn content(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

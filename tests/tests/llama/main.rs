//! The engine on the built-in models: every promise of `host/llama` that needs real weights.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

mod branch;
mod cancel;
mod correct;
mod draft;
mod form;
mod keep;
mod refuse;
mod resume;

use std::time::Duration;

use futures::StreamExt;
use llambo_catalog::Builtin;
use llambo_inference::{
    AnswerEvent, AnswerStream, Finished, GenerateRequest, InferenceEngine, InferenceError, Priority, Prompt, Sampling, Share,
};
use llambo_llama::{EngineSettings, LlamaEngine};

fn engine_with(builtin: Builtin, change: impl FnOnce(&mut EngineSettings)) -> LlamaEngine {
    let mut settings = EngineSettings::new(builtin.name());
    settings.n_sequences = 16;
    settings.n_context = Some(512);
    change(&mut settings);
    LlamaEngine::load(&builtin.unpack().unwrap(), &settings).unwrap()
}

fn small() -> LlamaEngine {
    engine_with(Builtin::DemoSmall, |_| {})
}

fn ask(prompt: &str, sampling: Sampling) -> GenerateRequest {
    GenerateRequest {
        id: "test".into(),
        model: Builtin::DemoSmall.name().into(),
        node_type: None,
        prompt: Prompt::Text(prompt.into()),
        sampling,
        share: Share::default(),
        deadline: None,
        routing: llambo_inference::Routing::default(),
        priority: Priority::default(),
        journal: None,
        log: None,
    }
}

/// All text and the end. Fails the test if nothing ends it within a minute.
async fn read(mut stream: AnswerStream) -> Result<(String, Finished), InferenceError> {
    let all = async {
        let mut text = String::new();
        let mut n_tokens = 0;
        while let Some(event) = stream.next().await {
            match event? {
                AnswerEvent::Piece { text: piece, n_tokens: n } => {
                    assert!(!piece.is_empty() && n > 0);
                    text.push_str(&piece);
                    n_tokens += n;
                }
                AnswerEvent::Finished(finished) => {
                    assert!(stream.next().await.is_none(), "nothing follows the end");
                    assert!(n_tokens <= finished.usage.output_tokens);
                    return Ok((text, finished));
                }
            }
        }
        panic!("the stream ended without saying why");
    };
    tokio::time::timeout(Duration::from_mins(1), all).await.expect("an answer within a minute")
}

/// Waits until `condition` holds; fails after a minute.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never happened: {what}");
}

async fn run(engine: &LlamaEngine, prompt: &str, sampling: Sampling) -> (String, Finished) {
    read(engine.submit(ask(prompt, sampling)).unwrap()).await.unwrap()
}

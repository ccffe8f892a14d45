//! What is wrong is said, and nothing of it reaches llama.cpp.

use std::{
    fs,
    time::{Duration, Instant},
};

use llambo_catalog::ModelFile;
use llambo_inference::{Constraint, LogitBias};
use llambo_llama::LlamaError;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_beyond_the_context_is_refused_with_both_numbers() {
    let engine = small();
    for prompt in ["word ".repeat(1000), "x".repeat(10_000_000)] {
        let error = engine.submit(ask(&prompt, Sampling::greedy(1))).err().unwrap();
        assert!(matches!(error, InferenceError::PromptTooLong { n_prompt: 512.., n_context: 512, .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_any_characters_are_served() {
    let engine = small();
    for prompt in ["\0", "\u{feff}\u{202e}abc", "🦀🦀🦀", "\r\n\t", "<|endoftext|>", "é\u{301}", " "] {
        run(&engine, prompt, Sampling::greedy(4)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn written_out_control_tokens_in_plain_text_stay_text() {
    let engine = small();
    let plain = run(&engine, "a<|endoftext|>b", Sampling::greedy(1)).await.1.usage.input_tokens;
    assert!(plain > 4, "`<|endoftext|>` became one token: {plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bias_outside_the_vocabulary_is_refused() {
    let logit_bias = vec![LogitBias { token: u32::MAX, bias: 1.0 }];
    let error = small().submit(ask("x", Sampling { logit_bias, ..Sampling::greedy(1) })).err().unwrap();
    assert!(matches!(error, InferenceError::InvalidOption(_)) && error.to_string().contains("tokens 0 to 4095"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_whose_patterns_would_be_compiled_for_minutes_is_refused_at_once() {
    let engine = small();
    let patterns: Vec<_> = ('a'..='z').map(|c| serde_json::json!({ "type": "string", "pattern": format!(".*{c}.*") })).collect();
    let schema = serde_json::json!({
        "type": "object", "properties": { "code": { "$ref": "#/$defs/code" } }, "$defs": { "code": { "allOf": patterns } }
    });
    let constraint = Some(Constraint::JsonSchema(schema.to_string()));
    let begun = Instant::now();
    let error = engine.submit(ask("x", Sampling { constraint, ..Sampling::greedy(5) })).err().unwrap();
    assert!(matches!(&error, InferenceError::InvalidRequest(what) if what.contains("`#/$defs/code`")), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    run(&engine, "x", Sampling::greedy(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_that_come_together_are_all_compiled() {
    let engine = std::sync::Arc::new(small());
    let begin = |n: usize| {
        let engine = std::sync::Arc::clone(&engine);
        let constraint = Some(Constraint::JsonSchema(format!(r#"{{"type": "string", "pattern": "^[a-z]{{1,{n}}}$"}}"#)));
        tokio::spawn(async move { read(engine.submit(ask("x", Sampling { constraint, ..Sampling::greedy(40) }))?).await })
    };
    for asked in (1..=12).map(begin).collect::<Vec<_>>() {
        let (text, _) = asked.await.unwrap().unwrap();
        assert!(text.starts_with('"'), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_model_says_so_and_answers_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.gguf");
    let mut bytes = Builtin::DemoSmall.bytes().to_vec();
    let half = bytes.len() / 2;
    // as f16 and as f32, this is no number
    bytes[half..].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    let mut settings = EngineSettings::new("damaged");
    settings.n_sequences = 2;
    let engine = LlamaEngine::load(&ModelFile::open(&path).unwrap(), &settings).unwrap();
    let sampled = Sampling { seed: Some(1), max_tokens: Some(4), ..Sampling::default() };
    let schema = Sampling { constraint: Some(Constraint::JsonSchema("{}".into())), ..Sampling::greedy(4) };
    for sampling in [Sampling::greedy(4), sampled, schema] {
        let error = read(engine.submit(ask("The", sampling)).unwrap()).await.unwrap_err();
        assert!(matches!(&error, InferenceError::Backend(what) if what.contains("damaged")), "{error}");
    }
    let error = engine.embed("The".into()).await.unwrap_err();
    assert!(matches!(error, InferenceError::Backend(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_serves_no_embeddings_says_so() {
    let engine = engine_with(Builtin::DemoSmall, |settings| settings.embeddings = false);
    let error = engine.embed("The".into()).await.unwrap_err();
    assert!(matches!(&error, InferenceError::InvalidRequest(what) if what.contains("embeddings: false")), "{error}");
}

#[test]
fn settings_out_of_range_are_refused_with_the_range() {
    let file = Builtin::DemoSmall.unpack().unwrap();
    let load = |change: &dyn Fn(&mut EngineSettings)| {
        let mut settings = EngineSettings::new("m");
        change(&mut settings);
        LlamaEngine::load(&file, &settings).err().expect("refused").to_string()
    };
    assert!(load(&|s| s.n_sequences = 0).contains("1 to 256"));
    assert!(load(&|s| s.n_sequences = 257).contains("1 to 256"));
    assert!(load(&|s| s.n_context = Some(1 << 20)).contains("was trained for 1024"));
}

#[test]
fn a_broken_file_never_reaches_llama() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.gguf");
    let whole = Builtin::DemoSmall.bytes();
    let mut flipped = whole.to_vec();
    flipped[16] ^= 0xff;
    for (bytes, says) in [
        (&whole[..whole.len() / 2], "fetch it again"),
        (&b"hello"[..], "GGUF"),
        (&b""[..], "ends after 0 bytes"),
        (&flipped[..], ""),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = ModelFile::open(&path).expect_err("refused").to_string();
        assert!(error.contains(says), "{error}");
    }
    assert!(ModelFile::open(folder.path()).unwrap_err().to_string().contains("not a regular file"));
    assert!(ModelFile::open(&folder.path().join("none.gguf")).unwrap_err().to_string().contains("cannot read"));
}

#[test]
fn a_well_formed_file_that_llama_cannot_use_is_an_error_with_its_reason() {
    // a whole GGUF file of an architecture that there is not
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("strange.gguf");
    let text = Builtin::DemoSmall.bytes().to_vec();
    let mut strange = text.clone();
    let places: Vec<usize> = text.windows(5).enumerate().filter(|(_, w)| w == b"llama").map(|(i, _)| i).take(40).collect();
    for at in places {
        strange[at..at + 5].copy_from_slice(b"zzzzz");
    }
    fs::write(&path, &strange).unwrap();
    let loaded = ModelFile::open(&path).map_err(LlamaError::from).and_then(|f| LlamaEngine::load(&f, &EngineSettings::new("m")));
    let error = loaded.err().expect("refused").to_string();
    assert!(error.contains("zzzzz"), "{error}");
}

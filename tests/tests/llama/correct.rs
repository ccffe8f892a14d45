//! The text is the model's, whatever else is in the batch.

use futures::future::join_all;
use llambo_inference::{FinishReason, LogitBias, Message, Role};
use serde_json::Value;

use super::*;

/// How far rounding can move two logits against each other: sums of a few hundred products in 16-bit floats.
const TIE: f32 = 0.05;
const END_OF_TEXT: u32 = 0;

/// What `PyTorch` computed from the same weights, in float32.
fn reference() -> Value {
    serde_json::from_str(include_str!("../../../host/catalog/builtin/reference.json")).unwrap()
}

/// The tokens of a byte-level vocabulary entry's text.
fn vocabulary(builtin: Builtin) -> Vec<String> {
    builtin.unpack().unwrap().header().text_list("tokenizer.ggml.tokens").unwrap().to_vec()
}

/// GPT-2's printable stand-ins for bytes, back to bytes.
fn bytes_of(entry: &str) -> Vec<u8> {
    let printable: Vec<u32> = (33..=126).chain(161..=172).chain(174..=255).collect();
    let mut hidden = (0..256).filter(|b| !printable.contains(b));
    let mut table: std::collections::HashMap<char, u8> =
        printable.iter().map(|&b| (char::from_u32(b).unwrap(), u8::try_from(b).unwrap())).collect();
    for n in 0.. {
        let Some(b) = hidden.next() else { break };
        table.insert(char::from_u32(256 + n).unwrap(), u8::try_from(b).unwrap());
    }
    entry.chars().map(|c| table[&c]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn greedy_text_is_what_pytorch_computes_from_the_same_weights() {
    for (builtin, at_least) in [(Builtin::DemoSmall, 0.9), (Builtin::Demo, 0.8)] {
        let engine = engine_with(builtin, |_| {});
        let vocabulary = vocabulary(builtin);
        let (mut same, mut all) = (0, 0);
        for row in reference()[builtin.name()].as_array().unwrap() {
            let tokens: Vec<usize> =
                row["greedy"].as_array().unwrap().iter().map(|t| usize::try_from(t.as_u64().unwrap()).unwrap()).collect();
            let until_end: Vec<u8> = tokens.iter().take_while(|&&t| t != 0).flat_map(|&t| bytes_of(&vocabulary[t])).collect();
            let expected = String::from_utf8_lossy(&until_end).into_owned();
            let prompt = row["prompt"].as_str().unwrap();
            let (text, finished) = run(&engine, prompt, Sampling::greedy(u32::try_from(tokens.len()).unwrap())).await;
            assert_eq!(finished.usage.input_tokens as usize, row["tokens"].as_array().unwrap().len(), "tokens of {prompt:?}");
            // rounding may tip a near tie; from there on the texts differ
            same += text.bytes().zip(expected.bytes()).take_while(|(a, b)| a == b).count();
            all += expected.len();
        }
        assert!(same as f64 >= at_least * all as f64, "{}: {same} of {all} bytes agree", builtin.name());
    }
}

/// Whether two greedy texts of one prompt part at a tie: a bias of [`TIE`] towards the other token tips the choice.
async fn parts_at_a_tie(engine: &LlamaEngine, entries: &[Vec<u8>], prompt: &str, alone: &str, together: &str) -> bool {
    let (alone, together) = (alone.as_bytes(), together.as_bytes());
    let at = alone.iter().zip(together).take_while(|(a, b)| a == b).count();
    // every token that could have put the other text there; where the other one ended, that is the end of text
    let reaches = |entry: &[u8]| {
        (at.saturating_sub(entry.len())..=at)
            .any(|start| start + entry.len() > at && together.get(start..).is_some_and(|rest| rest.starts_with(entry)))
    };
    let logit_bias = (0u32..)
        .zip(entries)
        .filter(|(token, entry)| if at == together.len() { *token == END_OF_TEXT } else { reaches(entry) })
        .map(|(token, _)| LogitBias { token, bias: TIE })
        .collect();
    let biased = run(engine, prompt, Sampling { logit_bias, ..Sampling::greedy(24) }).await.0;
    biased.as_bytes().get(..=at) == together.get(..=at)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_in_a_full_batch_gets_the_text_it_gets_alone() {
    let engine = engine_with(Builtin::DemoSmall, |s| s.n_sequences = 256);
    let prompts: Vec<String> = (0..256).map(|i| format!("Section {i}: when the value {} is moved,", i * 7 % 31)).collect();
    let mut alone = Vec::new();
    for prompt in &prompts {
        alone.push(run(&engine, prompt, Sampling::greedy(24)).await.0);
    }
    let together = join_all(prompts.iter().map(|p| run(&engine, p, Sampling::greedy(24)))).await;
    let entries: Vec<_> = vocabulary(Builtin::DemoSmall).iter().map(|entry| bytes_of(entry)).collect();
    let mut n_ties = 0;
    for ((prompt, alone), (together, _)) in prompts.iter().zip(&alone).zip(&together) {
        if alone != together {
            n_ties += 1;
            let is_tie = parts_at_a_tie(&engine, &entries, prompt, alone, together).await;
            assert!(is_tie, "{prompt:?}\n  alone    {alone:?}\n  together {together:?}");
        }
    }
    println!("{n_ties} of 256 texts part at a tie");
    assert!(n_ties <= 8, "{n_ties} of 256 texts part at a tie");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_gives_the_same_text_in_any_company() {
    let engine = small();
    let sampling = Sampling { max_tokens: Some(24), seed: Some(42), temperature: 1.0, ..Sampling::default() };
    let alone = run(&engine, "The compiler", sampling.clone()).await.0;
    let others = (0..12).map(|i| run(&engine, "Something else entirely", Sampling { seed: Some(i), ..sampling.clone() }));
    let (crowd, again) = futures::join!(join_all(others), run(&engine, "The compiler", sampling.clone()));
    assert_eq!(again.0, alone);
    assert!(crowd.iter().any(|c| c.0 != crowd[0].0), "different seeds give different texts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_prompt_is_the_same_in_pieces_and_stops_at_the_context() {
    let engine = small();
    let endless = || Sampling { ignore_eos: true, ..Sampling::greedy(10_000) };
    let prompt = "In Rust, ownership is a set of rules. ".repeat(40);
    let (text, finished) = run(&engine, &prompt, endless()).await;
    assert_eq!(finished.reason, FinishReason::Length);
    assert_eq!(finished.usage.input_tokens + finished.usage.output_tokens, 512);
    let two = join_all([run(&engine, &prompt, endless()), run(&engine, &prompt, endless())]).await;
    assert!(two.iter().all(|t| t.0 == text));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_more_requests_than_sequences_are_all_answered() {
    let engine = engine_with(Builtin::DemoSmall, |s| s.n_sequences = 4);
    let prompts: Vec<String> = (0..100).map(|i| format!("Chapter {i}")).collect();
    let answers = join_all((0u32..).zip(&prompts).map(|(i, prompt)| run(&engine, prompt, Sampling::greedy(1 + i % 7)))).await;
    for (i, (_, finished)) in (0u32..).zip(&answers) {
        assert!(finished.usage.output_tokens <= 1 + i % 7);
    }
    eventually("all places are free", || engine.load().n_running == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_put_into_the_models_template() {
    let engine = small();
    let chat = Prompt::Chat(vec![Message { role: Role::User, content: "What Is Ownership?".into() }]);
    let request = GenerateRequest { prompt: chat, ..ask("", Sampling::greedy(16)) };
    let (by_chat, finished) = read(engine.submit(request).unwrap()).await.unwrap();
    let (by_hand, same) = run(&engine, "# What Is Ownership?\n\n", Sampling::greedy(16)).await;
    assert_eq!((by_chat, finished), (by_hand, same));
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_have_length_one_and_tell_texts_apart() {
    let engine = small();
    let embed = |text: &str| engine.embed(text.into());
    let (a, again, b) = futures::join!(embed("the borrow checker"), embed("the borrow checker"), embed("cargo build scripts"));
    let (a, again, b) = (a.unwrap(), again.unwrap(), b.unwrap());
    assert_eq!(a.values.len(), engine.info().n_embd as usize);
    assert!((a.values.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-4);
    assert_eq!(a, again);
    assert_ne!(a.values, b.values);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_models_answer_at_once_and_one_is_unloaded_under_way() {
    let small = small();
    let demo = engine_with(Builtin::Demo, |_| {});
    let running = demo.submit(ask("A trait is", Sampling::greedy(20))).unwrap();
    drop(demo);
    let (one, other) = futures::join!(run(&small, "A trait is", Sampling::greedy(20)), read(running));
    assert!(one.1.usage.output_tokens > 0);
    assert!(other.unwrap().1.usage.output_tokens > 0, "a running stream keeps its model");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_says_the_same_whatever_else_is_in_the_batch() {
    let engine = engine_with(Builtin::DemoSmall, |settings| settings.n_sequences = 32);
    let sampling = |seed| Sampling { seed: Some(seed), max_tokens: Some(24), ignore_eos: true, ..Sampling::default() };
    let prompt = |seed: u64| format!("Number {} of the traits is", seed % 5);
    let mut alone = Vec::new();
    for seed in 0..32 {
        alone.push(run(&engine, &prompt(seed), sampling(seed)).await.0);
    }
    let ask = async |seed| run(&engine, &prompt(seed), sampling(seed)).await;
    let together = join_all((0..32).map(ask)).await;
    let n_same = alone.iter().zip(&together).filter(|(alone, (together, _))| *alone == together).count();
    // a draw that falls within rounding of the border between two tokens may go either way: 1 in thousands
    assert!(n_same >= 30, "{n_same} of 32 texts are the same");
    let different: std::collections::HashSet<&String> = alone.iter().collect();
    assert!(different.len() > 25, "seeds draw different texts");
}

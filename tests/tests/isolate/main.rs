//! Isolates by themselves: real guests in wasmtime, on an engine without a model.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

mod branch;
mod command;
mod hibernate;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use llambo_inference::{
    AnswerEvent, AnswerStream, FinishReason, Finished, GenerateRequest, InferenceEngine, InferenceError, Message, Models, Node,
    NodeState, Priority, Prompt, Role, Sampling, Share, fake::FakeEngine,
};
use llambo_isolate::{Isolate, Layout, Limits, Module, NodeType, Sandbox, SandboxError, TypeSettings};
use llambo_tests::{eventually, guest};

fn models() -> (Models, Arc<FakeEngine>) {
    let (models, engine) = (Models::default(), Arc::new(FakeEngine::new("fake", 32)));
    models.insert(Arc::clone(&engine) as Arc<dyn InferenceEngine>);
    (models, engine)
}

fn settings(limits: Limits, expected: u32) -> TypeSettings {
    let env = vec![("MOOD".into(), "calm".into())];
    TypeSettings { limits, env, expected, ..TypeSettings::new("t", "fake") }
}

fn node_type(models: &Models, module: Module, limits: Limits, expected: u32) -> Result<Arc<NodeType>, SandboxError> {
    Sandbox::new(models.clone(), None)?.node_type(settings(limits, expected), module)
}

async fn one(models: &Models, module: &str, limits: Limits) -> Arc<Isolate> {
    let module = Module::open(&guest(module)).unwrap();
    let node_type = node_type(models, module, limits, 1).unwrap();
    node_type.spawn(1).await.unwrap().isolates.remove(0)
}

fn ask(prompt: &str, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        id: "r".into(),
        model: "fake".into(),
        node_type: None,
        prompt: Prompt::Text(prompt.into()),
        sampling: Sampling { max_tokens: Some(max_tokens), ..Sampling::default() },
        share: Share::default(),
        deadline: None,
        routing: llambo_inference::Routing::default(),
        priority: Priority::default(),
        journal: None,
        log: None,
    }
}

async fn read(mut events: AnswerStream) -> Result<(String, Finished), InferenceError> {
    let mut text = String::new();
    while let Some(event) = events.next().await {
        match event? {
            AnswerEvent::Piece { text: piece, .. } => text.push_str(&piece),
            AnswerEvent::Finished(finished) => return Ok((text, finished)),
        }
    }
    panic!("the stream ended without saying why")
}

fn reason<T>(result: Result<T, InferenceError>) -> &'static str {
    result.map(|_| ()).unwrap_err().reason()
}

#[tokio::test]
async fn the_default_engine_passes_prompt_and_answer_through() {
    let (models, _) = models();
    let isolate = one(&models, "default-engine", Limits::default()).await;
    let (text, finished) = read(isolate.generate(ask("hello", 3)).await.unwrap()).await.unwrap();
    assert_eq!(text, "word1 word2 word3");
    assert_eq!((finished.usage.input_tokens, finished.usage.output_tokens), (5, 3));
    assert_eq!(finished.reason, FinishReason::Length);
    let chat = Prompt::Chat(vec![Message { role: Role::User, content: "hello!".into() }]);
    let (_, finished) = read(isolate.generate(GenerateRequest { prompt: chat, ..ask("", 2) }).await.unwrap()).await.unwrap();
    assert_eq!(finished.usage.input_tokens, 6);
    let view = isolate.view();
    assert_eq!((view.state, view.served, view.replaced), (NodeState::Ready, 2, 0));
    assert!(view.memory_bytes >= 1 << 16);
}

#[tokio::test]
async fn a_dropped_answer_ends_the_generation_and_the_next_finds_a_fresh_guest() {
    let (models, engine) = models();
    let isolate = one(&models, "default-engine", Limits::default()).await;
    let mut events = isolate.generate(ask("hello", 1_000_000)).await.unwrap();
    assert!(events.next().await.unwrap().is_ok());
    assert_eq!(reason(isolate.generate(ask("hello", 1)).await), "FULL");
    drop(events);
    // at once: whoever drops an answer has given the isolate back
    assert_eq!(read(isolate.generate(ask("hello", 1)).await.unwrap()).await.unwrap().0, "word1");
    assert_eq!((isolate.view().replaced, engine.load().n_running), (1, 0));
}

#[tokio::test]
async fn a_guest_waits_for_its_reader_and_goes_on_where_it_was() {
    let (models, engine) = models();
    let isolate = one(&models, "default-engine", Limits::default()).await;
    let mut events = isolate.generate(ask("hello", 4000)).await.unwrap();
    assert!(events.next().await.unwrap().is_ok());
    let (generated, served) = (engine.load().n_generated_tokens, isolate.view().served);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(engine.load().n_generated_tokens < 4000 && generated > 0, "a guest goes no further than its reader");
    assert_eq!((served, isolate.view().state), (0, NodeState::Busy));
    let (rest, finished) = read(events).await.unwrap();
    assert!(rest.ends_with(" word4000") && finished.usage.output_tokens == 4000);
    assert_eq!((isolate.view().replaced, isolate.view().state), (0, NodeState::Ready));
}

#[tokio::test]
async fn a_deadline_ends_a_guest_that_does_not_look_at_it() {
    let (models, _) = models();
    let isolate = one(&models, "hostile", Limits::default()).await;
    let deadline = Some(std::time::Instant::now() + Duration::from_millis(100));
    let ended = read(isolate.generate(GenerateRequest { deadline, ..ask("loop", 1) }).await.unwrap()).await;
    assert_eq!(reason(ended), "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn each_limit_ends_a_guest_with_its_own_reason_and_its_isolate_goes_on() {
    let (models, _) = models();
    let limits = || Limits { cpu_time: Duration::from_millis(200), ..Limits::default() };
    let many_calls = || Limits { host_calls_per_second: 10_000_000, ..limits() };
    let cases = [
        ("loop", limits(), "CPU_EXHAUSTED"),
        ("grow", Limits { memory_bytes: 4 << 20, ..limits() }, "MEMORY_EXHAUSTED"),
        ("leak", many_calls(), "MEMORY_EXHAUSTED"),
        ("recurse", limits(), "STACK_EXHAUSTED"),
        ("flood", Limits { host_calls_per_second: 100, ..limits() }, "HOST_CALLS_EXHAUSTED"),
        ("output", Limits { output_bytes: 4096, ..many_calls() }, "OUTPUT_EXHAUSTED"),
        ("trap", limits(), "GUEST_TRAP"),
    ];
    for (prompt, limits, expected) in cases {
        let isolate = one(&models, "hostile", limits).await;
        assert_eq!(reason(read(isolate.generate(ask(prompt, 1)).await.unwrap()).await), expected, "{prompt}");
        assert_eq!(isolate.view().replaced, 1, "{prompt}");
        assert_eq!(read(isolate.generate(ask("stateful", 1)).await.unwrap()).await.unwrap().0, "1", "{prompt}");
    }
}

#[tokio::test]
async fn the_keys_and_values_of_a_request_are_limited_whoever_computes_them() {
    let (models, engine) = models();
    // the engine takes 1 KiB for a token, and a token for a byte
    let limits = |tokens: u64| Limits { kv_bytes: Some(tokens << 10), ..Limits::default() };
    let isolate = one(&models, "default-engine", limits(10)).await;
    assert!(read(isolate.generate(ask("hello", 5)).await.unwrap()).await.is_ok());
    let refused = read(isolate.generate(ask("hello", 6)).await.unwrap()).await.unwrap_err();
    assert_eq!(refused.reason(), "KV_EXHAUSTED");
    assert!(refused.to_string().contains("hold 11264 bytes of keys and values at a time, and its limit is 10240"), "{refused}");
    // three at a time, each of five tokens and two more
    let (enough, less) = (one(&models, "branches", limits(21)).await, one(&models, "branches", limits(14)).await);
    assert!(read(enough.generate(ask("fork hello", 2)).await.unwrap()).await.is_ok());
    assert_eq!(reason(read(less.generate(ask("fork hello", 2)).await.unwrap()).await), "KV_EXHAUSTED");
    let measured = one(&models, "branches", limits(5)).await;
    assert!(read(measured.generate(ask("measure a", 2)).await.unwrap()).await.is_ok());
    assert_eq!(reason(read(measured.generate(ask("measure hello", 2)).await.unwrap()).await), "KV_EXHAUSTED");
    let command = one(&models, "wasmedge", limits(10)).await;
    assert!(read(command.generate(ask("complete hello", 5)).await.unwrap()).await.is_ok());
    assert_eq!(reason(read(command.generate(ask("complete hello", 6)).await.unwrap()).await), "KV_EXHAUSTED");
    assert_eq!(engine.load().n_running, 0);
}

#[tokio::test]
async fn the_tokens_of_a_request_are_limited_whoever_generates_them() {
    let (models, _) = models();
    let limits = || Limits { tokens: Some(5), ..Limits::default() };
    let isolate = one(&models, "default-engine", limits()).await;
    assert_eq!(read(isolate.generate(ask("hello", 5)).await.unwrap()).await.unwrap().1.usage.output_tokens, 5);
    let refused = read(isolate.generate(ask("hello", 6)).await.unwrap()).await.unwrap_err();
    assert_eq!(refused.reason(), "TOKENS_EXHAUSTED");
    assert!(refused.to_string().contains("generated more than 5 tokens for one request"), "{refused}");
    // three generations of each request count together
    let command = one(&models, "wasmedge", limits()).await;
    assert_eq!(reason(read(command.generate(ask("unload hello", 2)).await.unwrap()).await), "TOKENS_EXHAUSTED");
    assert!(read(command.generate(ask("complete hello", 5)).await.unwrap()).await.is_ok());
}

#[tokio::test]
async fn a_type_may_allow_less_time_than_the_request() {
    let (models, _) = models();
    let limits = Limits { time: Some(Duration::from_millis(100)), ..Limits::default() };
    let isolate = one(&models, "hostile", limits).await;
    let deadline = Some(std::time::Instant::now() + Duration::from_mins(5));
    let ended = read(isolate.generate(GenerateRequest { deadline, ..ask("loop", 1) }).await.unwrap()).await;
    assert_eq!(reason(ended), "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn an_error_of_inference_keeps_its_kind_through_the_guest() {
    let (models, _) = models();
    let isolate = one(&models, "hostile", Limits::default()).await;
    assert_eq!(reason(read(isolate.generate(ask("bad-model", 1)).await.unwrap()).await), "UNKNOWN_MODEL");
    assert_eq!(reason(read(isolate.generate(ask("bad-options", 1)).await.unwrap()).await), "GUEST_ERROR");
    assert_eq!(isolate.view().replaced, 0, "a guest that reports its failure stays");
    let gone = one(&models, "default-engine", Limits::default()).await;
    models.remove(&"fake".into());
    assert_eq!(reason(read(gone.generate(ask("hello", 1)).await.unwrap()).await), "UNKNOWN_MODEL");
}

#[tokio::test]
async fn a_table_larger_than_the_limit_is_refused_with_its_numbers() {
    let (models, _) = models();
    let limits = Limits { table_elements: 3, ..Limits::default() };
    let error = node_type(&models, Module::default_engine(), limits, 1).err().map(|e| e.to_string());
    let error = error.unwrap_or_default();
    assert!(error.contains("table") && error.contains('3'), "{error}");
}

#[tokio::test]
async fn one_that_is_stopped_finishes_first_and_takes_nothing_new() {
    let (models, _) = models();
    let isolate = one(&models, "default-engine", Limits::default()).await;
    let mut events = isolate.generate(ask("hello", 20_000)).await.unwrap();
    assert!(events.next().await.unwrap().is_ok());
    isolate.stop();
    assert_eq!(isolate.view().state, NodeState::Draining);
    assert!(read(events).await.unwrap().0.ends_with("word20000"));
    eventually("it is stopped", async || isolate.view().state == NodeState::Stopped).await;
    assert_eq!(reason(isolate.generate(ask("hello", 1)).await), "STOPPED");
}

#[tokio::test]
async fn room_grows_and_places_are_used_again() {
    let (models, _) = models();
    for (layout, short) in [(Layout::Slab, "addresses"), (Layout::Mapped, "vm.max_map_count")] {
        let sandbox = Sandbox::with_layout(models.clone(), None, layout).unwrap();
        let node_type = sandbox.node_type(settings(Limits::default(), 20), Module::default_engine()).unwrap();
        room_grows(&node_type, short).await;
    }
}

async fn room_grows(node_type: &Arc<NodeType>, short: &str) {
    let first = node_type.spawn(20).await.unwrap().isolates;
    let more = node_type.spawn(100).await.unwrap().isolates;
    assert_eq!((first.len(), more.len()), (20, 100));
    assert_eq!(first.iter().chain(&more).map(|i| i.view().id).collect::<std::collections::HashSet<_>>().len(), 120);
    for isolate in &more {
        isolate.stop();
    }
    drop(more);
    assert_eq!(node_type.spawn(100).await.unwrap().isolates.len(), 100);
    let error = node_type.spawn(1_000_000).await.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains(short) && error.contains("1000000"), "{error}");
}

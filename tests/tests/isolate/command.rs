//! Programs for preview1 and `wasi_ephemeral_nn`, written with the crates that others write them with.

use futures::{StreamExt, stream};
use serde_json::Value;

use super::*;

/// What a command prints for a prompt, and how it ends.
async fn run(isolate: &Arc<Isolate>, prompt: &str) -> Result<(String, Finished), InferenceError> {
    read(isolate.generate(ask(prompt, 6)).await?).await
}

async fn says(module: &str, prompt: &str) -> String {
    let (models, _) = models();
    let isolate = one(&models, module, Limits::default()).await;
    run(&isolate, prompt).await.unwrap().0
}

fn json(line: &str, key: &str) -> Value {
    serde_json::from_str(line.strip_prefix(key).unwrap()).unwrap()
}

#[tokio::test]
async fn a_program_of_wasmedge_computes_and_reads_what_it_cost() {
    let said = says("wasmedge", "complete hello").await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[1], "word1 word2 word3 word4 word5 word6");
    let (before, after) = (json(lines[0], "before "), json(lines[2], "after "));
    assert_eq!((&before["input_tokens"], &before["output_tokens"]), (&5.into(), &0.into()));
    assert_eq!((&after["input_tokens"], &after["output_tokens"]), (&5.into(), &6.into()));
    assert!(after["llama_commit"].is_string() && after["llama_build_number"].is_u64());
    assert_eq!(lines[3], format!("needed {}", lines[1].len()), "a buffer that is too small is told what it should be");
}

#[tokio::test]
async fn it_streams_and_what_it_prints_counts_as_tokens() {
    let (models, _) = models();
    let isolate = one(&models, "wasmedge", Limits::default()).await;
    let mut events = isolate.generate(ask("stream hello", 6)).await.unwrap();
    let (mut n_tokens, mut text) = (0, String::new());
    while let Some(event) = events.next().await {
        match event.unwrap() {
            AnswerEvent::Piece { text: piece, n_tokens: n } => (n_tokens, text) = (n_tokens + n, text + &piece),
            AnswerEvent::Finished(finished) => {
                assert_eq!((finished.reason, finished.usage.output_tokens), (FinishReason::Length, 6));
            }
        }
    }
    assert!(text.starts_with("word1 word2 word3 word4 word5 word6\n"), "{text}");
    assert!(text.contains("then EndOfSequence") && n_tokens == 6, "{n_tokens}: {text}");
}

#[tokio::test]
async fn options_come_on_top_of_the_clients() {
    assert_eq!(says("wasmedge", "stdout hello").await, "word1 word2 word3 word4 word5 word6");
    let said = says("wasmedge", "config hello").await;
    let (metadata, refused) = said.trim().split_once('\n').unwrap();
    assert_eq!((json(metadata, "")["output_tokens"].as_u64(), refused), (Some(3), "InvalidArgument"));
    assert_eq!(says("wasmedge", "denied").await, "UnsupportedOperation\n");
}

#[tokio::test]
async fn inputs_graphs_and_embeddings_are_as_its_examples_expect() {
    assert_eq!(says("wasmedge", "twice hello").await, "the same\n");
    assert_eq!(says("wasmedge", "missing").await, "ModelNotFound\n");
    let unloaded = says("wasmedge", "unload hello").await;
    assert_eq!(unloaded.matches("word6").count(), 3);
    assert_eq!(unloaded.matches("InvalidArgument").count(), 3, "{unloaded}");
    let embedding: Value = serde_json::from_str(&says("wasmedge", "embed hello").await).unwrap();
    assert_eq!((&embedding["n_embedding"], embedding["embedding"].as_array().unwrap().len()), (&4.into(), 4));
    assert_eq!(
        says("wasmedge", "misuse").await,
        "InvalidArgument\nInvalidArgument\nInvalidArgument\nUnsupportedOperation\nInvalidEncoding\nErr(BackendError(ContextFull))\n"
    );
}

#[tokio::test]
async fn a_program_of_the_proposals_own_crate_runs_too() {
    assert_eq!(says("wasi-nn", "hello").await, "word1 word2 word3 word4 word5 word6");
}

#[tokio::test]
async fn nothing_is_around_a_program_but_its_prompt() {
    let said = says("wasmedge", "surroundings").await;
    let expected = ["stdin \"surroundings\\n\"", "env [(\"MOOD\", \"calm\")]", "file false", "folder false", "network false"];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn each_request_has_a_program_of_its_own_and_its_end_says_why() {
    let (models, engine) = models();
    let isolate = one(&models, "wasmedge", Limits { output_bytes: 100_000, ..Limits::default() }).await;
    assert_eq!(run(&isolate, "exit 0").await.unwrap().0, "");
    let failed = run(&isolate, "exit 7").await.unwrap_err();
    assert!(failed.reason() == "GUEST_ERROR" && failed.to_string().contains("it exited with 7"), "{failed}");
    assert_eq!(isolate.view().replaced, 0, "a program that says that it failed has not gone wrong");
    let panicked = run(&isolate, "panic because").await.unwrap_err();
    assert!(panicked.reason() == "GUEST_ERROR" && panicked.to_string().contains("as asked: because"), "{panicked}");
    assert_eq!(reason(run(&isolate, "write").await), "OUTPUT_EXHAUSTED");
    assert_eq!(isolate.view().replaced, 2);
    let mut unread = isolate.generate(ask("stream hello", 1_000_000)).await.unwrap();
    assert!(unread.next().await.unwrap().is_ok());
    drop(unread);
    eventually("the generation ended", async || engine.load().n_running == 0).await;
    assert!(run(&isolate, "complete hello").await.unwrap().0.contains("word6"));
    models.remove(&"fake".into());
    assert_eq!(reason(run(&isolate, "complete hello").await), "UNKNOWN_MODEL", "the cause behind a number");
}

#[tokio::test]
async fn no_pointer_is_followed_out_of_a_program() {
    let said = says("pointers", "go").await;
    let (refused, all) = said.trim().strip_suffix(" refused").unwrap().split_once(" of ").unwrap();
    assert_eq!(refused, all);
}

#[tokio::test]
async fn limits_hold_for_programs() {
    let (models, _) = models();
    let calls = one(&models, "wasmedge", Limits { host_calls_per_second: 20, ..Limits::default() }).await;
    assert_eq!(reason(run(&calls, "write").await), "HOST_CALLS_EXHAUSTED", "WASI's functions count");
    let memory = one(&models, "wasmedge", Limits { memory_bytes: 320 << 10, ..Limits::default() }).await;
    assert_eq!(reason(run(&memory, "misuse").await), "MEMORY_EXHAUSTED");
    let unfit = |bytes: &[u8]| {
        let refused = node_type(&models, Module::from_bytes("m", bytes), Limits::default(), 1).err().unwrap();
        refused.to_string()
    };
    // a module that is empty, and one that imports `env.f`
    assert!(unfit(b"\0asm\x01\0\0\0").contains("without `_start`"));
    let foreign = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x09\x01\x03env\x01f\0\0";
    assert!(unfit(foreign).contains("imports `f` of `env`"), "{}", unfit(foreign));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_programs_answer_at_once() {
    const N: u32 = 2000;
    let models = Models::default();
    let engine = Arc::new(FakeEngine::new("fake", N));
    models.insert(Arc::clone(&engine) as Arc<dyn InferenceEngine>);
    let module = Module::open(&guest("wasmedge")).unwrap();
    let isolates = node_type(&models, module, Limits::default(), N).unwrap().spawn(N).await.unwrap().isolates;
    let begun: Vec<_> = stream::iter(&isolates)
        .then(async |isolate| {
            let mut events = isolate.generate(ask("stream hello", 4000)).await.unwrap();
            assert!(events.next().await.unwrap().is_ok());
            events
        })
        .collect()
        .await;
    assert_eq!(engine.load().n_running, N, "all are under way together");
    let texts: Vec<String> =
        stream::iter(begun).map(async |events| read(events).await.unwrap().0).buffer_unordered(N as usize).collect().await;
    assert!(texts.len() == N as usize && texts.iter().all(|text| text.contains(" word4000\n")));
}

#[tokio::test]
async fn a_guest_reaches_no_model_that_its_type_may_not_ask() {
    let (models, _) = models();
    models.insert(Arc::new(FakeEngine::new("other", 4)));
    for (may_ask, answers) in
        [(None, true), (Some(vec!["fake".into(), "other".into()]), true), (Some(vec!["fake".into()]), false)]
    {
        let args = vec!["other".into(), "{prompt}".into()];
        let settings = TypeSettings { args, may_ask, ..settings(Limits::default(), 1) };
        let module = Module::open(&guest("wasmedge")).unwrap();
        let node_type = Sandbox::new(models.clone(), None).unwrap().node_type(settings, module).unwrap();
        let isolate = node_type.spawn(1).await.unwrap().isolates.remove(0);
        let answer = read(isolate.generate(ask("complete hello", 3)).await.unwrap()).await;
        assert_eq!(answer.is_ok(), answers, "{answer:?}");
    }
}

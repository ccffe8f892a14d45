//! What was computed once is used again: within a tenant, from wherever it is kept, with the same text.

use std::path::Path;

use futures::future::join_all;
use llambo_inference::Usage;

use super::*;

/// About 140 tokens.
const SYSTEM: &str = "The ownership system decides when memory is freed. A value has one owner, and when the owner goes out of \
    scope the value is dropped. A reference borrows a value without owning it, and the borrow checker makes sure that no reference \
    outlives what it refers to. A mutable reference is the only one at its time, so that data races cannot happen. Smart pointers \
    own what they point to and free it when they are dropped. A reference-counted pointer counts its owners, and the last of them \
    frees the value. Interior mutability moves the check from the time of compilation to the time when the program runs. ";

fn tight(n_sequences: u32, change: impl FnOnce(&mut EngineSettings)) -> LlamaEngine {
    engine_with(Builtin::DemoSmall, |settings| {
        settings.n_sequences = n_sequences;
        settings.n_context = Some(1024);
        change(settings);
    })
}

fn of(tenant: &str, prompt: &str, n: u32) -> GenerateRequest {
    let share = Share { tenant: tenant.into(), ..Share::default() };
    GenerateRequest { share, ..ask(prompt, Sampling { ignore_eos: true, ..Sampling::greedy(n) }) }
}

async fn text(engine: &LlamaEngine, request: GenerateRequest) -> (String, Usage) {
    let (text, finished) = read(engine.submit(request).unwrap()).await.unwrap();
    (text, finished.usage)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_request_starts_where_the_first_parted_from_it_but_not_for_another_tenant() {
    let engine = tight(4, |_| {});
    let prompt = |question: &str| format!("{SYSTEM}{question}");
    let (_, first) = text(&engine, of("acme", &prompt("A trait is"), 8)).await;
    assert_eq!(first.cached_tokens, 0);
    let (warm, second) = text(&engine, of("acme", &prompt("An iterator is"), 8)).await;
    assert!(second.cached_tokens * 10 > second.input_tokens * 8, "{second:?}");
    let (cold, other) = text(&engine, of("other", &prompt("An iterator is"), 8)).await;
    assert_eq!((other.cached_tokens, warm), (0, cold));
    // asked again word for word, all but its last token is there
    let (_, again) = text(&engine, of("acme", &prompt("An iterator is"), 8)).await;
    assert_eq!(again.cached_tokens, again.input_tokens - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_many_share_is_computed_once() {
    let engine = tight(16, |_| {});
    let alone = tight(16, |settings| settings.kv_memory_bytes = 0);
    let prompts: Vec<String> = (0..16).map(|i| format!("{SYSTEM}Number {i} is")).collect();
    let before = engine.load().n_prompt_tokens;
    let answers = join_all(prompts.iter().map(|p| text(&engine, of("acme", p, 6)))).await;
    let computed = engine.load().n_prompt_tokens - before;
    let asked: u32 = answers.iter().map(|(_, usage)| usage.input_tokens).sum();
    assert!(computed * 6 < u64::from(asked), "{computed} of {asked} tokens were computed");
    for (prompt, (together, _)) in prompts.iter().zip(&answers) {
        assert_eq!(&text(&alone, of(prompt, prompt, 6)).await.0, together);
    }
}

/// A conversation of two turns, whose first is `between` its second; and how many tokens of the second were there.
async fn continued(engine: &LlamaEngine, between: impl AsyncFnOnce()) -> (String, String, Usage) {
    let (first, _) = text(engine, of("acme", SYSTEM, 40)).await;
    between().await;
    let (second, usage) = text(engine, of("acme", &format!("{SYSTEM}{first}"), 40)).await;
    (first, second, usage)
}

/// Takes all streams for other things.
async fn others(engine: &LlamaEngine, n: usize) {
    for round in 0..2 {
        let prompts: Vec<String> = (0..n).map(|i| format!("Other {round} {i}: {}", "something else ".repeat(20))).collect();
        join_all(prompts.iter().map(|p| text(engine, of("other", p, 4)))).await;
    }
}

/// Waits until a conversation has gone to disk.
async fn on_disk(engine: &LlamaEngine) {
    eventually("a copy is on disk", || engine.load().kv_disk_bytes > 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_alike_from_its_stream_from_memory_from_disk_and_from_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let whole = continued(&tight(4, |_| {}), async || {}).await;
    let cached = |usage: Usage| usage.cached_tokens + 1 == usage.input_tokens;
    assert!(cached(whole.2), "{:?}", whole.2);

    let engine = tight(4, |_| {});
    let memory = continued(&engine, async || others(&engine, 4).await).await;
    assert!(cached(memory.2), "{:?}", memory.2);

    let disk_settings = |settings: &mut EngineSettings, folder: &Path| {
        settings.kv_memory_bytes = 700 << 10;
        settings.kv_disk_bytes = 64 << 20;
        settings.kv_folder = Some(folder.into());
    };
    let engine = tight(4, |settings| disk_settings(settings, folder.path()));
    let disk = continued(&engine, async || {
        others(&engine, 4).await;
        on_disk(&engine).await;
    })
    .await;
    assert!(cached(disk.2), "{:?}", disk.2);
    drop(engine);

    // another run of the program
    let engine = tight(4, |settings| disk_settings(settings, folder.path()));
    let (later, usage) = text(&engine, of("acme", &format!("{SYSTEM}{}", whole.0), 40)).await;
    assert!(cached(usage), "{usage:?}");
    assert_eq!(later, whole.1);
    // another model finds nothing
    let other = engine_with(Builtin::Demo, |settings| disk_settings(settings, folder.path()));
    assert_eq!(other.load().kv_disk_bytes, 0);

    let engine = tight(4, |settings| settings.kv_memory_bytes = 0);
    let nothing = continued(&engine, async || others(&engine, 4).await).await;
    assert_eq!(nothing.2.cached_tokens, 0);
    for (name, (first, second, _)) in [("memory", memory), ("disk", disk), ("nothing", nothing)] {
        assert_eq!((&first, &second), (&whole.0, &whole.1), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_sequences_than_streams_take_turns_and_say_the_same() {
    // one stream, so that every batch is one sequence's whoever else waits, and numbers are equal to the last bit
    let engine = tight(1, |_| {});
    let prompts: Vec<String> = (0..4).map(|i| format!("Chapter {i} of the book explains")).collect();
    let started: Vec<_> = prompts.iter().map(|p| engine.submit(of(p, p, 400)).unwrap()).collect();
    let running: Vec<_> = started.into_iter().map(|stream| tokio::spawn(read(stream))).collect();
    // it came last, and waits for a quantum, not for a whole answer
    text(&engine, of("short", "A short question is", 4)).await;
    assert!(!running.iter().any(tokio::task::JoinHandle::is_finished));
    let finished = join_all(running).await;
    let alone = tight(1, |settings| settings.kv_memory_bytes = 0);
    for (prompt, answer) in prompts.iter().zip(finished) {
        let (together, finished) = answer.unwrap().unwrap();
        let (lonely, expected) = text(&alone, of(prompt, prompt, 400)).await;
        assert_eq!(finished.usage.output_tokens, expected.output_tokens);
        assert_eq!(lonely, together);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_conversations_are_parked_and_any_of_them_speaks_next() {
    let engine = tight(8, |settings| settings.kv_memory_bytes = 1 << 30);
    let prompt = |i: usize| format!("Conversation number {i}. {}", &SYSTEM[..200 + i % 100]);
    for chunk in (0..1000).collect::<Vec<_>>().chunks(8) {
        join_all(chunk.iter().map(|&i| text(&engine, of("acme", &prompt(i), 2)))).await;
    }
    let before = engine.load().n_prompt_tokens;
    for i in [999, 0, 500, 1, 333, 42] {
        let (_, usage) = text(&engine, of("acme", &prompt(i), 2)).await;
        assert_eq!(usage.cached_tokens, usage.input_tokens - 1, "conversation {i}: {usage:?}");
    }
    assert_eq!(engine.load().n_prompt_tokens - before, 6, "only the last token of each was computed");
}

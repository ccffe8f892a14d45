//! A smaller model that guesses ahead changes the time an answer takes and never its text.

use futures::future::join_all;
use llambo_llama::DraftSettings;

use super::*;

fn drafted(draft: Builtin, n_tokens: u32) -> LlamaEngine {
    engine_with(Builtin::Demo, |settings| settings.draft = Some(DraftSettings { file: draft.unpack().unwrap(), n_tokens }))
}

fn sampling(seed: u64) -> Sampling {
    Sampling { seed: Some(seed), max_tokens: Some(200), ignore_eos: true, ..Sampling::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_change_no_text() {
    let plain = engine_with(Builtin::Demo, |_| {});
    // one that is often wrong, and one that never is
    for (draft, n_tokens) in [(Builtin::DemoSmall, 4), (Builtin::Demo, 16)] {
        let engine = drafted(draft, n_tokens);
        let mut n_same = 0;
        for seed in 0..4 {
            let prompt = ["A trait is", "The borrow checker", "An iterator", "Each crate"][usize::try_from(seed).unwrap()];
            let (expected, _) = run(&plain, prompt, sampling(seed)).await;
            let (text, finished) = run(&engine, prompt, sampling(seed)).await;
            assert_eq!(finished.usage.output_tokens, 200);
            // several tokens in one call are rounded in another way than one: texts may part at a tie
            let n_alike = text.bytes().zip(expected.bytes()).take_while(|(a, b)| a == b).count();
            n_same += usize::from(n_alike == expected.len());
            assert!(n_alike * 10 > expected.len(), "{n_alike} of {} bytes agree: {text}", expected.len());
        }
        assert!(n_same >= 2, "{n_same} of 4 texts are the same with {draft:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_end_where_they_would_and_go_on_alike_afterwards() {
    let (plain, engine) = (engine_with(Builtin::Demo, |_| {}), drafted(Builtin::Demo, 16));
    // limits and stop strings in the middle of what was guessed
    for n in 1..20 {
        let sampling = || Sampling { stop: vec![", and".into()], ..Sampling::greedy(n) };
        let (expected, finished) = run(&plain, "A closure is", sampling()).await;
        let (text, guessed) = run(&engine, "A closure is", sampling()).await;
        assert_eq!(
            (text, guessed.reason, guessed.usage.output_tokens),
            (expected, finished.reason, finished.usage.output_tokens)
        );
    }
    // what a guess left in the cache must be gone: the conversation goes on from there
    let prompt = "A closure is";
    let (first, _) = run(&engine, prompt, Sampling::greedy(19)).await;
    let next = format!("{prompt}{first} which");
    assert_eq!(run(&engine, &next, Sampling::greedy(24)).await.0, run(&plain, &next, Sampling::greedy(24)).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_sequences_are_guessed_for_and_many_are_not() {
    let engine = drafted(Builtin::Demo, 4);
    for n in [3, 8, 16] {
        let ask = async |i| run(&engine, &format!("Number {i} is"), sampling(i)).await;
        for (text, finished) in join_all((0..n).map(ask)).await {
            assert!(finished.usage.output_tokens == 200 && !text.is_empty());
        }
    }
}

#[test]
fn a_draft_of_another_vocabulary_is_refused() {
    // the same model with one word of its vocabulary written in another way
    let mut bytes = std::fs::read(Builtin::DemoSmall.unpack().unwrap().path()).unwrap();
    let at = bytes.windows(6).position(|word| word == b"borrow").unwrap();
    bytes[at] = b'q';
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.gguf");
    std::fs::write(&path, bytes).unwrap();
    let draft = DraftSettings { file: llambo_catalog::ModelFile::open(&path).unwrap(), n_tokens: 4 };
    let settings = EngineSettings { draft: Some(draft), ..EngineSettings::new("demo") };
    let error = LlamaEngine::load(&Builtin::Demo.unpack().unwrap(), &settings).err().unwrap().to_string();
    assert!(error.contains("cannot guess for `demo`") && error.contains("is another one"), "{error}");
}

//! `llambo:engine`: what each call of it does, through a real guest. The engine's tokens are bytes; what it generates are the tokens 1, 2, 3.

use super::*;

async fn said(isolate: &Isolate, prompt: &str, max_tokens: u32) -> Result<(String, Finished), InferenceError> {
    read(isolate.generate(ask(prompt, max_tokens)).await.unwrap()).await
}

#[tokio::test]
async fn branches_fork_grow_and_go_back() {
    let (models, engine) = models();
    let isolate = one(&models, "branches", Limits::default()).await;
    let (text, finished) = said(&isolate, "fork hello", 2).await.unwrap();
    assert_eq!(text, "5+2=7 word1 word2;".repeat(3));
    // what the forks read and wrote is what the request cost
    assert_eq!((finished.usage.input_tokens, finished.usage.output_tokens), (15, 6));
    for (prompt, expected) in [
        ("back hello", "true 1 true"),
        ("stop hello", "true true true"),
        ("append hello", "3 4 helloxyz!"),
        // each of 256 tokens is as likely as any other
        ("measure hello", "2 5.545;1 -5.545;3 -16.636;0 0.000;"),
        ("measure-tokens hello", "[65, 66] 2;[] 0;"),
        ("logprobs hello", "2 -11.090"),
        ("mask hello", "word1 word2"),
    ] {
        assert_eq!(said(&isolate, prompt, 2).await.unwrap().0, expected, "{prompt}");
    }
    assert_eq!((engine.load().n_running, isolate.view().replaced), (0, 0));
}

#[tokio::test]
async fn snapshots_and_branches_outlive_a_request_and_not_their_guest() {
    let (models, _) = models();
    let isolate = one(&models, "branches", Limits::default()).await;
    assert_eq!(said(&isolate, "save hello", 1).await.unwrap().0, "one,two");
    assert_eq!(said(&isolate, "restore", 1).await.unwrap().0, "hello 5 true false two");
    said(&isolate, "save hello", 1).await.unwrap();
    assert_eq!(reason(said(&isolate, "many x", 1).await), "MEMORY_EXHAUSTED");
    // a fresh guest has none
    let error = said(&isolate, "restore", 1).await.unwrap_err();
    assert!(error.to_string().contains("there is no snapshot `one`"), "{error}");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_a_sentence() {
    let (models, engine) = models();
    let isolate = one(&models, "branches", Limits::default()).await;
    let long = format!("append {}", "x".repeat(1022));
    for (prompt, named) in [
        ("missing", "no snapshot `nothing`"),
        ("names x", "256 snapshots"),
        ("crowd x", "16 generations are under way"),
        ("cut x", "1 tokens cannot be cut to 0"),
        ("foreign x", "no token 4294967295"),
        ("scores x", "65 continuations"),
        ("model", "`no such model` is not loaded"),
        (long.as_str(), "1025 tokens"),
    ] {
        // a guest that is refused something has forgotten nothing: the snapshots of one case are there in the next
        let isolate = if prompt.starts_with("names") { &one(&models, "branches", Limits::default()).await } else { &isolate };
        let error = said(isolate, prompt, 1).await.unwrap_err();
        assert!(error.to_string().contains(named), "{prompt}: {error}");
    }
    assert_eq!((engine.load().n_running, isolate.view().replaced), (0, 0));
}

#[tokio::test]
async fn branches_are_charged_to_the_guests_memory() {
    let (models, _) = models();
    let limits = || Limits { memory_bytes: 2 << 20, host_calls_per_second: 10_000_000, ..Limits::default() };
    let isolate = one(&models, "branches", limits()).await;
    // 900 tokens are 3.6 KB, so a few hundred forks are all there may be
    let error = said(&isolate, &format!("many {}", "x".repeat(900)), 1).await.unwrap_err();
    assert!(error.to_string().contains("its limit is 2097152"), "{error}");
}

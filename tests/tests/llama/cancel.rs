//! What ends a sequence from outside, and that its neighbours do not notice.

use llambo_inference::Instant;

use super::*;

/// Long enough that nothing here ends by itself.
fn endless() -> Sampling {
    Sampling { ignore_eos: true, max_tokens: None, ..Sampling::greedy(1) }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_stream_frees_the_sequence() {
    let engine = engine_with(Builtin::DemoSmall, |s| s.n_sequences = 1);
    let mut stream = engine.submit(ask("Once", endless())).unwrap();
    stream.next().await.unwrap().unwrap();
    let before = engine.load().n_generated_tokens;
    drop(stream);
    eventually("the sequence is gone", || engine.load().n_running == 0 && engine.load().n_kv_used == 0).await;
    assert!(engine.load().n_generated_tokens - before < 100, "it went on after its reader left");
    run(&engine, "Next", Sampling::greedy(4)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_does_not_stall_its_batch() {
    let engine = small();
    let mut slow = engine.submit(ask("Slowly", endless())).unwrap();
    slow.next().await.unwrap().unwrap();
    for i in 0..20 {
        run(&engine, &format!("Quick {i}"), Sampling::greedy(30)).await;
    }
    // the slow one was paused, not ended: all of it is still to be had
    let mut n = 1;
    while let Some(event) = slow.next().await {
        match event.unwrap() {
            AnswerEvent::Piece { n_tokens, .. } => n += n_tokens,
            AnswerEvent::Finished(finished) => {
                assert_eq!(finished.usage.output_tokens + finished.usage.input_tokens, 512);
                assert!(n <= finished.usage.output_tokens);
                return;
            }
        }
    }
    panic!("no end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_nothing_is_given_up() {
    let engine = engine_with(Builtin::DemoSmall, |s| s.stall_timeout = Duration::from_millis(50));
    let mut stream = engine.submit(ask("Nobody listens", endless())).unwrap();
    eventually("its place is free", || engine.load().n_running == 0 && engine.load().n_generated_tokens > 0).await;
    let mut last = None;
    while let Some(event) = stream.next().await {
        last = Some(event);
    }
    assert_eq!(last, Some(Err(InferenceError::Stalled { waited_ms: 50 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_sequence_running_or_waiting() {
    let engine = engine_with(Builtin::DemoSmall, |s| s.n_sequences = 1);
    let within = |ms| Some(Instant::now() + Duration::from_millis(ms));
    let running =
        engine.submit(GenerateRequest { deadline: within(100), ..ask("Run", Sampling { max_tokens: None, ..endless() }) });
    let running = running.unwrap();
    let waiting = engine.submit(GenerateRequest { deadline: within(20), ..ask("Wait", endless()) }).unwrap();
    let (running, waiting) = futures::join!(read(running), read(waiting));
    assert_eq!(waiting, Err(InferenceError::DeadlineExceeded { n_generated: 0 }));
    assert!(matches!(running, Err(InferenceError::DeadlineExceeded { n_generated: 1.. })), "{running:?}");
    let late = GenerateRequest { deadline: Some(Instant::now()), ..ask("Late", endless()) };
    assert!(matches!(engine.submit(late), Err(InferenceError::DeadlineExceeded { n_generated: 0 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_behind_gives_its_place_to_one_that_waits_and_goes_on_later() {
    let engine = engine_with(Builtin::DemoSmall, |s| s.n_sequences = 1);
    let all = Sampling { max_tokens: Some(300), ..endless() };
    let expected = run(&engine, "Run", all.clone()).await;
    let slow = engine.submit(ask("Run", all)).unwrap();
    eventually("it is paused", || engine.load().n_kv_used > 30).await;
    assert_eq!(run(&engine, "Wait", Sampling::greedy(4)).await.1.usage.output_tokens, 4);
    let (text, finished) = read(slow).await.unwrap();
    assert_eq!((text, finished.usage.output_tokens), (expected.0, expected.1.usage.output_tokens));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_leaves_no_thread_behind() {
    let n_threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = n_threads();
    for _ in 0..3 {
        let engine = small();
        run(&engine, "Run", Sampling::greedy(4)).await;
        engine.embed("Run".into()).await.unwrap();
        assert!(n_threads() > before);
    }
    eventually("all are gone", || n_threads() <= before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_it_holds_is_refused_at_once() {
    let engine = engine_with(Builtin::DemoSmall, |s| {
        s.n_sequences = 1;
        s.n_waiting = 2;
    });
    let held: Vec<_> = (0..3).map(|_| engine.submit(ask("Hold", endless())).unwrap()).collect();
    let refused = engine.submit(ask("One more", endless())).err();
    assert!(matches!(refused, Some(InferenceError::Full { capacity: 3, .. })), "{refused:?}");
    drop(held);
    eventually("there is room again", || engine.submit(ask("Now", Sampling::greedy(1))).is_ok()).await;
}

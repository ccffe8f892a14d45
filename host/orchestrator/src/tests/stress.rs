use std::{future::Future, pin::Pin, task::Poll};

use llambo_strategy::NAMES;
use proptest::{collection::vec, prelude::*};

use super::*;

type Dispatching = Pin<Box<dyn Future<Output = Result<Routed, DispatchError>> + Send>>;

enum Asker {
    Waits(Dispatching),
    Reads(#[expect(dead_code, reason = "kept so that its request stays in flight")] Routed),
}

fn start(stage: &Stage, request: GenerateRequest) -> Dispatching {
    let door = stage.door.clone();
    Box::pin(async move { door.dispatch(request).await })
}

fn poll(waiting: &mut Dispatching) -> Poll<Result<Routed, DispatchError>> {
    waiting.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Everything is polled by hand, so each case is one exact interleaving.
    #[test]
    fn whoever_comes_goes_fails_or_gives_up_no_one_is_forgotten(
        steps in vec((0u8..10, any::<usize>()), 1..200), max_in_flight in 1usize..6, strategy in 0..NAMES.len(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _entered = runtime.enter();
        let limits = Settings { max_in_flight, max_waiting: 1000, strategy: NAMES[strategy].into(), ..Settings::default() };
        let stage = runtime.block_on(async {
            let stage = Stage::open(2, limits).await;
            stage.cluster.spawn(&"large".into(), 1).await.unwrap();
            stage.cluster.shared.lock().balance.seed(7);
            stage
        });
        let mut askers: Vec<Asker> = Vec::new();
        let mut refused = 0;
        for (action, n) in steps {
            let at = n % askers.len().max(1);
            match action {
                0..=2 => {
                    let wanted = [request("r"), typed("s", "small"), typed("l", "large")][n % 3].clone();
                    askers.push(Asker::Waits(start(&stage, wanted)));
                }
                3..=5 if !askers.is_empty() => {
                    let asker = askers.swap_remove(at);
                    match asker {
                        Asker::Waits(mut waiting) => match poll(&mut waiting) {
                            Poll::Pending => askers.push(Asker::Waits(waiting)),
                            Poll::Ready(Ok(answer)) => askers.push(Asker::Reads(answer)),
                            Poll::Ready(Err(error)) => {
                                prop_assert_eq!(error.reason(), "GUEST_TRAP");
                                refused += 1;
                            }
                        },
                        reads @ Asker::Reads(_) => askers.push(reads),
                    }
                }
                6..=8 if !askers.is_empty() => drop(askers.swap_remove(at)),
                _ => stage.node(n % 3).act(Act::Refuse(InferenceError::Guest { reason: "GUEST_TRAP", detail: String::new() })),
            }
            let reading = askers.iter().filter(|asker| matches!(asker, Asker::Reads(_))).count();
            let (in_flight, _) = stage.load();
            prop_assert!(reading <= in_flight && in_flight <= max_in_flight);
        }
        // readers go one by one; everyone who still waits must get through
        let progress = |askers: &[Asker]| (askers.len(), stage.cluster.status().totals.redispatched);
        let mut rests = 0;
        while !askers.is_empty() {
            let before = progress(&askers);
            askers.retain_mut(|asker| match asker {
                Asker::Reads(_) => false,
                Asker::Waits(waiting) => match poll(waiting) {
                    Poll::Pending => true,
                    Poll::Ready(answer) => {
                        refused += usize::from(answer.is_err());
                        false
                    }
                },
            });
            if progress(&askers) == before {
                // nodes that failed too often may rest, but not for ever
                prop_assert!(rests < 10, "all of them wait for ever");
                rests += 1;
                runtime.block_on(tokio::time::sleep(Duration::from_secs(31)));
            }
        }
        prop_assert_eq!(stage.cluster.status().totals.failed, refused as u64);
        stage.assert_at_rest();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_requests_over_a_hundred_nodes_end_exactly_once() {
    let stage = Stage::open(100, Settings { max_waiting: 10_000, ..settings() }).await;
    for i in (0..100).step_by(7) {
        stage.node(i).act(Act::Refuse(InferenceError::Backend("once".into())));
        stage.node(i).act(Act::BreakOff);
    }
    let tasks: Vec<_> = (0..10_000).map(|i| stage.ask(request(&i.to_string()))).collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), "word1 word2 word3");
    }
    stage.assert_at_rest();
    let totals = stage.cluster.status().totals;
    assert_eq!((totals.requests, totals.finished, totals.failed, totals.output_tokens), (10_000, 10_000, 0, 30_000));
    assert_eq!(totals.redispatched, 30, "each was tried again, before its first token or after it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn askers_that_vanish_at_any_moment_leave_nothing_behind() {
    let stage = Stage::open(3, Settings { max_waiting: 100_000, ..settings() }).await;
    let tasks: Vec<_> = (0..3000u32)
        .map(|i| {
            let task = stage.ask(request(&i.to_string()));
            tokio::spawn(async move {
                // two of three are called off after a different number of turns each
                for _ in 0..i % 97 {
                    tokio::task::yield_now().await;
                }
                if !i.is_multiple_of(3) {
                    task.abort();
                }
                match task.await {
                    Ok(answer) => answer.is_ok(),
                    Err(gone) => gone.is_cancelled() && !i.is_multiple_of(3),
                }
            })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap());
    }
    stage.assert_at_rest();
    assert!(read(stage.door.dispatch(request("last")).await.unwrap()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn switching_strategies_and_scaling_under_load_loses_nothing() {
    let stage = Stage::open(20, Settings { max_waiting: 10_000, ..settings() }).await;
    let tasks: Vec<_> = (0..3000).map(|i| stage.ask(request(&i.to_string()))).collect();
    for round in 0..30 {
        stage.cluster.set_balancer(NAMES[round % NAMES.len()]).unwrap();
        let count = [5, 40, 1, 20][round % 4];
        let report = stage.cluster.scale(&"small".into(), count).await.unwrap();
        assert_eq!(report.after, count);
        tokio::task::yield_now().await;
    }
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), "word1 word2 word3");
    }
    stage.assert_at_rest();
    let status = stage.cluster.status();
    assert_eq!((status.totals.finished, status.nodes_by_state.get(&NodeState::Draining)), (3000, None));
}

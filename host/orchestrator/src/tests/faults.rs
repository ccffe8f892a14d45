use super::*;
use crate::{Fault, FaultError, FaultKind};

fn trap() -> InferenceError {
    InferenceError::Guest { reason: "GUEST_TRAP", detail: "unreachable".into() }
}

#[tokio::test]
async fn a_node_that_fails_before_the_first_token_is_replaced_by_another() {
    for act in [Act::Refuse(trap()), Act::FailFirst(trap())] {
        let stage = Stage::open(3, settings()).await;
        stage.node(0).act(act);
        let answer = stage.door.dispatch(request("r")).await.unwrap();
        assert_eq!(answer.node.as_str(), "small-00001");
        assert_eq!(read(answer).await.unwrap(), "word1 word2 word3");
        stage.assert_at_rest();
        let totals = stage.cluster.status().totals;
        assert_eq!((totals.requests, totals.finished, totals.failed, totals.redispatched), (1, 1, 0, 1));
    }
}

#[tokio::test]
async fn a_stream_that_ends_without_a_word_is_dispatched_again() {
    let stage = Stage::open(2, settings()).await;
    stage.node(0).act(Act::Silence);
    assert_eq!(stage.door.dispatch(request("r")).await.unwrap().node.as_str(), "small-00001");
}

#[tokio::test]
async fn an_answer_that_breaks_off_goes_on_with_another_node_and_says_nothing_twice() {
    for act in [Act::FailLater(trap()), Act::BreakOff] {
        let stage = Stage::open(3, settings()).await;
        stage.node(0).act(act.clone());
        stage.node(1).act(act);
        let answer = stage.door.dispatch(request("r")).await.unwrap();
        assert_eq!(read(answer).await.unwrap(), "word1 word2 word3");
        assert_eq!((stage.node(1).served(), stage.node(2).served()), (1, 1));
        let totals = stage.cluster.status().totals;
        assert_eq!((totals.finished, totals.failed, totals.redispatched, totals.output_tokens), (1, 0, 2, 3));
        stage.assert_at_rest();
    }
}

#[tokio::test]
async fn an_answer_that_another_node_would_end_otherwise_ends_with_a_reason() {
    let stage = Stage::open(2, settings()).await;
    stage.node(0).act(Act::Say("something else", trap()));
    let answer = stage.door.dispatch(request("r")).await.unwrap();
    assert_eq!(read(answer).await.unwrap_err().reason(), "NOT_RESUMABLE");
    assert_eq!(stage.cluster.status().totals.failed, 1);
    stage.assert_at_rest();
}

#[tokio::test]
async fn a_node_that_breaks_off_without_getting_on_uses_up_the_attempts() {
    let stage = Stage::open(5, Settings { attempts: 3, ..settings() }).await;
    (0..5).for_each(|i| stage.node(i).act(Act::FailLater(trap())));
    let answer = stage.door.dispatch(request("r")).await.unwrap();
    assert_eq!(read(answer).await, Err(trap()));
    let served: Vec<_> = (0..5).map(|i| stage.node(i).served()).collect();
    assert_eq!(served, [1, 1, 1, 0, 0], "the second and the third said nothing new");
    stage.assert_at_rest();
}

#[tokio::test]
async fn a_budget_that_was_used_up_in_the_middle_is_not_tried_elsewhere() {
    let stage = Stage::open(2, settings()).await;
    let exhausted = InferenceError::Guest { reason: "OUTPUT_EXHAUSTED", detail: "1 byte".into() };
    stage.node(0).act(Act::FailLater(exhausted.clone()));
    let answer = stage.door.dispatch(request("r")).await.unwrap();
    assert_eq!(read(answer).await, Err(exhausted));
    assert_eq!(stage.node(1).served(), 0);
}

#[tokio::test]
async fn whoever_goes_away_while_its_answer_changes_nodes_frees_everything() {
    let stage = Stage::gated(2, settings()).await;
    stage.node(0).act(Act::FailLater(trap()));
    stage.node(1).act(Act::Hang);
    let mut answer = stage.door.dispatch(request("r")).await.unwrap();
    assert!(answer.events.next().await.unwrap().is_ok());
    assert!(futures::poll!(answer.events.next()).is_pending());
    assert_eq!(stage.node(1).running.load(Ordering::SeqCst), 1, "it is with the other node");
    drop(answer);
    stage.assert_at_rest();
    assert_eq!(stage.cluster.status().totals.cancelled, 1);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_an_answer_while_it_changes_nodes() {
    let stage = Stage::open(2, settings()).await;
    stage.node(0).act(Act::FailLater(trap()));
    stage.node(1).act(Act::Hang);
    let answer = stage.door.dispatch(within("r", Duration::from_secs(2))).await.unwrap();
    assert_eq!(read(answer).await, Err(InferenceError::DeadlineExceeded { n_generated: 1 }));
    stage.assert_at_rest();
}

#[tokio::test]
async fn a_stream_that_breaks_off_with_no_other_node_ends_with_an_error() {
    let stage = Stage::open(1, settings()).await;
    stage.node(0).act(Act::BreakOff);
    let answer = stage.door.dispatch(request("r")).await.unwrap();
    assert_eq!(read(answer).await, Err(InferenceError::Stopped("small-00000".into())));
    stage.assert_at_rest();
}

#[tokio::test]
async fn the_last_error_comes_back_after_as_many_attempts_as_allowed() {
    let stage = Stage::open(5, Settings { attempts: 3, ..settings() }).await;
    (0..5).for_each(|i| stage.node(i).act(Act::Refuse(InferenceError::Backend(format!("node {i}")))));
    let error = stage.door.dispatch(request("r")).await.err().unwrap();
    assert_eq!(error, DispatchError::Inference(InferenceError::Backend("node 2".into())));
    let served: Vec<_> = (0..5).map(|i| stage.node(i).served()).collect();
    assert_eq!(served, [1, 1, 1, 0, 0]);
    stage.assert_at_rest();
}

#[tokio::test]
async fn the_clients_fault_is_not_tried_elsewhere() {
    let stage = Stage::open(3, settings()).await;
    stage.node(0).act(Act::Refuse(InferenceError::InvalidRequest("no".into())));
    assert_eq!(stage.door.dispatch(request("r")).await.err().unwrap().reason(), "INVALID_REQUEST");
    assert_eq!(stage.node(1).served(), 0);
}

#[tokio::test]
async fn a_node_that_failed_a_request_does_not_get_it_again_even_with_room_for_it() {
    let stage = Stage::open(0, Settings { strategy: "least-loaded".into(), ..settings() }).await;
    stage.cluster.spawn(&"large".into(), 2).await.unwrap();
    for _ in 0..3 {
        stage.node(0).act(Act::Refuse(trap()));
    }
    // two requests are left on node 1, so that least-loaded would always prefer the one that fails
    let wanted = request("hold");
    let mut held: Vec<_> = (0..4).map(|_| stage.door.try_lease(&wanted).unwrap()).collect();
    held.retain(|lease| lease.node_id().as_str() == "large-00001");
    assert_eq!(held.len(), 2);
    let answer = stage.door.dispatch(request("r")).await.unwrap();
    assert_eq!(answer.node.as_str(), "large-00001");
    assert_eq!(stage.node(0).served(), 1);
}

#[tokio::test]
async fn with_no_other_node_the_error_comes_back_at_once() {
    let stage = Stage::open(1, settings()).await;
    stage.node(0).act(Act::Refuse(trap()));
    assert_eq!(stage.door.dispatch(request("r")).await.err().unwrap().reason(), "GUEST_TRAP");
    assert_eq!(stage.cluster.status().totals.redispatched, 0);
    stage.assert_at_rest();
}

#[tokio::test]
async fn a_failed_request_waits_for_a_busy_node_and_lets_others_use_the_one_that_failed_it() {
    let stage = Stage::gated(2, settings()).await;
    stage.node(0).act(Act::Hang);
    stage.node(1).act(Act::Refuse(trap()));
    let hanging = stage.ask(request("hanging"));
    until(|| stage.load() == (1, 0)).await;
    let failed = stage.ask_and_queue(request("failed")).await;
    // node 1 is free again, and `failed` came before `later`, but must not get it
    let later = stage.ask(request("later"));
    until(|| stage.node(1).running.load(Ordering::SeqCst) == 1).await;
    assert_eq!(stage.load(), (2, 1));
    hanging.abort();
    until(|| stage.load() == (2, 0)).await;
    stage.gate.add_permits(2);
    assert!(failed.await.unwrap().is_ok() && later.await.unwrap().is_ok());
    stage.assert_at_rest();
}

#[tokio::test]
async fn a_failed_request_keeps_its_place_in_the_order_of_arrival() {
    let stage = Stage::gated(2, settings()).await;
    let busy = stage.door.dispatch(request("busy")).await.unwrap();
    stage.node(1).act(Act::RefuseLater(trap()));
    // polled by hand, so that each comes exactly when it should
    let mut first = Box::pin(stage.door.dispatch(request("first")));
    assert!(futures::poll!(&mut first).is_pending());
    let mut second = Box::pin(stage.door.dispatch(typed("second", "small")));
    assert!(futures::poll!(&mut second).is_pending());
    let mut third = Box::pin(stage.door.dispatch(request("third")));
    assert!(futures::poll!(&mut third).is_pending());
    assert_eq!(stage.load(), (2, 2));

    stage.gate.add_permits(1);
    assert!(futures::poll!(&mut first).is_pending(), "it is first in line, but the node that is free has failed it");
    assert!(futures::poll!(&mut third).is_pending(), "the second came before, though in another line");
    let second = second.await.unwrap();
    assert_eq!(second.node.as_str(), "small-00001", "someone in another line must not wait for the first");

    drop(busy);
    assert!(futures::poll!(&mut third).is_pending(), "the first came before");
    let first = first.await.unwrap();
    assert_eq!(first.node.as_str(), "small-00000");
    drop(second);
    assert_eq!(third.await.unwrap().node.as_str(), "small-00001");
    drop(first);
    stage.assert_at_rest();
}

#[tokio::test]
async fn a_node_that_has_failed_is_no_longer_chosen_and_is_counted() {
    let stage = Stage::open(3, settings()).await;
    stage.node(0).act(Act::Refuse(trap()));
    stage.node(0).set_state(NodeState::Failed);
    for _ in 0..6 {
        read(stage.door.dispatch(request("r")).await.unwrap()).await.unwrap();
    }
    assert_eq!(stage.node(0).served(), 1);
    let by_state = stage.cluster.status().nodes_by_state;
    assert_eq!((by_state[&NodeState::Ready], by_state[&NodeState::Failed]), (2, 1));
}

#[tokio::test]
async fn those_who_wait_are_told_when_the_last_node_has_failed() {
    let stage = Stage::open(1, settings()).await;
    stage.node(0).act(Act::Hang);
    let hanging = stage.ask(request("hanging"));
    until(|| stage.load() == (1, 0)).await;
    let waiting = stage.ask_and_queue(request("waiting")).await;
    stage.node(0).set_state(NodeState::Failed);
    stage.cluster.refresh();
    assert_eq!(waiting.await.unwrap().err().unwrap().reason(), "NO_NODE");
    hanging.abort();
    assert!(hanging.await.is_err());
    stage.assert_at_rest();
}

#[tokio::test]
async fn a_node_that_failed_or_recovered_while_idle_is_noticed_by_a_refresh() {
    let stage = Stage::open(2, settings()).await;
    stage.node(0).set_state(NodeState::Starting);
    stage.cluster.refresh();
    for _ in 0..2 {
        assert_eq!(stage.door.dispatch(request("r")).await.unwrap().node.as_str(), "small-00001");
    }
    stage.node(0).set_state(NodeState::Hibernated);
    stage.cluster.refresh();
    let answer = stage.door.dispatch(request("r")).await.unwrap();
    assert_eq!(answer.node.as_str(), "small-00000", "a hibernated node is woken by its request");
}

#[tokio::test]
async fn faults_are_injected_only_where_that_is_allowed() {
    let fault = Fault { kind: FaultKind::Trap, nodes: Vec::new(), node_type: None, share: 1.0, after_pieces: 0, times: None };
    let stage = Stage::open(1, settings()).await;
    assert_eq!(stage.cluster.inject_fault(fault.clone()), Err(FaultError::NotAllowed));
    let stage = Stage::open(1, Settings { allow_faults: true, ..settings() }).await;
    let numbers: Vec<u64> = (0..64).map(|_| stage.cluster.inject_fault(fault.clone()).unwrap()).collect();
    assert_eq!(stage.cluster.inject_fault(fault), Err(FaultError::TooMany));
    assert_eq!((stage.cluster.clear_faults(&numbers[..1]), stage.cluster.clear_faults(&[])), (1, 63));
}

#[tokio::test(start_paused = true)]
async fn an_answer_survives_nodes_that_trap_break_off_fall_silent_or_are_slow() {
    let kinds = [FaultKind::Trap, FaultKind::Drop, FaultKind::Stall, FaultKind::Slow(Duration::from_secs(1))];
    for kind in kinds {
        let limits = Settings { allow_faults: true, stall_timeout: Some(Duration::from_secs(5)), ..settings() };
        let stage = Stage::open(3, limits).await;
        let other = Fault { kind, nodes: Vec::new(), node_type: Some("large".into()), share: 1.0, after_pieces: 0, times: None };
        stage.cluster.inject_fault(other.clone()).unwrap();
        let nodes = vec!["small-00000".into()];
        let fault = Fault { nodes, node_type: Some("small".into()), after_pieces: 2, times: Some(1), ..other };
        stage.cluster.inject_fault(fault).unwrap();
        let begin = Instant::now();
        let answer = stage.door.dispatch(request("r")).await.unwrap();
        assert_eq!(read(answer).await.unwrap(), "word1 word2 word3", "{kind:?}");
        let (redispatched, seconds) = (stage.cluster.status().totals.redispatched, begin.elapsed().as_secs());
        match kind {
            FaultKind::Slow(_) => assert_eq!((redispatched, seconds), (0, 2), "the third piece and the end, each a second later"),
            FaultKind::Stall => assert_eq!((redispatched, seconds), (1, 5)),
            FaultKind::Trap | FaultKind::Drop => assert_eq!((redispatched, seconds), (1, 0)),
        }
        assert_eq!(stage.cluster.faults().iter().map(|active| active.n_happened).collect::<Vec<_>>(), [0, 1]);
        stage.assert_at_rest();
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_always_fails_rests_and_comes_back_when_it_is_well() {
    let stage = Stage::open(4, settings()).await;
    (0..100).for_each(|_| stage.node(0).act(Act::Refuse(trap())));
    for _ in 0..40 {
        stage.ask(request("r")).await.unwrap().unwrap();
    }
    assert_eq!(stage.node(0).served(), 5, "it rests after five failures in a row");
    stage.node(0).acts.lock().unwrap().clear();
    tokio::time::sleep(Duration::from_millis(501)).await;
    for _ in 0..8 {
        stage.ask(request("r")).await.unwrap().unwrap();
    }
    assert_eq!(stage.node(0).served(), 7);
    stage.assert_at_rest();
}

#[tokio::test]
async fn never_do_more_than_half_of_the_nodes_rest() {
    let stage = Stage::open(4, Settings { attempts: 1, ..settings() }).await;
    (0..4).for_each(|i| (0..100).for_each(|_| stage.node(i).act(Act::Refuse(trap()))));
    for _ in 0..60 {
        assert_eq!(stage.ask(request("r")).await.unwrap().unwrap_err().reason(), "GUEST_TRAP");
    }
    let mut served: Vec<u64> = (0..4).map(|i| stage.node(i).served()).collect();
    served.sort_unstable();
    assert_eq!(served, [5, 5, 25, 25]);
}

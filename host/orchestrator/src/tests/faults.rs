use super::*;

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
async fn nothing_is_tried_again_after_the_first_token() {
    let stage = Stage::open(3, settings()).await;
    stage.node(0).act(Act::FailLater(trap()));
    let answer = stage.door.dispatch(request("r")).await.unwrap();
    assert_eq!(read(answer).await, Err(trap()));
    assert_eq!((stage.node(1).served(), stage.node(2).served()), (0, 0));
    assert_eq!((stage.cluster.status().totals.failed, stage.cluster.status().totals.redispatched), (1, 0));
    stage.assert_at_rest();
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_an_error() {
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
    let view = llambo_strategy::RequestView { model: &wanted.model, node_type: None, n_prompt_bytes: 0 };
    let mut held: Vec<_> = (0..4).map(|_| stage.door.try_lease(&view).unwrap()).collect();
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

use super::*;

#[tokio::test]
async fn an_answer_comes_whole_and_says_who_gave_it() {
    let stage = Stage::open(1, settings()).await;
    let answer = stage.door.dispatch(request("r")).await.unwrap();
    assert_eq!(answer.node.as_str(), "small-00000");
    assert_eq!(read(answer).await.unwrap(), "word1 word2 word3");
    stage.assert_at_rest();
    let totals = stage.cluster.status().totals;
    assert_eq!((totals.requests, totals.finished, totals.input_tokens, totals.output_tokens), (1, 1, 5, 3));
}

#[tokio::test]
async fn a_node_is_taken_for_exactly_as_long_as_its_stream_lives() {
    let stage = Stage::gated(1, settings()).await;
    let answer = stage.door.dispatch(request("a")).await.unwrap();
    assert_eq!(stage.load(), (1, 0));
    let next = stage.ask_and_queue(request("b")).await;
    drop(answer);
    until(|| stage.node(0).running.load(Ordering::SeqCst) == 1 && stage.load() == (1, 0)).await;
    stage.gate.add_permits(1);
    assert_eq!(next.await.unwrap().unwrap(), "word1 word2 word3");
    stage.assert_at_rest();
    let totals = stage.cluster.status().totals;
    // one token was generated for the answer that nobody read
    assert_eq!((totals.finished, totals.cancelled, totals.output_tokens), (1, 1, 4));
}

#[tokio::test]
async fn the_place_is_free_once_the_end_was_told_even_if_the_stream_is_kept() {
    let stage = Stage::open(1, settings()).await;
    let mut answer = stage.door.dispatch(request("a")).await.unwrap();
    while !matches!(answer.events.next().await, Some(Ok(AnswerEvent::Finished(_)))) {}
    assert_eq!(stage.load(), (0, 0));
    assert!(answer.events.next().await.is_none());
}

#[tokio::test]
async fn a_request_that_names_a_type_goes_to_that_type() {
    let stage = Stage::open(3, settings()).await;
    stage.cluster.spawn(&"large".into(), 1).await.unwrap();
    for _ in 0..5 {
        let answer = stage.door.dispatch(typed("r", "large")).await.unwrap();
        assert_eq!(answer.node.as_str(), "large-00003");
    }
    let mut nodes = Vec::new();
    for _ in 0..4 {
        let answer = stage.door.dispatch(request("r")).await.unwrap();
        nodes.push(answer.node.to_string());
    }
    assert_eq!(nodes, ["small-00000", "small-00001", "small-00002", "large-00003"]);
}

#[tokio::test]
async fn a_type_that_does_not_exist_or_serves_another_model_is_the_clients_fault() {
    let stage = Stage::open(1, settings()).await;
    let error = stage.door.dispatch(typed("r", "huge")).await.err().unwrap();
    assert_eq!(error.to_string(), "node type `huge` is unknown; there are: `large`, `small`");
    assert_eq!((error.reason(), error.retry_after()), ("UNKNOWN_TYPE", None));

    let mut wrong = typed("r", "small");
    wrong.model = "other".into();
    let error = stage.door.dispatch(wrong).await.err().unwrap();
    assert_eq!(error.to_string(), "node type `small` does not serve model `other`, but: `m`");
    assert_eq!(error.reason(), "INVALID_REQUEST");

    let mut unknown = request("r");
    unknown.model = "other".into();
    let error = stage.door.dispatch(unknown).await.err().unwrap();
    assert_eq!(error.reason(), "UNKNOWN_MODEL");
    assert_eq!(stage.cluster.status().totals.rejected, 2);
}

#[tokio::test]
async fn without_any_node_a_request_does_not_wait() {
    let stage = Stage::open(0, settings()).await;
    let error = stage.door.dispatch(request("r")).await.err().unwrap();
    assert_eq!(error.reason(), "NO_NODE");
    let error = stage.door.dispatch(typed("r", "large")).await.err().unwrap();
    assert_eq!(error.to_string(), "no node serves model `m` as node type `large`; spawn one, or ask again once the host has");
    stage.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_running_answer_and_frees_its_node() {
    let stage = Stage::gated(1, settings()).await;
    let answer = stage.door.dispatch(within("r", Duration::from_secs(2))).await.unwrap();
    let started = Instant::now();
    let end = tokio::time::timeout(Duration::from_mins(1), read(answer)).await.expect("the deadline came before");
    assert_eq!(end, Err(InferenceError::DeadlineExceeded { n_generated: 1 }));
    assert_eq!(started.elapsed(), Duration::from_secs(2));
    stage.assert_at_rest();
    assert_eq!(stage.cluster.status().totals.failed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_node_that_says_nothing() {
    let stage = Stage::open(2, settings()).await;
    stage.node(0).act(Act::Hang);
    let error = stage.door.dispatch(within("r", Duration::from_secs(2))).await.err().unwrap();
    assert_eq!(error.reason(), "DEADLINE_EXCEEDED");
    stage.assert_at_rest();
    assert_eq!(stage.cluster.status().totals.redispatched, 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_reaches_no_node() {
    let stage = Stage::open(1, settings()).await;
    let late = within("r", Duration::ZERO);
    assert_eq!(stage.door.dispatch(late).await.err().unwrap().reason(), "DEADLINE_EXCEEDED");
    assert_eq!(stage.node(0).served(), 0);
}

#[tokio::test]
async fn a_dispatch_that_is_dropped_before_the_first_token_frees_its_node() {
    let stage = Stage::open(1, settings()).await;
    stage.node(0).act(Act::Hang);
    let door = stage.door.clone();
    let task = tokio::spawn(async move { door.dispatch(request("r")).await.is_ok() });
    until(|| stage.load() == (1, 0)).await;
    task.abort();
    assert!(task.await.is_err());
    stage.assert_at_rest();
    assert_eq!(stage.cluster.status().totals.cancelled, 1);
}

#[tokio::test]
async fn a_lease_without_a_request_counts_as_load_but_not_as_served() {
    let stage = Stage::open(1, settings()).await;
    let request = request("r");
    let lease = stage.door.try_lease(&request).unwrap();
    assert_eq!(lease.node_id().as_str(), "small-00000");
    assert!(stage.door.try_lease(&request).is_none());
    drop(lease);
    stage.assert_at_rest();
    assert_eq!(stage.cluster.balancer_report().served_max, 0);
}

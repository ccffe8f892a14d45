use super::*;

/// The order in which tasks end up reading is the order in which nodes came free for them.
async fn served_in_order(stage: &Stage, requests: Vec<GenerateRequest>) -> Vec<String> {
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for request in requests {
        let (door, order) = (stage.door.clone(), Arc::clone(&order));
        let waiting = stage.cluster.status().waiting;
        tasks.push(tokio::spawn(async move {
            let id = request.id.to_string();
            let answer = door.dispatch(request).await.unwrap();
            order.lock().unwrap().push(id);
            read(answer).await.unwrap();
        }));
        until(|| stage.cluster.status().waiting == waiting + 1).await;
    }
    stage.gate.add_permits(tasks.len() + 1);
    for task in tasks {
        task.await.unwrap();
    }
    let order = order.lock().unwrap();
    order.clone()
}

#[tokio::test]
async fn those_who_wait_are_served_in_order_of_arrival() {
    let stage = Stage::gated(1, settings()).await;
    let running = stage.ask(request("0"));
    until(|| stage.load() == (1, 0)).await;
    let order = served_in_order(&stage, ["1", "2", "3", "4"].map(request).to_vec()).await;
    assert_eq!(order, ["1", "2", "3", "4"]);
    running.await.unwrap().unwrap();
    stage.assert_at_rest();
}

#[tokio::test]
async fn order_of_arrival_holds_between_those_who_name_a_type_and_those_who_do_not() {
    let stage = Stage::gated(1, settings()).await;
    let running = stage.ask(request("0"));
    until(|| stage.load() == (1, 0)).await;
    let requests = vec![typed("1", "small"), request("2"), typed("3", "small"), request("4")];
    assert_eq!(served_in_order(&stage, requests).await, ["1", "2", "3", "4"]);
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn one_who_waits_for_a_busy_type_does_not_hold_up_those_whose_type_is_free() {
    let stage = Stage::gated(1, settings()).await;
    stage.cluster.spawn(&"large".into(), 1).await.unwrap();
    let running = stage.ask(typed("running", "small"));
    until(|| stage.load() == (1, 0)).await;
    let waiting = stage.ask_and_queue(typed("waiting", "small")).await;
    let other = stage.ask(typed("other", "large"));
    until(|| stage.load() == (2, 1)).await;
    stage.gate.add_permits(3);
    for task in [running, waiting, other] {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_limit_on_requests_in_flight_holds_over_all_nodes() {
    let stage = Stage::gated(4, Settings { max_in_flight: 2, ..settings() }).await;
    let mut tasks = vec![stage.ask(request("1")), stage.ask(request("2"))];
    until(|| stage.load() == (2, 0)).await;
    tasks.push(stage.ask_and_queue(request("3")).await);
    tasks.push(stage.ask_and_queue(typed("4", "small")).await);
    assert_eq!(stage.load(), (2, 2));
    stage.gate.add_permits(4);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    stage.assert_at_rest();
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let stage = Stage::gated(1, Settings { max_waiting: 2, ..settings() }).await;
    let mut tasks = vec![stage.ask(request("0"))];
    until(|| stage.load() == (1, 0)).await;
    tasks.push(stage.ask_and_queue(request("1")).await);
    tasks.push(stage.ask_and_queue(request("2")).await);
    let error = stage.door.dispatch(request("3")).await.err().unwrap();
    assert!(matches!(error, DispatchError::QueueFull { waiting: 2, limit: 2, .. }), "{error:?}");
    assert_eq!((error.reason(), error.retry_after()), ("QUEUE_FULL", Some(Duration::from_secs(1))));
    stage.gate.add_permits(3);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    stage.assert_at_rest();
    assert_eq!(stage.cluster.status().totals.rejected, 1);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_holds_in_the_queue_too() {
    let stage = Stage::gated(1, settings()).await;
    let running = stage.ask(request("running"));
    until(|| stage.load() == (1, 0)).await;
    let started = Instant::now();
    let error = stage.door.dispatch(within("late", Duration::from_millis(700))).await.err().unwrap();
    assert_eq!(error, DispatchError::Inference(InferenceError::DeadlineExceeded { n_generated: 0 }));
    assert_eq!((started.elapsed(), stage.load()), (Duration::from_millis(700), (1, 0)));
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_requests_may() {
    let stage = Stage::gated(1, Settings { max_wait: Duration::from_secs(3), ..settings() }).await;
    let running = stage.ask(request("running"));
    until(|| stage.load() == (1, 0)).await;
    let error = stage.door.dispatch(within("r", Duration::from_mins(1))).await.err().unwrap();
    assert!(matches!(error, DispatchError::WaitExpired { waited, .. } if waited == Duration::from_secs(3)), "{error:?}");
    assert_eq!((error.reason(), stage.load()), ("QUEUE_FULL", (1, 0)));
    running.abort();
}

#[tokio::test]
async fn one_who_gives_up_leaves_the_queue_and_the_next_is_served() {
    let stage = Stage::gated(1, settings()).await;
    let running = stage.ask(request("0"));
    until(|| stage.load() == (1, 0)).await;
    let gone = stage.ask_and_queue(request("1")).await;
    let next = stage.ask_and_queue(request("2")).await;
    gone.abort();
    assert!(gone.await.is_err());
    assert_eq!(stage.load(), (1, 1));
    stage.gate.add_permits(2);
    assert!(running.await.unwrap().is_ok() && next.await.unwrap().is_ok());
    stage.assert_at_rest();
    assert_eq!(stage.cluster.status().totals.cancelled, 1);
}

#[tokio::test]
async fn a_node_handed_to_one_who_has_just_gone_reaches_the_next() {
    let stage = Stage::gated(1, settings()).await;
    let answer = stage.door.dispatch(request("0")).await.unwrap();
    // polled by hand: nothing runs between the call and the drop
    let mut gone = Box::pin(stage.door.dispatch(request("1")));
    assert!(futures::poll!(&mut gone).is_pending());
    let mut next = Box::pin(stage.door.dispatch(request("2")));
    assert!(futures::poll!(&mut next).is_pending());
    drop(answer);
    assert_eq!(stage.load(), (1, 1), "the node was handed to the first");
    drop(gone);
    assert_eq!(stage.load(), (1, 0), "and from there to the second");
    assert_eq!(next.await.unwrap().node.as_str(), "small-00000");
}

#[tokio::test]
async fn those_who_wait_get_nodes_that_are_spawned() {
    let stage = Stage::gated(1, settings()).await;
    let running = stage.ask(request("0"));
    until(|| stage.load() == (1, 0)).await;
    let waiting = stage.ask_and_queue(request("1")).await;
    stage.cluster.scale(&"small".into(), 2).await.unwrap();
    until(|| stage.load() == (2, 0)).await;
    stage.gate.add_permits(2);
    assert!(running.await.unwrap().is_ok() && waiting.await.unwrap().is_ok());
}

use llambo_inference::TenantName;

use super::*;
use crate::Terms;

fn of(tenant: &str, weight: f64, priority: Priority) -> GenerateRequest {
    let share = Share { tenant: tenant.into(), tenant_weight: weight, ..Share::default() };
    GenerateRequest { share, priority, ..request(tenant) }
}

fn with(terms: Terms) -> Settings {
    Settings { tenants: HashMap::from([(TenantName::from("t"), terms)]), ..settings() }
}

/// Lets the answers end one after the other; answers whose they were.
async fn served_in_order(
    stage: &Stage,
    tasks: Vec<(&'static str, tokio::task::JoinHandle<Result<String, DispatchError>>)>,
) -> Vec<&'static str> {
    let mut left = tasks;
    let mut order = Vec::new();
    while !left.is_empty() {
        stage.gate.add_permits(1);
        until(|| left.iter().any(|(_, task)| task.is_finished())).await;
        let at = left.iter().position(|(_, task)| task.is_finished()).unwrap();
        let (who, task) = left.remove(at);
        task.await.unwrap().unwrap();
        order.push(who);
    }
    order
}

#[tokio::test]
async fn tenants_are_served_as_their_weights_say_and_each_in_its_own_order() {
    let stage = Stage::gated(1, Settings { max_waiting: 100, ..settings() }).await;
    let busy = stage.door.dispatch(request("busy")).await.unwrap();
    let mut tasks = Vec::new();
    for _ in 0..12 {
        tasks.push(("light", stage.ask_and_queue(of("light", 1.0, Priority::Interactive)).await));
    }
    for _ in 0..12 {
        tasks.push(("heavy", stage.ask_and_queue(of("heavy", 3.0, Priority::Interactive)).await));
    }
    drop(busy);
    let order = served_in_order(&stage, tasks).await;
    let heavy = order[..12].iter().filter(|who| **who == "heavy").count();
    assert!((8..=9).contains(&heavy), "{order:?}");
    stage.assert_at_rest();
}

#[tokio::test]
async fn what_somebody_waits_for_overtakes_batch_work_which_still_goes_on() {
    let stage = Stage::gated(1, Settings { max_waiting: 100, ..settings() }).await;
    let busy = stage.door.dispatch(request("busy")).await.unwrap();
    let mut tasks = Vec::new();
    for _ in 0..4 {
        tasks.push(("batch", stage.ask_and_queue(of("t", 1.0, Priority::Batch)).await));
    }
    for _ in 0..40 {
        tasks.push(("interactive", stage.ask_and_queue(of("t", 1.0, Priority::Interactive)).await));
    }
    drop(busy);
    let order = served_in_order(&stage, tasks).await;
    let batch: Vec<usize> = (0..order.len()).filter(|i| order[*i] == "batch").collect();
    assert!(batch[1] >= 15, "one may be before those that came later, the next comes after sixteen: {order:?}");
    assert!(batch[2] < order.len() - 2, "and does not wait for all of them: {order:?}");
}

#[tokio::test]
async fn who_floods_the_queue_loses_places_to_others_and_is_told() {
    let stage = Stage::gated(1, Settings { max_waiting: 4, ..settings() }).await;
    let busy = stage.door.dispatch(request("busy")).await.unwrap();
    let mut flood = Vec::new();
    for _ in 0..4 {
        flood.push(stage.ask_and_queue(of("flood", 1.0, Priority::Interactive)).await);
    }
    let other = stage.ask(of("other", 1.0, Priority::Interactive));
    let lost = flood.pop().unwrap().await.unwrap().unwrap_err();
    assert_eq!(lost.reason(), "QUEUE_FULL");
    assert!(lost.retry_after().is_some());
    assert_eq!(stage.load(), (1, 4));
    let refused = stage.ask(of("flood", 1.0, Priority::Interactive)).await.unwrap().unwrap_err();
    assert_eq!(refused.reason(), "QUEUE_FULL", "its own requests do not displace each other");
    drop(busy);
    stage.gate.add_permits(10);
    assert!(other.await.unwrap().is_ok());
    for task in flood {
        assert!(task.await.unwrap().is_ok());
    }
    stage.assert_at_rest();
}

#[tokio::test]
async fn a_tenant_at_its_limit_is_told_which_and_others_are_not_concerned() {
    let reason = |error: DispatchError| match error {
        DispatchError::QuotaExceeded { quota, limit, .. } => (quota, limit),
        other => panic!("{other}"),
    };
    let mine = || of("t", 1.0, Priority::Interactive);
    let stage = Stage::gated(3, with(Terms { max_in_flight: Some(1), ..Terms::default() })).await;
    let held = stage.door.dispatch(mine()).await.unwrap();
    assert_eq!(reason(stage.door.dispatch(mine()).await.err().unwrap()), ("max-in-flight", 1));
    drop(stage.door.dispatch(of("other", 1.0, Priority::Interactive)).await.unwrap());
    drop(held);
    drop(stage.door.dispatch(mine()).await.unwrap());
    stage.assert_at_rest();

    let stage = Stage::gated(1, with(Terms { max_waiting: Some(1), ..Terms::default() })).await;
    let held = stage.door.dispatch(mine()).await.unwrap();
    let waiting = stage.ask_and_queue(mine()).await;
    assert_eq!(reason(stage.door.dispatch(mine()).await.err().unwrap()), ("max-waiting", 1));
    drop(held);
    stage.gate.add_permits(1);
    assert!(waiting.await.unwrap().is_ok());

    let stage = Stage::open(1, with(Terms { tokens_per_minute: Some(8), ..Terms::default() })).await;
    assert!(stage.ask(mine()).await.unwrap().is_ok(), "5 tokens of the prompt and 3 of the answer");
    assert_eq!(reason(stage.door.dispatch(mine()).await.err().unwrap()), ("tokens-per-minute", 8));
}

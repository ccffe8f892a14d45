use llambo_strategy::{Decision, Policy, ScaleChange, ScaleRules, ScaleType, Scaling};

use super::*;
use crate::{Autoscaler, EventFilter, Told};

const MINUTE: Duration = Duration::from_mins(1);

async fn scaled(small: u32, settings: Settings, rules: ScaleRules, is_gated: bool) -> Stage {
    let gate = is_gated.then(|| Arc::new(Semaphore::new(0)));
    let factory = FakeFactory { gate, scaling: Some(rules), ..FakeFactory::default() };
    Stage::with_factory(small, settings, factory, Policies::default()).await
}

/// What was told, as `kind subject: reason`.
fn told(stage: &Stage) -> Vec<String> {
    let mut watch = stage.cluster.watch_events(EventFilter::default());
    let line = |told: Told| match told {
        Told::Event(event) => format!("{} {}: {}", event.what.kind, event.what.subject, event.what.reason),
        Told::Missed(n) => format!("missed {n}"),
    };
    std::iter::from_fn(|| watch.now()).map(line).collect()
}

fn n_small(stage: &Stage) -> u32 {
    stage.cluster.n_live(&"small".into())
}

/// Looks once a second, for so long.
async fn looks(scaler: &mut Autoscaler, time: Duration) {
    for _ in 0..time.as_secs() {
        tokio::time::advance(Duration::from_secs(1)).await;
        scaler.round().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_a_type_without_nodes_waits_for_one_and_is_answered() {
    let stage = scaled(0, settings(), ScaleRules::between(0, 4), false).await;
    let scaler = tokio::spawn(Autoscaler::new(stage.cluster.clone()).run(MINUTE));
    tokio::task::yield_now().await;
    let began = Instant::now();
    let answers: Vec<_> = (0..6).map(|n| stage.ask(request(&n.to_string()))).collect();
    for answer in answers {
        assert_eq!(answer.await.unwrap().unwrap(), "word1 word2 word3");
    }
    assert!(began.elapsed() < Duration::from_secs(1), "the first wakes it, not the next look: {:?}", began.elapsed());
    assert!((1..=4).contains(&n_small(&stage)));
    assert!(told(&stage).iter().any(|line| line.starts_with("scale.up small: from 0 to ") && line.contains("requests wait")));
    stage.assert_at_rest();
    scaler.abort();
}

#[tokio::test(start_paused = true)]
async fn a_type_that_is_named_wakes_too_and_others_stay_as_they_are() {
    let stage = scaled(0, settings(), ScaleRules::between(0, 4), false).await;
    let scaler = tokio::spawn(Autoscaler::new(stage.cluster.clone()).run(MINUTE));
    assert_eq!(stage.ask(typed("a", "small")).await.unwrap().unwrap(), "word1 word2 word3");
    let refused = stage.ask(typed("b", "large")).await.unwrap().unwrap_err();
    assert_eq!(refused.reason(), "NO_NODE", "nobody makes nodes of it");
    scaler.abort();
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_first_node_is_bounded_by_deadline_patience_and_queue() {
    let stage = scaled(0, Settings { max_waiting: 2, ..settings() }, ScaleRules::between(0, 4), false).await;
    let (late, patient) = (stage.ask(within("late", Duration::from_secs(2))), stage.ask(request("patient")));
    until(|| stage.load().1 == 2).await;
    assert_eq!(stage.ask(request("third")).await.unwrap().unwrap_err().reason(), "QUEUE_FULL");
    assert_eq!(late.await.unwrap().unwrap_err().reason(), "DEADLINE_EXCEEDED");
    assert_eq!(patient.await.unwrap().unwrap_err().reason(), "QUEUE_FULL", "it waited for `max_wait`");
    stage.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_while_a_type_shrinks_to_nothing() {
    let rules = ScaleRules { idle_to_zero_ms: 90_000, down_cool_down_ms: 10_000, ..ScaleRules::between(0, 4) };
    let stage = scaled(4, settings(), rules, true).await;
    let mut scaler = Autoscaler::new(stage.cluster.clone());
    let busy = stage.ask(request("busy"));
    until(|| stage.load().0 == 1).await;
    looks(&mut scaler, MINUTE).await;
    assert_eq!((n_small(&stage), stage.load().0), (2, 1), "one of two is busy: a load of a half");
    stage.gate.add_permits(1);
    assert_eq!(busy.await.unwrap().unwrap(), "word1 word2 word3");
    looks(&mut scaler, 3 * MINUTE).await;
    assert_eq!(n_small(&stage), 0);
    let lines = told(&stage);
    assert!(lines.iter().any(|line| line.starts_with("scale.down small: from 1 to 0: nobody asked for")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("nodes.stopped ")), "{lines:#?}");
    // and comes back
    stage.gate.add_permits(1);
    let answer = stage.ask_and_queue(request("again")).await;
    scaler.round().await;
    assert_eq!(answer.await.unwrap().unwrap(), "word1 word2 word3");
    stage.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn what_holds_a_type_back_is_told_once() {
    let stage = scaled(1, settings(), ScaleRules::between(1, 2), true).await;
    let mut scaler = Autoscaler::new(stage.cluster.clone());
    let answers: Vec<_> = (0..5).map(|n| stage.ask(request(&n.to_string()))).collect();
    until(|| stage.load() == (1, 4)).await;
    stage.factory.full.store(true, Ordering::SeqCst);
    looks(&mut scaler, Duration::from_secs(4)).await;
    assert_eq!(n_small(&stage), 1);
    let held = |stage: &Stage| told(stage).into_iter().filter(|line| line.starts_with("scale.held")).collect::<Vec<_>>();
    assert_eq!(held(&stage).len(), 1, "{:#?}", held(&stage));
    assert!(
        held(&stage)[0].contains("4 requests wait; but") && held(&stage)[0].contains("1000 places in all"),
        "{:?}",
        held(&stage)
    );
    stage.factory.full.store(false, Ordering::SeqCst);
    looks(&mut scaler, Duration::from_secs(20)).await;
    assert_eq!(n_small(&stage), 2);
    assert!(held(&stage).last().unwrap().ends_with("there may be no more"), "{:#?}", held(&stage));
    stage.gate.add_permits(5);
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    stage.assert_at_rest();
}

/// Wants so many more `small` nodes each time.
struct Wants(i32);

impl Policy<Scaling> for Wants {
    fn is_loaded(&self) -> bool {
        true
    }

    fn decide(&self, ask: &Arc<ScaleType>) -> Decision<ScaleChange> {
        let change = ScaleChange { by: self.0, reason: "it likes them".into() };
        Decision { answer: (ask.node_type == "small".into()).then_some(change), ..Decision::built_in() }
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_decides_in_the_place_of_load_within_the_bounds() {
    let with = |by: i32, min: u32| async move {
        let factory = FakeFactory { scaling: Some(ScaleRules::between(min, 5)), ..FakeFactory::default() };
        let policies = Policies { scaler: Arc::new(Wants(by)), ..Policies::default() };
        Stage::with_factory(2, settings(), factory, policies).await
    };
    let stage = with(2, 1).await;
    looks(&mut Autoscaler::new(stage.cluster.clone()), 3 * MINUTE).await;
    assert_eq!(n_small(&stage), 5, "idle for minutes, and the policy wants more");
    assert!(told(&stage).contains(&"scale.up small: from 4 to 5: it likes them".to_owned()), "{:#?}", told(&stage));
    // whatever it says, nobody waits for a type that has nothing
    let stage = with(-9, 0).await;
    let mut scaler = Autoscaler::new(stage.cluster.clone());
    looks(&mut scaler, Duration::from_secs(1)).await;
    assert_eq!(n_small(&stage), 0);
    let answer = stage.ask_and_queue(request("a")).await;
    scaler.round().await;
    assert_eq!(answer.await.unwrap().unwrap(), "word1 word2 word3");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_drains_makes_a_node_for_who_was_let_in() {
    let stage = scaled(0, settings(), ScaleRules::between(0, 4), false).await;
    let answer = stage.ask_and_queue(request("a")).await;
    stage.cluster.start_drain();
    Autoscaler::new(stage.cluster.clone()).round().await;
    assert_eq!(answer.await.unwrap().unwrap(), "word1 word2 word3");
    stage.cluster.drained(MINUTE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_operators_do_is_told() {
    let stage = Stage::open(3, settings()).await;
    stage.cluster.scale(&"small".into(), 1).await.unwrap();
    stage.cluster.set_balancer("random").unwrap();
    stage.cluster.start_drain();
    tokio::time::advance(Duration::from_secs(1)).await;
    let lines = told(&stage);
    for line in [
        "nodes.spawned small: asked for",
        "scale.down small: from 3 to 1: an operator said so",
        "balancer.switched random: an operator chose it in the place of round-robin",
        "host.draining host: it finishes what it has and takes nothing new",
        "nodes.draining small: an operator scaled it",
        "nodes.stopped small: out of service",
    ] {
        assert!(lines.iter().any(|told| told == line), "{line}: {lines:#?}");
    }
}

use llambo_strategy::ScaleRules;

use super::*;
use crate::{Autoscaler, TierBy, TierCount};

async fn tiered(small: u32, large: u32, settings: Settings, scaling: Option<ScaleRules>) -> Stage {
    let factory = FakeFactory { gate: Some(Arc::new(Semaphore::new(0))), has_tiers: true, scaling, ..FakeFactory::default() };
    let stage = Stage::with_factory(small, settings, factory, Policies::default()).await;
    stage.cluster.spawn(&"large".into(), large).await.unwrap();
    stage
}

fn saying(id: &str, text: &str) -> GenerateRequest {
    GenerateRequest { prompt: Prompt::Text(text.into()), ..request(id) }
}

fn of_tier(id: &str, tier: u8, text: &str) -> GenerateRequest {
    GenerateRequest { routing: Routing { tier: Some(tier), ..Routing::default() }, ..saying(id, text) }
}

const SIMPLE: &str = "What is the capital of Norway?";
const DEMANDING: &str = "Prove that there is no largest prime.";

/// Node, tier, the tier it should have, who said so.
async fn served(stage: &Stage, request: GenerateRequest) -> (String, u8, Option<u8>, Option<TierBy>) {
    let answer = stage.door.dispatch(request).await.unwrap();
    let note = Arc::clone(answer.tier.as_ref().unwrap());
    stage.gate.add_permits(1);
    read(answer).await.unwrap();
    let (server, tier) = note.serves();
    (server.to_string().split('-').next().unwrap().to_owned(), tier, note.wanted, note.by())
}

#[tokio::test]
async fn what_a_request_says_decides_its_tier_and_its_client_decides_over_that() {
    let stage = tiered(2, 2, settings(), None).await;
    let heuristic = Some(TierBy::Heuristic);
    assert_eq!(served(&stage, saying("a", SIMPLE)).await, ("small".into(), 0, Some(0), heuristic));
    assert_eq!(served(&stage, saying("b", DEMANDING)).await, ("large".into(), 2, Some(2), heuristic));
    assert_eq!(served(&stage, of_tier("c", 2, SIMPLE)).await, ("large".into(), 2, Some(2), Some(TierBy::Request)));
    assert_eq!(served(&stage, of_tier("d", 0, DEMANDING)).await, ("small".into(), 0, Some(0), Some(TierBy::Request)));
    let named = GenerateRequest { node_type: Some("large".into()), ..saying("e", SIMPLE) };
    assert_eq!(served(&stage, named).await, ("large".into(), 2, None, None), "who names a type means it");
    stage.assert_at_rest();
}

#[tokio::test]
async fn a_fallback_is_told_and_counted() {
    let stage = tiered(1, 1, settings(), None).await;
    let first = stage.door.dispatch(saying("a", SIMPLE)).await.unwrap();
    let second = stage.door.dispatch(saying("b", SIMPLE)).await.unwrap();
    let note = Arc::clone(second.tier.as_ref().unwrap());
    assert!(note.fell_back() && !first.tier.as_ref().unwrap().fell_back());
    assert_eq!(note.serves().1, 2);
    assert_eq!(note.reason(), "simple, 0 points: 6 words; no node of tier 0 was free");
    stage.gate.add_permits(2);
    read(first).await.unwrap();
    read(second).await.unwrap();
    let count = |served| TierCount { wanted: 0, served, requests: 1 };
    assert_eq!(stage.cluster.status().tiers, [count(0), count(2)]);
}

#[tokio::test]
async fn without_tiers_or_without_the_heuristic_nothing_is_judged() {
    let stage = Stage::open(2, settings()).await;
    let answer = stage.door.dispatch(saying("a", DEMANDING)).await.unwrap();
    assert!(answer.tier.is_none());
    read(answer).await.unwrap();
    assert_eq!(stage.cluster.status().tiers, []);

    let stage = tiered(1, 1, Settings { judges_tiers: false, ..settings() }, None).await;
    let (_, _, wanted, by) = served(&stage, saying("a", DEMANDING)).await;
    assert_eq!((wanted, by), (None, None));
}

#[tokio::test]
async fn who_goes_on_with_an_answer_is_named_at_its_end() {
    let stage = tiered(1, 1, settings(), None).await;
    stage.node(0).act(Act::FailLater(InferenceError::Stopped("small-00000".into())));
    let answer = stage.door.dispatch(saying("a", SIMPLE)).await.unwrap();
    let note = Arc::clone(answer.tier.as_ref().unwrap());
    assert_eq!(note.serves().0.as_str(), "small-00000");
    stage.gate.add_permits(1);
    read(answer).await.unwrap();
    let (server, tier) = note.serves();
    assert_eq!((server.as_str(), tier, note.fell_back()), ("large-00001", 2, true));
    assert_eq!(stage.cluster.status().tiers, [TierCount { wanted: 0, served: 2, requests: 1 }]);
}

#[tokio::test(start_paused = true)]
async fn a_tier_without_nodes_wakes_although_another_one_serves_in_its_place() {
    let stage = tiered(0, 1, settings(), Some(ScaleRules::between(0, 4))).await;
    let mut scaler = Autoscaler::new(stage.cluster.clone());
    scaler.round().await;
    assert_eq!(stage.cluster.n_live(&"small".into()), 0);
    assert_eq!(served(&stage, saying("a", SIMPLE)).await.1, 2, "served at once, by another tier");
    scaler.round().await;
    assert!(stage.cluster.n_live(&"small".into()) > 0);
    assert_eq!(served(&stage, saying("b", SIMPLE)).await.1, 0);
    // and nobody who asks for another tier wakes it
    let stage = tiered(0, 1, settings(), Some(ScaleRules::between(0, 4))).await;
    let mut scaler = Autoscaler::new(stage.cluster.clone());
    served(&stage, saying("a", DEMANDING)).await;
    scaler.round().await;
    assert_eq!(stage.cluster.n_live(&"small".into()), 0);
}

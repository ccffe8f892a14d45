//! Types that follow their load, tiers, and what is told of both.

use futures::future::join_all;
use llambo_client::{Ask, Client};
use llambo_tests::{Host, eventually};

use super::is_well;

const CONFIG: &str = "
models: [{name: demo-small, path: builtin:demo-small, sequences: 32}]
types:
  tiny: {count: 0, scaling: {min: 0, max: 8, cool-down-up: 0s, cool-down-down: 1s, window: 1s, idle-to-zero: 2s}}
  strong: {count: 2, tier: 2}
";

fn ask(text: &str) -> Ask {
    Ask::text(text).max_tokens(4).temperature(0.0)
}

async fn n_tiny(client: &Client) -> u32 {
    client.status().await.unwrap().nodes_by_type["tiny"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_without_isolates_wakes_for_who_asks_and_goes_when_nobody_does() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    assert_eq!(n_tiny(&client).await, 0);
    client.drain_type("strong").await.unwrap();
    let address = host.http().trim_start_matches("http://").parse().unwrap();
    let health = llambo_tests::web::send(address, "GET", "/health", "").await;
    assert!(health.is_some_and(|(status, _)| status == 200), "a host that can wake is ready");
    for _ in 0..2 {
        let answers = join_all((0..20).map(|_| client.infer(ask("A trait is").node_type("tiny")))).await;
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.node.starts_with("tiny-"))), "{answers:?}");
        assert!((1..=8).contains(&n_tiny(&client).await));
        eventually("nobody asks, and all of them go", async || n_tiny(&client).await == 0).await;
    }
    let told = host.llamboctl(&["--json", "events", "--kind", "scale", "--type", "tiny"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let first: serde_json::Value = serde_json::from_str(told.lines().next().unwrap()).unwrap();
    assert_eq!((&first["kind"], &first["type"]), (&"scale.up".into(), &"tiny".into()), "{told}");
    assert!(first["reason"].as_str().unwrap().starts_with("from 0 to "), "{told}");
    is_well(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_says_decides_its_tier_and_its_answer_says_so() {
    let host = Host::start(&CONFIG.replace("count: 0", "count: 2").replace("min: 0", "min: 2"));
    let client = host.client().await;
    let simple = client.infer(ask("What is the capital of Norway?")).await.unwrap();
    let tier = simple.tier.unwrap();
    assert_eq!((tier.tier, tier.wanted, tier.by.as_str()), (0, Some(0), "heuristic"));
    assert!(simple.node.starts_with("tiny-") && tier.node == simple.node);
    let told = host.llamboctl(&["infer", "--explain", "--max-tokens", "4", "Prove that there is no largest prime."]);
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("of tier 2, said by the heuristic: demanding"), "{told}");
    assert!(!told.contains("prime"), "nothing of what was asked: {told}");
    let forced = host.json(&["infer", "--tier", "0", "--max-tokens", "4", "Prove that there is no largest prime."]);
    assert_eq!((&forced["tier"]["tier"], &forced["tier"]["by"]), (&0.into(), &"request".into()), "{forced}");
    let status = host.json(&["status"]);
    assert_eq!((&status["tiers"]["simple"], &status["tiers"]["kept_share"]), (&2.into(), &1.0.into()), "{status}");
}

//! What each kind of policy decides, seen from outside; and routes, recorded and decided again.

use std::{fs, time::Duration};

use futures::{StreamExt, future::join_all, stream};
use llambo_client::{Ask, Code, ReplayWith, RouteRecord, RouteStream};
use llambo_tests::{Host, eventually};

use super::{
    is_well,
    policies::{CONFIG, ask, in_role, live, load, new},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_over_its_budget_waits_behind_others_and_then_is_refused() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    client.load_policy(new("admission", "tenant-budget").parameters("default=30")).await.unwrap();
    let verdict = async || client.infer(ask("A trait is").explain()).await.map(|answer| answer.route.unwrap().admission);
    assert_eq!(verdict().await.unwrap(), "admit");
    let mut verdicts = Vec::new();
    let refused = loop {
        match verdict().await {
            Ok(verdict) => verdicts.push(verdict),
            Err(refused) => break refused,
        }
        assert!(verdicts.len() < 100, "{verdicts:?}");
    };
    assert!(verdicts.contains(&"queue".to_owned()), "{verdicts:?}");
    assert_eq!((refused.code(), refused.reason()), (Code::ResourceExhausted, "NOT_ADMITTED"), "{refused}");
    let retry = refused.retry_after().unwrap();
    assert!(retry > Duration::ZERO && retry <= Duration::from_mins(1), "{retry:?}");
    assert_eq!(client.status().await.unwrap().totals.unwrap().rejected, 1);
    let told = host.llamboctl(&["infer", "--raw", "A trait is", "--max-tokens", "2"]);
    assert!(!told.status.success() && String::from_utf8_lossy(&told.stderr).contains("not admitted"), "{told:?}");
    client.unload_policy("admission", llambo_client::PolicyRole::Live).await.unwrap();
    is_well(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classifier_sends_what_is_demanding_to_stronger_nodes_and_what_is_asked_for_comes_first() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    let served_by = async |ask: Ask| {
        let answer = client.infer(ask.explain()).await.unwrap();
        let route = answer.route.unwrap();
        (answer.node.split('-').next().unwrap().to_owned(), route.tier, route.tier_by)
    };
    let said = |tier: u32, by: &str| (Some(tier), by.to_owned());
    assert_eq!(served_by(ask("Hi").tier(2)).await, ("strong".into(), Some(2), "request".into()));
    client.load_policy(new("classifier", "complexity")).await.unwrap();
    let long = Ask::text(format!("Why? How? When? {}\n```\n{}```", "word ".repeat(90), "let x = 1;\n".repeat(20)));
    let (node, tier, by) = served_by(long.max_tokens(20)).await;
    assert_eq!((node.as_str(), (tier, by)), ("strong", said(2, "classifier")));
    let (node, tier, by) = served_by(ask("Hi")).await;
    assert_eq!((node.as_str(), (tier, by)), ("tiny", said(0, "classifier")));
    // where there is no node of the tier, a stronger one serves it
    let (node, tier, by) = served_by(ask("Hi").tier(1)).await;
    assert_eq!((node.as_str(), (tier, by)), ("strong", said(1, "request")));
    let wrong = client.infer(ask("Hi").tier(3)).await.unwrap_err();
    assert_eq!((wrong.code(), wrong.reason()), (Code::InvalidArgument, "INVALID_REQUEST"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_answers_become_one_by_the_majority_and_by_a_policy() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    let alone = client.infer(ask("A trait is")).await.unwrap();
    let several = || ask("A trait is").answers(5);
    let built_in = client.infer(several()).await.unwrap();
    assert_eq!(built_in.text, alone.text, "at temperature 0 all say the same");
    let spent = built_in.usage.unwrap();
    assert!(spent.output_tokens >= 3 * 4 && spent.output_tokens <= 5 * 4, "three of five are a majority: {spent:?}");

    client.load_policy(new("fusion", "majority")).await.unwrap();
    let fused = client.infer(several()).await.unwrap();
    assert_eq!(fused.text, alone.text);
    assert!(live(&client, "fusion").await.calls > 0);
    let wrong = client.infer(ask("x").answers(17)).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument, "{wrong}");
    // nobody is left behind
    eventually("all have ended", async || client.status().await.unwrap().queue.unwrap().in_flight == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_hook_sees_every_token_and_may_replace_or_refuse_it_or_end_the_answer() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    let asked = || Ask::text("Ownership is a set of rules that").max_tokens(40).temperature(0.0);
    let plain = client.infer(asked()).await.unwrap();
    // a word of the answer that the model says in any case
    let word = plain.text.split_whitespace().filter(|word| word.len() > 3 && word.chars().all(char::is_alphabetic)).nth(1);
    let word = word.unwrap().to_lowercase();
    let at = plain.text.to_lowercase().find(&word).unwrap();
    let with = async |mode: &str| {
        let hook = new("token-hook", "banned-words").parameters(format!("{mode}: {word}"));
        client.load_policy(hook).await.unwrap();
        client.infer(asked()).await.unwrap()
    };
    let stopped = with("stop").await;
    assert!(stopped.finish_reason == "stop" && stopped.text.len() <= at && plain.text.starts_with(&stopped.text), "{stopped:?}");
    let replaced = with("replace").await;
    assert!(replaced.text.contains("***") && !replaced.text.to_lowercase().contains(&word), "{word}: {replaced:?}");
    let avoided = with("avoid").await;
    assert!(!avoided.text.to_lowercase().contains(&word) && !avoided.text.contains("***"), "{word}: {avoided:?}");
    assert_eq!(avoided.usage.unwrap().output_tokens, 40);
    let policy = live(&client, "token-hook").await;
    assert!(policy.calls >= 80 && policy.fallbacks.is_empty(), "begin, and twice for each token: {policy:?}");

    // all at once, each with an instance of its own, and gone when they are done
    let answers = join_all((0..24).map(|_| client.infer(asked()))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().text == avoided.text));
    eventually("no instance is left", async || live(&client, "token-hook").await.instances == 0).await;
    let schema = asked().json_schema(r#"{"type": "object", "properties": {"a": {"enum": ["yes", "no"]}}, "required": ["a"]}"#);
    let json = client.infer(schema).await.unwrap().text;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["a"] == "yes" || json["a"] == "no", "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_hook_that_leaves_nothing_to_choose_is_passed_over_and_counted() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    client.load_policy(new("token-hook", "banned-words").parameters("avoid: panic")).await.unwrap();
    let answer = client.infer(Ask::text("It will").grammar("root ::= \"panic\"").max_tokens(20)).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.finish_reason.as_str()), ("panic", "stop"));
    assert!(live(&client, "token-hook").await.fallbacks["nonsense"] > 0);
    is_well(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_are_recorded_and_decided_again() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    let mut routes = client.record_routes().await.unwrap();
    client.infer(ask("before a policy")).await.unwrap();
    client.load_policy(new("balancer", "latency-aware").shadow()).await.unwrap();
    load(&client, 100).await;
    let records = recorded(&mut routes, 101).await;
    assert!(!format!("{records:?}").contains("before a policy"), "no prompt is in a record");
    drop(routes);

    let wasm = fs::read(llambo_tests::guest("policies/latency-aware")).unwrap();
    for with in [ReplayWith::policy(wasm), ReplayWith::strategy("round-robin"), ReplayWith::strategy("cognitive-affinity")] {
        let replayed = client.replay_routes(with, stream::iter(records.clone())).await.unwrap();
        assert_eq!((replayed.decisions, replayed.recorded.as_ref().unwrap().nodes), (101, 24), "{replayed:?}");
        assert!(replayed.fallbacks.is_empty() && replayed.idle_latency_us > 0.0, "{replayed:?}");
    }
    let unknown = client.replay_routes(ReplayWith::strategy("guessing"), stream::empty()).await.unwrap_err();
    assert_eq!(unknown.reason(), "UNKNOWN_STRATEGY", "{unknown}");
    assert!(in_role(&client, "balancer", "live").await.is_none(), "a replay loads nothing");
}

/// What is recorded of so many requests, up to their ends.
async fn recorded(routes: &mut RouteStream, n: u32) -> Vec<RouteRecord> {
    let mut records = Vec::new();
    let (mut decisions, mut ends) = (0, 0);
    while ends < n {
        let record = tokio::time::timeout(Duration::from_secs(30), routes.next()).await.unwrap().unwrap().unwrap();
        match record.event.as_ref().unwrap() {
            llambo_client::route_record::Event::Decision(decision) => {
                decisions += 1;
                let route = decision.route.as_ref().unwrap();
                assert!(route.candidates.iter().any(|candidate| candidate.node == route.chosen), "{decision:?}");
            }
            llambo_client::route_record::Event::End(end) => {
                ends += 1;
                assert!(end.outcome == "finished" && end.latency_us > 0.0 && end.output_tokens == 4, "{end:?}");
            }
            llambo_client::route_record::Event::NMissed(n) => panic!("{n} were missed"),
        }
        records.push(record);
    }
    assert_eq!(decisions, n);
    records
}

/// One request at a time: of those that come together, two may be recorded in another order than that in which they took their nodes, and from
/// there on whoever chooses in turn is one place off.
#[tokio::test(flavor = "multi_thread")]
async fn the_strategy_that_decided_decides_alike_again_and_another_does_not() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    let mut routes = client.record_routes().await.unwrap();
    for _ in 0..60 {
        client.infer(ask("A trait is")).await.unwrap();
    }
    let records = recorded(&mut routes, 60).await;
    let same = client.replay_routes(ReplayWith::strategy("least-loaded"), stream::iter(records.clone())).await.unwrap();
    let other = client.replay_routes(ReplayWith::strategy("random"), stream::iter(records)).await.unwrap();
    assert!(other.different > same.different && other.recorded == same.recorded, "{same:?} {other:?}");
    assert_eq!(same.different, 0, "{same:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_notes_reaches_policies_within_bounds() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    let labelled = |n: usize, bytes: usize| (0..n).fold(ask("x"), |ask, i| ask.label(format!("k{i}"), "v".repeat(bytes)));
    client.infer(labelled(16, 256)).await.unwrap();
    for ask in [labelled(17, 1), labelled(1, 257)] {
        let refused = client.infer(ask).await.unwrap_err();
        assert!(refused.code() == Code::InvalidArgument && refused.to_string().contains("`labels`"), "{refused}");
    }
}

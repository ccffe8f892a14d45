//! Policies of users: loaded, changed and taken away while requests flow, whatever they do.

use std::{collections::BTreeMap, fs};

use futures::{StreamExt, future::join_all, stream};
use llambo_client::{Ask, Client, Code, NewPolicy, NodeFilter, Policy, PolicyRole};
use llambo_tests::{Host, eventually, guest};

use super::is_well;

pub(crate) const CONFIG: &str = "
models: [{name: demo-small, path: builtin:demo-small, sequences: 32}]
types:
  tiny: {count: 20, labels: {zone: a}, min-count: 5, max-count: 40}
  strong: {count: 4, tier: 2}
balancing: {classifier: off}
policies: {max-size: 4MB, scale-every: 200ms}
";

pub(crate) fn wasm(name: &str) -> Vec<u8> {
    fs::read(guest(&format!("policies/{name}"))).unwrap()
}

pub(crate) fn new(kind: &str, name: &str) -> NewPolicy {
    NewPolicy::new(kind, name, wasm(name))
}

pub(crate) fn ask(text: &str) -> Ask {
    Ask::text(text).max_tokens(4).temperature(0.0)
}

/// With time to do it in, also on a busy machine.
fn misbehaving(mode: &str) -> NewPolicy {
    new("balancer", "hostile-policy").parameters(mode).time_us(20_000)
}

fn hostile(mode: &str) -> NewPolicy {
    // well-behaved for as long as it is tried
    misbehaving(&format!("after:24:{mode}"))
}

pub(crate) async fn in_role(client: &Client, kind: &str, role: &str) -> Option<Policy> {
    client.policies().await.unwrap().policies.into_iter().find(|policy| policy.kind == kind && policy.role == role)
}

pub(crate) async fn live(client: &Client, kind: &str) -> Policy {
    in_role(client, kind, "live").await.unwrap()
}

/// So many requests, 16 at a time; each must be answered.
pub(crate) async fn load(client: &Client, n: usize) {
    let answers =
        stream::iter(0..n).map(|i| client.infer(ask("A trait is").request_id(format!("load-{i}")))).buffer_unordered(16);
    let answers: Vec<_> = answers.collect().await;
    let mut ids: Vec<String> = answers.into_iter().map(|answer| answer.unwrap().request_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), n, "each is answered once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_is_tried_as_a_shadow_promoted_put_back_and_unloaded() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    let done = client.load_policy(new("balancer", "latency-aware").shadow()).await.unwrap();
    let policy = done.policy.unwrap();
    assert_eq!((policy.generation, policy.role.as_str(), policy.state.as_str()), (1, "shadow", "running"));
    assert!(done.dry_run_calls == 24 && done.replaced.is_none() && policy.interface == "llambo:policy/balancing@0.1.0");

    load(&client, 40).await;
    eventually("the shadow has seen them", async || {
        let shadow = in_role(&client, "balancer", "shadow").await.unwrap();
        shadow.compared + shadow.missed == 40 && shadow.agreed <= shadow.compared
    })
    .await;
    let built_in = client.infer(ask("A trait is").explain()).await.unwrap().route.unwrap();
    assert!(built_in.policy.is_none() && built_in.strategy == "least-loaded" && !built_in.shadow.is_empty(), "{built_in:?}");

    let promoted = client.promote_policy("balancer").await.unwrap();
    assert_eq!(promoted.policy.unwrap().role, "live");
    client.load_policy(new("balancer", "shortest-queue")).await.unwrap();
    load(&client, 40).await;
    let second = live(&client, "balancer").await;
    assert_eq!((second.name.as_str(), second.generation), ("shortest-queue", 2));
    assert!(second.calls >= 40 && second.interface.starts_with("llambo:policy/tracking@"), "{second:?}");
    // 16 at a time on 24 nodes: there is always one that is free, and it is not often taken by another meanwhile
    let n_fallbacks: u64 = second.fallbacks.values().sum();
    assert!(n_fallbacks <= second.calls / 2 && !second.fallbacks.contains_key("declined"), "{second:?}");

    let back = client.roll_back_policy("balancer").await.unwrap();
    assert_eq!((back.policy.unwrap().generation, back.replaced.unwrap().generation), (1, 2));
    let route = client.infer(ask("A trait is").explain()).await.unwrap().route.unwrap();
    let by = route.policy.clone().unwrap();
    assert_eq!((by.name.as_str(), by.generation, by.role.as_str()), ("latency-aware", 1, "live"));
    assert!(by.sha256 == policy.sha256 && route.candidates.len() == 24 && route.n_eligible == 24, "{route:?}");
    assert!(route.candidates.iter().all(|candidate| candidate.score.is_some()), "{route:?}");
    assert!(route.candidates.iter().any(|candidate| candidate.node == route.chosen));

    // nothing is before it but what is built in, and before that nothing at all
    assert!(client.roll_back_policy("balancer").await.unwrap().policy.is_none());
    assert_eq!(client.roll_back_policy("balancer").await.unwrap_err().reason(), "UNKNOWN_POLICY");
    let listed = client.policies().await.unwrap();
    assert!(listed.built_in.contains(&"balancer".to_owned()) && listed.policies.iter().all(|policy| policy.role == "kept"));
    let none = client.unload_policy("balancer", PolicyRole::Live).await.unwrap_err();
    assert_eq!((none.code(), none.reason()), (Code::NotFound, "UNKNOWN_POLICY"), "{none}");
    is_well(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_policy_is_refused_with_what_is_wrong_and_changes_nothing() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    client.load_policy(new("balancer", "latency-aware")).await.unwrap();
    let good = || new("balancer", "latency-aware");
    let engine = fs::read(guest("default-engine")).unwrap();
    let core = wat::parse_str("(module)").unwrap();
    let cases = [
        (NewPolicy::new("balancer", "x", Vec::new()), "INVALID_REQUEST", "`wasm` is empty"),
        (NewPolicy::new("balancer", "x", b"not wasm".to_vec()), "INVALID_MODULE", "it is not WebAssembly"),
        (NewPolicy::new("balancer", "x", core), "INVALID_MODULE", "a policy is a component"),
        (NewPolicy::new("balancer", "x", engine), "INVALID_MODULE", "may import `llambo:policy/host@0.1.0` only"),
        (NewPolicy::new("balancer", "x", wasm("latency-aware")[..3000].to_vec()), "INVALID_MODULE", "does not compile"),
        (NewPolicy::new("balancer", "x", vec![0; 5 << 20]), "INVALID_REQUEST", "`policies.max-size`"),
        (NewPolicy::new("balancer", "x", vec![0; 24 << 20]), "INVALID_REQUEST", "larger than `policies.max-size`"),
        (NewPolicy::new("admission", "x", wasm("latency-aware")), "INVALID_MODULE", "load it `--as balancer`"),
        (NewPolicy::new("juggler", "x", wasm("latency-aware")), "INVALID_REQUEST", "one of balancer, admission"),
        (NewPolicy::new("balancer", "No Name!", wasm("latency-aware")), "INVALID_REQUEST", "lower-case letter"),
        (good().share(1.5), "INVALID_REQUEST", "below 1"),
        (good().share(-0.5), "INVALID_REQUEST", "above 0"),
        (good().shadow().share(0.5), "INVALID_REQUEST", "both set"),
        (good().time_us(600_000_000), "INVALID_REQUEST", "`policies.max-time`"),
        (good().memory_bytes(1 << 40), "INVALID_REQUEST", "`policies.max-memory`"),
        (good().parameters("x".repeat(70_000)), "INVALID_REQUEST", "`parameters`"),
        (new("token-hook", "banned-words").shadow(), "INVALID_REQUEST", "neither a shadow nor a canary"),
        (new("scaler", "scale-to-load").share(0.5), "INVALID_REQUEST", "no share"),
        (new("admission", "tenant-budget").parameters("what?"), "TRIAL_FAILED", "it said: `what?`"),
        (misbehaving("loop"), "TRIAL_FAILED", "(timeout)"),
        (misbehaving("trap"), "TRIAL_FAILED", "(trap)"),
        (misbehaving("memory"), "TRIAL_FAILED", "(memory)"),
        (misbehaving("index"), "TRIAL_FAILED", "candidate 1000, and there are 1"),
        (misbehaving("stack"), "TRIAL_FAILED", "(trap)"),
    ];
    for (policy, reason, told) in cases {
        let refused = client.load_policy(policy).await.unwrap_err();
        assert!(refused.reason() == reason && refused.to_string().contains(told), "{reason}, {told}: {refused}");
    }
    assert_eq!(live(&client, "balancer").await.name, "latency-aware");
    for (kind, role) in [("juggler", "live"), ("balancer", "shadow")] {
        let role = if role == "live" { PolicyRole::Live } else { PolicyRole::Shadow };
        assert!(client.resume_policy(kind, role).await.is_err());
    }
    let shut = Host::start(&CONFIG.replace("policies: {", "policies: {load: false, "));
    let refused = shut.client().await.load_policy(good()).await.unwrap_err();
    assert_eq!((refused.code(), refused.reason()), (Code::PermissionDenied, "NOT_PERMITTED"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_balancer_does_every_request_is_answered_and_it_is_counted_and_suspended() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    // each instance counts its calls by itself, and is made anew when it trapped
    for (mode, cause) in [("loop", "timeout"), ("trap", "trap"), ("memory", "memory"), ("stack", "trap"), ("none", "declined")] {
        client.load_policy(hostile(mode)).await.unwrap();
        load(&client, 200).await;
        let policy = live(&client, "balancer").await;
        let counted = policy.fallbacks.get(cause).copied().unwrap_or(0);
        assert!(counted > 0 && policy.state == "running", "{mode}: {policy:?}");
        let metrics = host.json(&["metrics", "--http", host.http()]).to_string();
        assert!(metrics.contains("llambo_policy_fallbacks_total") && metrics.contains(cause), "{mode}: {metrics}");
    }
    is_well(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_keeps_failing_is_suspended_and_comes_back_by_command() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    client.load_policy(hostile("index")).await.unwrap();
    load(&client, 400).await;
    let policy = live(&client, "balancer").await;
    assert_eq!(policy.state, "suspended");
    assert!(policy.reason.contains("10 of its last 100 calls failed") && policy.reason.contains("candidate 1000"), "{policy:?}");
    assert!(policy.fallbacks["suspended"] > 0 && policy.fallbacks["nonsense"] >= 10, "{policy:?}");
    let route = client.infer(ask("A trait is").explain()).await.unwrap().route.unwrap();
    assert_eq!((route.fallback.as_str(), route.policy.unwrap().name.as_str()), ("suspended", "hostile-policy"));

    let resumed = client.resume_policy("balancer", PolicyRole::Live).await.unwrap().policy.unwrap();
    assert_eq!((resumed.state.as_str(), resumed.reason.as_str()), ("running", ""));
    load(&client, 400).await;
    assert_eq!(live(&client, "balancer").await.state, "suspended", "it has not become better");
    is_well(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_swapped_under_load_and_no_request_is_lost_or_doubled() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    let before = client.status().await.unwrap().totals.unwrap();
    let swapping = async {
        for round in 0..20 {
            match round % 5 {
                0 => drop(client.load_policy(new("balancer", "latency-aware")).await.unwrap()),
                1 => drop(client.load_policy(new("balancer", "shortest-queue").shadow()).await.unwrap()),
                2 => drop(client.promote_policy("balancer").await.unwrap()),
                3 => drop(client.roll_back_policy("balancer").await.unwrap()),
                _ => drop(client.load_policy(new("balancer", "latency-aware-c").share(0.5)).await.unwrap()),
            }
        }
    };
    let ((), ()) = futures::join!(load(&client, 1500), swapping);
    eventually("all have ended", async || client.status().await.unwrap().queue.unwrap().in_flight == 0).await;
    let after = client.status().await.unwrap().totals.unwrap();
    assert_eq!((after.requests - before.requests, after.finished - before.finished), (1500, 1500));
    assert_eq!((after.failed, after.cancelled, after.rejected), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_says_a_lot_does_not_flood_the_log() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    client.load_policy(new("balancer", "hostile-policy").parameters("log").time_us(50_000)).await.unwrap();
    let began = std::time::Instant::now();
    load(&client, 100).await;
    // a second begins and one ends
    let most = 10 * (usize::try_from(began.elapsed().as_secs()).unwrap() + 3);
    drop(client);
    host.signal("TERM");
    let (_, lines) = host.wait();
    let said: Vec<_> = lines.iter().filter(|line| line.contains("a policy says")).collect();
    assert!(!said.is_empty() && said.len() <= most && said.iter().all(|line| line.len() < 1000), "{} lines", said.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_decides_for_its_share() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    client.load_policy(new("balancer", "latency-aware").share(0.3)).await.unwrap();
    let routes = join_all((0..200).map(|_| client.infer(ask("A trait is").explain()))).await;
    let mut by = BTreeMap::<String, u32>::new();
    for answer in routes {
        let policy = answer.unwrap().route.unwrap().policy;
        *by.entry(policy.map_or("strategy".into(), |policy| policy.role)).or_default() += 1;
    }
    // 60 of 200: 30 and 95 are more than five standard deviations away
    assert!((30..95).contains(&by["canary"]) && by["strategy"] == 200 - by["canary"], "{by:?}");
    client.promote_policy("balancer").await.unwrap();
    let route = client.infer(ask("A trait is").explain()).await.unwrap().route.unwrap();
    assert_eq!(route.policy.unwrap().role, "live");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    let config = CONFIG.replace("policies: {", &format!("policies: {{load: false, folder: {:?}, ", folder.path()));
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    put("balancer.wasm", &wasm("latency-aware"));
    let host = Host::start(&config);
    let client = host.client().await;
    let digest = async |role: &str| in_role(&client, "balancer", role).await.map(|policy| policy.sha256);
    eventually("what lies there is loaded", async || digest("live").await.is_some()).await;
    let first = digest("live").await;
    assert_eq!(live(&client, "balancer").await.source, "folder");

    let refused = client.unload_policy("balancer", PolicyRole::Live).await.unwrap_err();
    assert_eq!(refused.reason(), "NOT_PERMITTED", "the folder's are not the clients' to change: {refused}");

    put("balancer.wasm", b"\0asm, half a module");
    put("balancer.shadow.wasm", &wasm("shortest-queue"));
    eventually("the shadow is there", async || digest("shadow").await.is_some()).await;
    assert_eq!(digest("live").await, first, "what is broken takes nobody's place");
    put("balancer.wasm", &wasm("latency-aware-c"));
    eventually("the new one decides", async || digest("live").await != first).await;
    fs::remove_file(folder.path().join("balancer.wasm")).unwrap();
    eventually("without a file there is none", async || digest("live").await.is_none()).await;
    assert!(digest("shadow").await.is_some());
    is_well(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scaler_changes_types_within_their_bounds_and_no_others() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    let count = async |node_type: &str| {
        let filter = NodeFilter { node_type: node_type.into(), ..NodeFilter::default() };
        client.nodes(&filter).await.unwrap().into_iter().filter(|node| node.state != "draining").count()
    };
    client.load_policy(new("scaler", "scale-to-load")).await.unwrap();
    // more at a time than there are nodes
    let long = || Ask::text("A trait is").options(|options| options.ignore_eos = true);
    let held = join_all((0..36).map(|_| client.generate(long())));
    let scaled = eventually("there are as many as there may be", async || count("tiny").await == 40);
    let ((), held) = futures::join!(scaled, held);
    assert!(held.into_iter().all(|answer| answer.is_ok()));
    assert_eq!(count("strong").await, 4, "it has no bounds");
    is_well(&client).await;
}

/// A module that was built for another version of the interfaces: these are in it by name only.
fn of_version(version: &str) -> Vec<u8> {
    let (is, other) = (b"@0.1.0", format!("@{version}"));
    assert_eq!(is.len(), other.len());
    let mut wasm = wasm("latency-aware-c");
    for at in 0..wasm.len() - is.len() {
        if wasm[at..].starts_with(is) {
            wasm[at..at + is.len()].copy_from_slice(other.as_bytes());
        }
    }
    wasm
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_of_other_versions_work_as_far_as_versions_promise() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    // as it was built for the first release: it stays as it is while the examples change
    let frozen = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/frozen/policy-balancer-0.1.0.wasm")).unwrap();
    for wasm in [frozen, of_version("0.1.7")] {
        client.load_policy(NewPolicy::new("balancer", "older", wasm)).await.unwrap();
        load(&client, 40).await;
        let policy = live(&client, "balancer").await;
        assert!(policy.calls >= 40 && policy.fallbacks.keys().all(|cause| cause == "gone"), "{policy:?}");
    }
    let newer = client.load_policy(NewPolicy::new("balancer", "newer", of_version("0.2.0"))).await.unwrap_err();
    let told = newer.to_string();
    assert!(newer.reason() == "INVALID_MODULE" && told.contains("0.2.0") && told.contains("0.1.0"), "{told}");
}

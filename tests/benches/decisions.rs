//! What it costs to take a node for a request, by strategy, policy and number of nodes: `cargo bench --workspace --bench decisions`.
//!
//! Half of the nodes' places are taken throughout and the oldest is given back after each new one, so that loads differ and candidates come and go as they do under
//! load. `choice` is the strategy alone. What a policy adds is in the difference to the strategy that decides without it: the proposal, the call, the move to the node
//! that it chose. Nothing is generated. A number behind `--` keeps to clusters of that size.

use std::{collections::VecDeque, fs, future, path::Path, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use llambo_inference::{
    GenerateFuture, GenerateRequest, InferenceError, Instant, Node, NodeState, NodeTraits, NodeView, Priority, Prompt, Routing,
    Sampling, Share, TypeName,
};
use llambo_orchestrator::{
    Cluster, NodeFactory, Policies as Seats, Settings as ClusterSettings, SpawnError, SpawnOutcome, TypeInfo,
};
use llambo_policy::{Policies, Settings};
use llambo_strategy::{NAMES, NewPolicy, Place, PolicyDesk, PolicyKind, Role, Source};

const ROUNDS: usize = 50_000;
const CAPACITY: u32 = 2;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Idle(NodeView);

impl Node for Idle {
    fn view(&self) -> NodeView {
        self.0.clone()
    }
    fn generate(&self, _: GenerateRequest) -> GenerateFuture<'_> {
        Box::pin(future::ready(Err(InferenceError::Stopped("it generates nothing".into()))))
    }
    fn stop(&self) {}
}

struct NoFactory;

impl NodeFactory for NoFactory {
    fn types(&self) -> Vec<TypeInfo> {
        Vec::new()
    }
    fn spawn<'a>(&'a self, node_type: &'a TypeName, _: u32) -> BoxFuture<'a, Result<SpawnOutcome, SpawnError>> {
        let error = SpawnError::Failed { node_type: node_type.clone(), detail: "it makes nothing".into() };
        Box::pin(future::ready(Err(error)))
    }
}

fn node(i: u32) -> Arc<dyn Node> {
    Arc::new(Idle(NodeView {
        id: format!("node-{i:06}").into(),
        node_type: "bench".into(),
        model: "m".into(),
        state: NodeState::Ready,
        capacity: CAPACITY,
        weight: 1.0,
        served: 0,
        replaced: 0,
        memory_bytes: 0,
        traits: NodeTraits::default(),
    }))
}

fn policies() -> Arc<Policies> {
    let settings = Settings {
        load: true,
        time: Duration::from_millis(1),
        max_time: Duration::from_millis(50),
        memory_bytes: 16 << 20,
        max_memory_bytes: 64 << 20,
        max_bytes: 64 << 20,
    };
    Policies::start(settings).expect("policies can run here")
}

fn load(policies: &Policies, example: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest/prebuilt/policies");
    let wasm = fs::read(folder.join(format!("{example}.wasm"))).expect("the example is built");
    let new = NewPolicy {
        kind: PolicyKind::Balancer,
        name: example.to_owned(),
        wasm: wasm.into(),
        place: Place::Live,
        parameters: String::new(),
        time: None,
        memory_bytes: None,
        source: Source::Client,
    };
    policies.load(new).expect("it is a balancer");
}

#[expect(clippy::print_stdout, reason = "a benchmark's result")]
fn main() {
    println!(
        "{:<32} {:>7} {:>12} {:>12} {:>15} {:>10}",
        "who decides", "nodes", "p50 ns", "p99 ns", "choice p50 ns", "fallbacks"
    );
    let request = GenerateRequest {
        id: "a3c1f0de-request".into(),
        model: "m".into(),
        node_type: None,
        prompt: Prompt::Text("x".repeat(100)),
        sampling: Sampling::greedy(3),
        share: Share::default(),
        deadline: None,
        routing: Routing::default(),
        priority: Priority::default(),
        journal: None,
        log: None,
    };
    // tokens and leases belong to a runtime, as in a host
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _runtime = runtime.enter();
    let only = std::env::args().skip(1).find_map(|word| word.parse().ok());
    for n in [32, 1000, 100_000].into_iter().filter(|n| only.is_none_or(|only: u32| only == *n)) {
        let policies = policies();
        let seats = Seats { balancer: policies.balancer(), ..Seats::default() };
        let cluster =
            Cluster::with_policies(Arc::new(NoFactory), ClusterSettings::default(), seats).expect("the default strategy");
        cluster.add((0..n).map(node).collect()).expect("ids differ");
        let door = cluster.dispatcher();
        let mut held: VecDeque<_> = (0..n * CAPACITY / 2).map(|_| door.try_lease(&request).expect("half is free")).collect();
        let mut measure = |who: &str| {
            let mut times = Vec::with_capacity(ROUNDS);
            for _ in 0..ROUNDS {
                let began = Instant::now();
                held.push_back(door.try_lease(&request).expect("half is free"));
                times.push(began.elapsed());
                held.pop_front();
            }
            times.sort_unstable();
            let at = |percent: usize| times[ROUNDS * percent / 100].as_nanos();
            let fallbacks: u64 = policies.list().iter().flat_map(|policy| policy.fallbacks.values()).sum();
            let choice = cluster.balancer_report().choice_p50_ns;
            println!("{who:<32} {n:>7} {:>12} {:>12} {choice:>15.0} {fallbacks:>10}", at(50), at(99));
        };
        for name in NAMES {
            cluster.set_balancer(name).expect("a built-in strategy");
            measure(name);
        }
        cluster.set_balancer("least-loaded").expect("a built-in strategy");
        for example in ["latency-aware", "latency-aware-c", "shortest-queue"] {
            load(&policies, example);
            measure(&format!("least-loaded and {example}"));
            policies.unload(PolicyKind::Balancer, Role::Live).expect("it is there");
        }
    }
}

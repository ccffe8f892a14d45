//! What a decision of a policy costs, its own code and everything around it: `cargo bench -p llambo-policy [MODULE...]`.
//!
//! Without a module: the examples in `guest/prebuilt/policies` that balance. `candidates` are asked as the orchestrator asks.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use llambo_inference::NodeId;
use llambo_policy::{Policies, Settings};
use llambo_strategy::{
    Candidate, ChooseNode, Labels, NewPolicy, NodeChange, NodeKind, Nodes, Place, PolicyDesk, PolicyKind, RequestFacts, Source,
};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CALLS: usize = 20_000;

#[derive(Debug)]
struct Fixed(Vec<Candidate>);

impl Nodes for Fixed {
    fn name(&self, node: u64) -> Option<NodeId> {
        Some(format!("node-{node}").into())
    }
    fn changes_since(&self, change: Option<u64>) -> (Vec<NodeChange>, u64, bool) {
        let all = self.0.iter().map(|candidate| NodeChange::Open(*candidate));
        (if change.is_none() { all.collect() } else { Vec::new() }, 1, change.is_none())
    }
}

fn question(n: u32) -> ChooseNode {
    let candidate = |place: u32| Candidate {
        node: u64::from(place) + 1,
        kind: 0,
        in_flight: place % 4,
        capacity: 4,
        weight: 1.0,
        ttft_us: 5000.0,
        latency_us: 40_000.0 + place as f32,
        failures: 0.0,
        cached_bytes: 0,
        tier: 0,
    };
    let kind = NodeKind {
        node_type: "tiny".into(),
        model: "builtin:demo".into(),
        tenant: "default".into(),
        tier: 0,
        weight: 1.0,
        labels: Labels::default(),
    };
    let candidates: Vec<_> = (0..n).map(candidate).collect();
    let request = RequestFacts {
        n_prompt_bytes: 2000,
        n_messages: 2,
        max_tokens: Some(64),
        deadline_ms: Some(30_000),
        now_ms: 123_456,
        ..RequestFacts::new("a3c1f0de-request".into(), "builtin:demo".into(), "default".into())
    };
    let nodes = Arc::new(Fixed(candidates.clone()));
    ChooseNode { request, candidates, kinds: Arc::new(vec![kind]), nodes, entropy: 7 }
}

#[expect(clippy::print_stdout, reason = "a benchmark's result")]
fn main() {
    let given: Vec<PathBuf> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).map(PathBuf::from).collect();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../guest/prebuilt/policies");
    let examples = ["latency-aware.wasm", "latency-aware-c.wasm", "shortest-queue.wasm"].map(|name| folder.join(name));
    let modules = if given.is_empty() { examples.to_vec() } else { given };
    println!(
        "{:<24} {:>10} {:>9} {:>9} {:>9} {:>12} {:>12}",
        "policy", "candidates", "p50 ns", "p99 ns", "mean ns", "compile ms", "memory KiB"
    );
    for path in modules {
        let settings = Settings {
            load: true,
            time: Duration::from_millis(50),
            max_time: Duration::from_secs(1),
            memory_bytes: 64 << 20,
            max_memory_bytes: 64 << 20,
            max_bytes: 64 << 20,
        };
        let policies = Policies::start(settings).expect("the machine can run policies");
        let wasm = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let loaded = policies.load(NewPolicy {
            kind: PolicyKind::Balancer,
            name: "bench".into(),
            wasm: wasm.into(),
            place: Place::Live,
            parameters: String::new(),
            time: None,
            memory_bytes: None,
            source: Source::Client,
        });
        let compile_ms = loaded.expect("it is a balancer").compile.as_secs_f64() * 1e3;
        let balancer = policies.balancer();
        for n in [1, 8, 32] {
            let question = question(n);
            let mut times = Vec::with_capacity(CALLS);
            let began = Instant::now();
            for _ in 0..CALLS {
                let call = Instant::now();
                let ask = Arc::new(question.clone());
                let decision = balancer.decide(&ask);
                times.push(call.elapsed());
                assert!(decision.answer.is_some(), "{:?}", decision.fallback);
            }
            let mean = began.elapsed() / u32::try_from(CALLS).expect("some thousand");
            times.sort_unstable();
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let status = policies.list().remove(0);
            println!(
                "{name:<24} {n:>10} {:>9} {:>9} {:>9} {compile_ms:>12.1} {:>12}",
                times[CALLS / 2].as_nanos(),
                times[CALLS * 99 / 100].as_nanos(),
                mean.as_nanos(),
                status.instance_bytes >> 10
            );
        }
    }
}

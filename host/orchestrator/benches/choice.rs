//! What it costs to take a node for a request and give it back, by strategy and number of nodes:
//! `cargo bench -p llambo-orchestrator`.
//!
//! Half of the nodes' places are taken throughout and the oldest is given back after each new one, so that loads differ and
//! candidates come and go as they do under load. Nothing is generated.

use std::{collections::VecDeque, future, sync::Arc};

use futures::future::BoxFuture;
use llambo_inference::{
    GenerateFuture, GenerateRequest, InferenceError, Instant, ModelName, Node, NodeState, NodeView, TypeName,
};
use llambo_orchestrator::{Cluster, NodeFactory, Settings, SpawnError, SpawnOutcome, TypeInfo};
use llambo_strategy::{NAMES, RequestView};

const ROUNDS: u32 = 200_000;
const CAPACITY: u32 = 2;

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
        weight: f64::from(1 + i % 7),
        served: 0,
        replaced: 0,
        memory_bytes: 0,
    }))
}

#[expect(clippy::print_stdout, reason = "a benchmark's result")]
fn main() {
    println!("{:<16} {:>7} {:>22} {:>15} {:>15}", "strategy", "nodes", "acquire + release ns", "choice p50 ns", "choice p99 ns");
    let model = ModelName::from("m");
    let request = RequestView { model: &model, node_type: None, n_prompt_bytes: 100 };
    for n in [100, 10_000, 100_000] {
        let cluster = Cluster::new(Arc::new(NoFactory), Settings::default()).expect("the default strategy exists");
        cluster.add((0..n).map(node).collect()).expect("ids differ");
        let door = cluster.dispatcher();
        let mut held: VecDeque<_> = (0..n * CAPACITY / 2).map(|_| door.try_lease(&request).expect("half is free")).collect();
        for name in NAMES {
            cluster.set_balancer(name).expect("a built-in strategy");
            let started = Instant::now();
            for _ in 0..ROUNDS {
                held.push_back(door.try_lease(&request).expect("half is free"));
                held.pop_front();
            }
            let each = started.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS);
            let report = cluster.balancer_report();
            println!("{name:<16} {n:>7} {each:>22.0} {:>15.0} {:>15.0}", report.choice_p50_ns, report.choice_p99_ns);
        }
    }
}

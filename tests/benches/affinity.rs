//! What `cognitive-affinity` saves beside `least-loaded` and `round-robin`: `cargo bench --workspace --bench affinity`.
//!
//! Eight nodes, each with an engine of its own on `builtin:demo-small`, behind a cluster. Every run has fresh engines, so that no strategy finds what
//! another one has computed. In each round all strategies do the same work one after the other, beginning with another one each time; ratios are those of
//! a round, and what is printed is the median of the rounds, with the lowest and the highest.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has nothing to report")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench speaks to whoever started it")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use futures::{StreamExt, future::BoxFuture, stream};
use llambo_catalog::Builtin;
use llambo_inference::{
    AnswerEvent, GenerateFuture, GenerateRequest, InferenceEngine, Node, NodeId, NodeState, NodeTraits, NodeView, Priority,
    Prompt, Routing, Sampling, Share, TypeName, Usage,
};
use llambo_llama::{EngineSettings, LlamaEngine};
use llambo_orchestrator::{Cluster, Dispatcher, NodeFactory, Settings, SpawnError, SpawnOutcome, TypeInfo};

const STRATEGIES: [&str; 3] = ["round-robin", "least-loaded", "cognitive-affinity"];
const NODES: u32 = 8;
/// Sequences of an engine, which are the places of its node.
const SEQUENCES: u32 = 16;
/// Requests under way at a time: a quarter of all places, so that strategies have a choice.
const CLIENTS: usize = 32;
const MODEL: Builtin = Builtin::DemoSmall;

const CONVERSATIONS: u64 = 64;
/// Conversations with the same system text: each group has as many as there are groups.
const GROUPS: u64 = 8;
const TURNS: u64 = 8;
/// The model has 1,024 tokens of context: 600, and eight turns of about 40.
const SYSTEM_TOKENS: usize = 600;
const QUESTION_WORDS: usize = 12;
const ANSWER_TOKENS: u32 = 16;

const UNRELATED: u64 = 256;
const UNRELATED_WORDS: usize = 120;

/// Common in what the model was trained on, so that most are one token.
const WORDS: [&str; 48] = [
    "the", "value", "type", "of", "function", "a", "is", "trait", "reference", "that", "when", "memory", "to", "for", "iterator",
    "which", "returns", "error", "with", "string", "and", "borrowed", "can", "be", "used", "in", "module", "crate", "an",
    "example", "this", "not", "method", "from", "slice", "pointer", "owner", "it", "thread", "by", "default", "lifetime", "each",
    "element", "struct", "as", "pattern", "call",
];

/// Options.
#[derive(Debug, Parser)]
struct Args {
    /// Times that all strategies are run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// A node that is an engine.
struct EngineNode {
    view: NodeView,
    engine: LlamaEngine,
}

/// Makes no nodes: they are added.
struct NoFactory;

/// Random numbers that are the same in each run: splitmix64 (Steele et al. 2014).
struct Numbers(u64);

/// What a run did.
#[derive(Default)]
struct Figures {
    usage: Usage,
    wall: Duration,
    requests: BTreeMap<NodeId, u32>,
}

/// A workload: its name, and how it is run with a seed.
type Workload = (&'static str, for<'a> fn(&'a Nodes, u64) -> BoxFuture<'a, Figures>);

/// A cluster of fresh engines.
struct Nodes {
    door: Dispatcher,
    /// To count tokens with.
    engine: Arc<EngineNode>,
    /// Taken out of service with it.
    cluster: Cluster,
    ids: Vec<NodeId>,
}

fn main() {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let workloads: [Workload; 2] = [
        ("conversations", |nodes, seed| Box::pin(conversations(nodes, seed))),
        ("unrelated", |nodes, seed| Box::pin(unrelated(nodes, seed))),
    ];
    println!("{CONVERSATIONS} conversations in {GROUPS} groups that share {SYSTEM_TOKENS} tokens, {TURNS} turns each");
    println!("{UNRELATED} prompts of {UNRELATED_WORDS} random words");
    println!("{NODES} nodes, {CLIENTS} requests at a time, {} rounds; ratios as median (lowest, highest)", args.rounds);
    for (name, work) in workloads {
        let mut runs: [Vec<Figures>; STRATEGIES.len()] = Default::default();
        for round in 0..args.rounds {
            for turn in 0..STRATEGIES.len() {
                let which = (turn + usize::try_from(round).unwrap()) % STRATEGIES.len();
                eprintln!("{name}, round {}: {}", round + 1, STRATEGIES[which]);
                runs[which].push(runtime.block_on(async {
                    let nodes = Nodes::start(STRATEGIES[which]);
                    let figures = work(&nodes, round).await;
                    nodes.cluster.stop_nodes();
                    figures
                }));
            }
        }
        print(name, &runs);
    }
}

/// Every conversation has its turn, in another order each time, and goes on with what it was answered.
async fn conversations(nodes: &Nodes, seed: u64) -> Figures {
    let mut numbers = Numbers(seed << 32);
    let systems: Vec<String> = (0..GROUPS).map(|_| nodes.text_of(SYSTEM_TOKENS, &mut numbers)).collect();
    let mut texts: Vec<String> = systems.iter().cycle().take(usize::try_from(CONVERSATIONS).unwrap()).cloned().collect();
    let mut figures = Figures::default();
    for _ in 0..TURNS {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        numbers.shuffle(&mut order);
        for text in &mut texts {
            *text += "\n\nQ: ";
            *text += &numbers.words(QUESTION_WORDS);
            *text += "\nA:";
        }
        let asked: Vec<_> = order.into_iter().map(|at| (at, texts[at].clone())).collect();
        for (at, answer) in nodes.answers(asked, &mut figures).await {
            texts[at] += &answer;
        }
    }
    figures
}

/// Prompts that have nothing in common.
async fn unrelated(nodes: &Nodes, seed: u64) -> Figures {
    let mut numbers = Numbers((seed << 32) + 1);
    let asked = (0..usize::try_from(UNRELATED).unwrap()).map(|at| (at, numbers.words(UNRELATED_WORDS))).collect();
    let mut figures = Figures::default();
    nodes.answers(asked, &mut figures).await;
    figures
}

// === impl Nodes ===

impl Nodes {
    fn start(strategy: &str) -> Self {
        let settings = Settings { strategy: strategy.into(), ..Settings::default() };
        let cluster = Cluster::new(Arc::new(NoFactory), settings).unwrap();
        let engines: Vec<Arc<EngineNode>> = (0..NODES).map(|n| Arc::new(EngineNode::start(n))).collect();
        cluster.add(engines.iter().map(|node| Arc::clone(node) as Arc<dyn Node>).collect()).unwrap();
        let ids = engines.iter().map(|node| node.view.id.clone()).collect();
        Self { door: cluster.dispatcher(), engine: Arc::clone(&engines[0]), cluster, ids }
    }

    /// Random words that are that many tokens, or a few more.
    fn text_of(&self, n_tokens: usize, numbers: &mut Numbers) -> String {
        let mut text = numbers.words(n_tokens / 2);
        while self.engine.engine.tokens_within(&text).unwrap().len() < n_tokens {
            text += " ";
            text += &numbers.words(4);
        }
        text
    }

    /// Asks all of them, [`CLIENTS`] at a time, and adds up what that took. Answers with the texts, each with its number.
    async fn answers(&self, asked: Vec<(usize, String)>, figures: &mut Figures) -> Vec<(usize, String)> {
        let began = Instant::now();
        let all = stream::iter(asked).map(|(at, prompt)| async move { (at, self.answer(prompt).await) });
        let answers: Vec<_> = all.buffer_unordered(CLIENTS).collect().await;
        figures.wall += began.elapsed();
        for id in &self.ids {
            figures.requests.entry(id.clone()).or_default();
        }
        let texts = answers.into_iter().map(|(at, (text, node, usage))| {
            figures.usage += usage;
            *figures.requests.entry(node).or_default() += 1;
            (at, text)
        });
        texts.collect()
    }

    async fn answer(&self, prompt: String) -> (String, NodeId, Usage) {
        let request = GenerateRequest {
            id: "bench".into(),
            model: MODEL.name().into(),
            node_type: None,
            prompt: Prompt::Text(prompt),
            sampling: Sampling { ignore_eos: true, ..Sampling::greedy(ANSWER_TOKENS) },
            share: Share::default(),
            deadline: None,
            routing: Routing::default(),
            priority: Priority::default(),
            journal: None,
            log: None,
        };
        let mut answer = self.door.dispatch(request).await.unwrap_or_else(|error| panic!("{error}"));
        let mut text = String::new();
        while let Some(event) = answer.events.next().await {
            match event.unwrap_or_else(|error| panic!("{error}")) {
                AnswerEvent::Piece { text: piece, .. } => text += &piece,
                AnswerEvent::Finished(finished) => return (text, answer.node, finished.usage),
            }
        }
        panic!("an answer without an end");
    }
}

// === impl EngineNode ===

impl EngineNode {
    fn start(n: u32) -> Self {
        let settings = EngineSettings {
            n_sequences: SEQUENCES,
            n_threads: 1,
            kv_memory_bytes: 256 << 20,
            embeddings: false,
            ..EngineSettings::new(MODEL.name())
        };
        let engine = LlamaEngine::load(&MODEL.unpack().unwrap(), &settings).unwrap_or_else(|error| panic!("{error}"));
        let view = NodeView {
            id: format!("node-{n}").into(),
            node_type: "engine".into(),
            model: MODEL.name().into(),
            state: NodeState::Ready,
            capacity: SEQUENCES,
            weight: 1.0,
            served: 0,
            replaced: 0,
            memory_bytes: 0,
            traits: NodeTraits::default(),
        };
        Self { view, engine }
    }
}

impl Node for EngineNode {
    fn view(&self) -> NodeView {
        self.view.clone()
    }

    fn generate(&self, request: GenerateRequest) -> GenerateFuture<'_> {
        Box::pin(async { self.engine.submit(request) })
    }

    fn stop(&self) {}
}

impl NodeFactory for NoFactory {
    fn types(&self) -> Vec<TypeInfo> {
        Vec::new()
    }

    fn spawn<'a>(&'a self, node_type: &'a TypeName, _: u32) -> BoxFuture<'a, Result<SpawnOutcome, SpawnError>> {
        let error = SpawnError::Failed { node_type: node_type.clone(), detail: "it makes nothing".into() };
        Box::pin(async { Err(error) })
    }
}

// === impl Numbers ===

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }

    fn words(&mut self, n: usize) -> String {
        (0..n).map(|_| WORDS[self.below(WORDS.len())]).collect::<Vec<_>>().join(" ")
    }

    fn shuffle(&mut self, list: &mut [usize]) {
        for end in (1..list.len()).rev() {
            list.swap(end, self.below(end + 1));
        }
    }
}

// === impl Figures ===

impl Figures {
    /// Prompt tokens that were not there already.
    fn computed(&self) -> f64 {
        f64::from(self.usage.input_tokens - self.usage.cached_tokens)
    }

    fn seconds(&self) -> f64 {
        self.wall.as_secs_f64()
    }
}

fn print(workload: &str, runs: &[Vec<Figures>; STRATEGIES.len()]) {
    println!("\n{workload}");
    println!(
        "{:<20} {:>9} {:>9} {:>8} {:>22} {:>22} {:>22} {:>22} {:>11}",
        "strategy",
        "tokens",
        "computed",
        "seconds",
        "tokens / round-robin",
        "tokens / least-loaded",
        "time / round-robin",
        "time / least-loaded",
        "max/min"
    );
    for (strategy, own) in STRATEGIES.iter().zip(runs) {
        let ratios = |to: usize, figure: fn(&Figures) -> f64| {
            let [low, median, high] = spread(own.iter().zip(&runs[to]).map(|(own, other)| figure(own) / figure(other)));
            format!("{median:.2} ({low:.2}, {high:.2})")
        };
        let [_, tokens, _] = spread(own.iter().map(|run| f64::from(run.usage.input_tokens)));
        let [_, computed, _] = spread(own.iter().map(Figures::computed));
        let [_, seconds, _] = spread(own.iter().map(Figures::seconds));
        let most = own.iter().filter_map(|run| run.requests.values().max()).max().unwrap();
        let least = own.iter().filter_map(|run| run.requests.values().min()).min().unwrap();
        println!(
            "{strategy:<20} {tokens:>9.0} {computed:>9.0} {seconds:>8.2} {:>22} {:>22} {:>22} {:>22} {:>11}",
            ratios(0, Figures::computed),
            ratios(1, Figures::computed),
            ratios(0, Figures::seconds),
            ratios(1, Figures::seconds),
            format!("{most}/{least}")
        );
    }
}

/// The lowest, the median (the upper one of two), and the highest.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}

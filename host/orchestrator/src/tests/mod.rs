//! The rules of the orchestrator, over fake nodes.

mod cluster;
mod dispatch;
mod fairness;
mod faults;
mod field;
mod policies;
mod queue;
mod scaling;
mod stress;
mod tiers;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use llambo_inference::{
    AnswerEvent, GenerateFuture, GenerateRequest, InferenceEngine, InferenceError, Node, NodeState, NodeTraits, NodeView,
    Priority, Prompt, Routing, Sampling, Share, TypeName, fake::FakeEngine,
};
use tokio::{sync::Semaphore, time::Instant};

use crate::{Cluster, DispatchError, Dispatcher, NodeFactory, Policies, Routed, Settings, SpawnError, SpawnOutcome, TypeInfo};

/// What a node does with its next request, instead of answering through the fake engine.
#[derive(Clone, Debug)]
enum Act {
    /// `generate` fails.
    Refuse(InferenceError),
    /// `generate` waits for a permit of the gate, then fails.
    RefuseLater(InferenceError),
    /// The stream's first item is an error.
    FailFirst(InferenceError),
    /// One piece, then an error.
    FailLater(InferenceError),
    /// This, then an error.
    Say(&'static str, InferenceError),
    /// One piece, then the stream ends without a word.
    BreakOff,
    /// The stream ends before its first item.
    Silence,
    /// Nothing, not even an end.
    Hang,
}

struct FakeNode {
    view: NodeView,
    engine: FakeEngine,
    acts: Mutex<VecDeque<Act>>,
    state: Mutex<NodeState>,
    /// With a gate, each answer after its first piece takes one permit.
    gate: Option<Arc<Semaphore>>,
    running: Arc<AtomicU32>,
    most_running: AtomicU32,
    served: Arc<AtomicU64>,
    stopped: AtomicBool,
}

struct Running(Arc<AtomicU32>, Arc<AtomicU64>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

impl FakeNode {
    fn new(id: &str, node_type: &str, capacity: u32, gate: Option<Arc<Semaphore>>) -> Self {
        let view = NodeView {
            id: id.into(),
            node_type: node_type.into(),
            model: "m".into(),
            state: NodeState::Ready,
            capacity,
            weight: 1.0,
            served: 0,
            replaced: 0,
            memory_bytes: 0,
            traits: NodeTraits::default(),
        };
        Self {
            view,
            engine: FakeEngine::new("m", capacity),
            acts: Mutex::default(),
            state: Mutex::new(NodeState::Ready),
            gate,
            running: Arc::default(),
            most_running: AtomicU32::new(0),
            served: Arc::default(),
            stopped: AtomicBool::new(false),
        }
    }

    fn act(&self, act: Act) {
        self.acts.lock().unwrap().push_back(act);
    }

    fn set_state(&self, state: NodeState) {
        *self.state.lock().unwrap() = state;
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    fn served(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }
}

impl Node for FakeNode {
    fn view(&self) -> NodeView {
        NodeView { state: *self.state.lock().unwrap(), served: self.served(), ..self.view.clone() }
    }

    fn generate(&self, request: GenerateRequest) -> GenerateFuture<'_> {
        assert!(!self.is_stopped(), "a stopped node is asked");
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(now, Ordering::SeqCst);
        let running = Running(Arc::clone(&self.running), Arc::clone(&self.served));
        let act = self.acts.lock().unwrap().pop_front();
        async move {
            let piece = Ok(AnswerEvent::Piece { text: "word1".into(), n_tokens: 1 });
            let items = match act {
                None => {
                    let gate = self.gate.clone();
                    let events = self.engine.submit(request)?.enumerate().then(move |(i, event)| {
                        let gate = gate.clone().filter(|_| i == 1);
                        async move {
                            if let Some(gate) = gate {
                                gate.acquire().await.unwrap().forget();
                            }
                            event
                        }
                    });
                    return Ok(events
                        .inspect(move |_| {
                            let _ = &running;
                        })
                        .boxed());
                }
                Some(Act::Refuse(error)) => return Err(error),
                Some(Act::RefuseLater(error)) => {
                    let gate = self.gate.as_ref().expect("the stage has a gate");
                    gate.acquire().await.unwrap().forget();
                    return Err(error);
                }
                Some(Act::FailFirst(error)) => vec![Err(error)],
                Some(Act::FailLater(error)) => vec![piece, Err(error)],
                Some(Act::Say(text, error)) => vec![Ok(AnswerEvent::Piece { text: text.into(), n_tokens: 1 }), Err(error)],
                Some(Act::BreakOff) => vec![piece],
                Some(Act::Silence) => Vec::new(),
                Some(Act::Hang) => {
                    let silence = stream::pending::<Result<AnswerEvent, InferenceError>>();
                    return Ok(silence
                        .inspect(move |_| {
                            let _ = &running;
                        })
                        .boxed());
                }
            };
            Ok(stream::iter(items)
                .inspect(move |_| {
                    let _ = &running;
                })
                .boxed())
        }
        .boxed()
    }

    fn stop(&self) {
        assert!(!self.stopped.swap(true, Ordering::SeqCst), "stopped twice");
        assert_eq!(self.running.load(Ordering::SeqCst), 0, "stopped while serving");
    }
}

/// Makes nodes `<type>-<n>` of two types of model `m`: `small` holds 1 request, `large` 4.
#[derive(Default)]
struct FakeFactory {
    /// How `small` follows its load.
    scaling: Option<llambo_strategy::ScaleRules>,
    /// Whether `large` is of tier 2.
    has_tiers: bool,
    /// Whether there is no room for more.
    full: AtomicBool,
    made: AtomicU32,
    gate: Option<Arc<Semaphore>>,
    nodes: Mutex<Vec<Arc<FakeNode>>>,
}

impl FakeFactory {
    fn tier(&self, node_type: &str) -> u8 {
        if self.has_tiers && node_type == "large" { 2 } else { 0 }
    }
}

impl NodeFactory for FakeFactory {
    fn types(&self) -> Vec<TypeInfo> {
        ["small", "large"]
            .map(|name| TypeInfo {
                name: name.into(),
                model: "m".into(),
                tenant: "default".into(),
                bounds: Some((1, 8)),
                scaling: self.scaling.filter(|_| name == "small"),
                tier: self.tier(name),
            })
            .to_vec()
    }

    fn spawn<'a>(&'a self, node_type: &'a TypeName, count: u32) -> BoxFuture<'a, Result<SpawnOutcome, SpawnError>> {
        async move {
            if count > 1000 || self.full.load(Ordering::SeqCst) {
                let detail = "1000 places in all".into();
                return Err(SpawnError::PoolExhausted { node_type: node_type.clone(), wanted: count, detail });
            }
            // others get their turn while nodes are made, as with a real factory
            tokio::task::yield_now().await;
            let capacity = if node_type.as_str() == "large" { 4 } else { 1 };
            let make = |_| {
                let n = self.made.fetch_add(1, Ordering::SeqCst);
                let mut node = FakeNode::new(&format!("{node_type}-{n:05}"), node_type.as_str(), capacity, self.gate.clone());
                node.view.traits.tier = self.tier(node_type.as_str());
                Arc::new(node)
            };
            let nodes: Vec<_> = (0..count).map(make).collect();
            self.nodes.lock().unwrap().extend(nodes.iter().cloned());
            let spawn_us = (1..=count).map(|i| i as f32).collect();
            Ok(SpawnOutcome { nodes: nodes.into_iter().map(|node| node as Arc<dyn Node>).collect(), spawn_us })
        }
        .boxed()
    }
}

/// A cluster with everything a test looks at.
struct Stage {
    cluster: Cluster,
    door: Dispatcher,
    factory: Arc<FakeFactory>,
    /// Each permit lets one answer end.
    gate: Arc<Semaphore>,
}

impl Stage {
    /// Answers come at once.
    async fn open(small: u32, settings: Settings) -> Self {
        Self::make(small, settings, None).await
    }

    /// Answers stop after their first piece until the gate lets them go on.
    async fn gated(small: u32, settings: Settings) -> Self {
        Self::make(small, settings, Some(Arc::new(Semaphore::new(0)))).await
    }

    /// The same, with policies.
    async fn gated_with(small: u32, settings: Settings, policies: Policies) -> Self {
        Self::make_with(small, settings, Some(Arc::new(Semaphore::new(0))), policies).await
    }

    async fn make(small: u32, settings: Settings, gate: Option<Arc<Semaphore>>) -> Self {
        Self::make_with(small, settings, gate, Policies::default()).await
    }

    async fn make_with(small: u32, settings: Settings, gate: Option<Arc<Semaphore>>, policies: Policies) -> Self {
        Self::with_factory(small, settings, FakeFactory { gate, ..FakeFactory::default() }, policies).await
    }

    async fn with_factory(small: u32, settings: Settings, factory: FakeFactory, policies: Policies) -> Self {
        let (gate, factory) = (factory.gate.clone(), Arc::new(factory));
        let cluster = Cluster::with_policies(Arc::clone(&factory) as Arc<dyn NodeFactory>, settings, policies).unwrap();
        if small > 0 {
            cluster.spawn(&"small".into(), small).await.unwrap();
        }
        Self { door: cluster.dispatcher(), cluster, factory, gate: gate.unwrap_or_else(|| Arc::new(Semaphore::new(0))) }
    }

    fn node(&self, i: usize) -> Arc<FakeNode> {
        Arc::clone(&self.factory.nodes.lock().unwrap()[i])
    }

    /// Dispatches in a task and reads the answer to its end.
    fn ask(&self, request: GenerateRequest) -> tokio::task::JoinHandle<Result<String, DispatchError>> {
        let door = self.door.clone();
        tokio::spawn(async move { Ok(read(door.dispatch(request).await?).await?) })
    }

    /// The same, and waits until it is in the queue.
    async fn ask_and_queue(&self, request: GenerateRequest) -> tokio::task::JoinHandle<Result<String, DispatchError>> {
        let waiting = self.cluster.status().waiting;
        let task = self.ask(request);
        until(|| self.cluster.status().waiting == waiting + 1).await;
        task
    }

    fn load(&self) -> (usize, usize) {
        let status = self.cluster.status();
        (status.in_flight, status.waiting)
    }

    /// Everything has ended and adds up.
    fn assert_at_rest(&self) {
        assert_eq!(self.load(), (0, 0));
        let page = self.cluster.list(&crate::NodeFilter::default(), 0, usize::MAX).unwrap();
        assert!(page.nodes.iter().all(|node| node.in_flight == 0));
        let totals = self.cluster.status().totals;
        assert_eq!(totals.requests, totals.finished + totals.failed + totals.cancelled + totals.rejected, "{totals:?}");
        for node in self.factory.nodes.lock().unwrap().iter() {
            assert_eq!(node.running.load(Ordering::SeqCst), 0);
            assert!(node.most_running.load(Ordering::SeqCst) <= node.view.capacity, "{} was given too much", node.view.id);
        }
    }
}

fn settings() -> Settings {
    Settings { max_waiting: 8, strategy: "round-robin".into(), ..Settings::default() }
}

fn request(id: &str) -> GenerateRequest {
    GenerateRequest {
        id: id.into(),
        model: "m".into(),
        node_type: None,
        prompt: Prompt::Text("hello".into()),
        sampling: Sampling::greedy(3),
        share: Share::default(),
        deadline: None,
        routing: Routing::default(),
        priority: Priority::default(),
        journal: None,
        log: None,
    }
}

fn typed(id: &str, node_type: &str) -> GenerateRequest {
    GenerateRequest { node_type: Some(node_type.into()), ..request(id) }
}

fn within(id: &str, timeout: Duration) -> GenerateRequest {
    GenerateRequest { deadline: Some((Instant::now() + timeout).into_std()), ..request(id) }
}

/// The text of an answer, which must end exactly once.
async fn read(answer: Routed) -> Result<String, InferenceError> {
    let mut events = answer.events;
    let mut text = String::new();
    let end = loop {
        match events.next().await.expect("an end comes before the last of the stream") {
            Ok(AnswerEvent::Piece { text: piece, .. }) => text.push_str(&piece),
            Ok(AnswerEvent::Finished(_)) => break Ok(text),
            Err(error) => break Err(error),
        }
    };
    assert!(events.next().await.is_none(), "something came after the end");
    end
}

/// Lets others run until it is so.
async fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if is_so() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never became so");
}

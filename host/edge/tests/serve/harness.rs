//! A host with two node types: `fake` answers `word1 word2 ...` at once, `stuck` says one word and then nothing more.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream};
use llambo_client::Client;
use llambo_edge::{Bound, EdgeError, Hardware, Host, NoModules, Settings};
use llambo_inference::{
    AnswerEvent, GenerateFuture, GenerateRequest, InferenceEngine, Models, Node, NodeId, NodeState, NodeTraits, NodeView,
    TypeName, fake::FakeEngine,
};
use llambo_orchestrator::{Cluster, NodeFactory, SpawnError, SpawnOutcome, TypeInfo};
use llambo_sessions::Sessions;
use llambo_tasks::Tasks;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::script;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout},
};

pub(crate) const MODEL: &str = "fake-model";
pub(crate) const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// What no step of these tests takes unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Running {
    pub(crate) client: Client,
    pub(crate) cluster: Cluster,
    pub(crate) tasks: Tasks,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    /// Times that a client drained the host.
    pub(crate) drains: Arc<AtomicU32>,
    /// Milliseconds since 1970, as sessions see it.
    pub(crate) now_ms: Arc<AtomicU64>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), EdgeError>>,
}

struct TestNode {
    id: NodeId,
    node_type: TypeName,
    engine: Arc<FakeEngine>,
}

struct Factory {
    engine: Arc<FakeEngine>,
    n_made: AtomicU32,
}

impl Node for TestNode {
    fn view(&self) -> NodeView {
        NodeView {
            id: self.id.clone(),
            node_type: self.node_type.clone(),
            model: MODEL.into(),
            state: NodeState::Ready,
            capacity: 1,
            weight: 1.0,
            served: 0,
            replaced: 0,
            memory_bytes: 65_536,
            traits: NodeTraits::default(),
        }
    }

    fn generate(&self, request: GenerateRequest) -> GenerateFuture<'_> {
        Box::pin(async move {
            if let Some(scripted) = script::answer(&request) {
                return scripted;
            }
            if self.node_type.as_str() == "stuck" {
                let piece = AnswerEvent::Piece { text: "word1".into(), n_tokens: 1 };
                return Ok(stream::iter([Ok(piece)]).chain(stream::pending()).boxed());
            }
            let log = request.journal.as_ref().map(|journal| journal.begin(0, 0, 0).log);
            self.engine.submit(GenerateRequest { log, ..request })
        })
    }

    fn stop(&self) {}
}

impl NodeFactory for Factory {
    fn types(&self) -> Vec<TypeInfo> {
        ["fake", "stuck"]
            .map(|name| TypeInfo {
                name: name.into(),
                model: MODEL.into(),
                tenant: "default".into(),
                bounds: None,
                scaling: None,
                tier: 0,
            })
            .into()
    }

    fn spawn<'a>(&'a self, node_type: &'a TypeName, count: u32) -> BoxFuture<'a, Result<SpawnOutcome, SpawnError>> {
        let node = |_| -> Arc<dyn Node> {
            let id = format!("{node_type}-{}", self.n_made.fetch_add(1, Ordering::Relaxed)).into();
            Arc::new(TestNode { id, node_type: node_type.clone(), engine: Arc::clone(&self.engine) })
        };
        let nodes = (0..count).map(node).collect();
        Box::pin(async move { Ok(SpawnOutcome { nodes, spawn_us: vec![1.0; count as usize] }) })
    }
}

impl Running {
    /// Three `fake` nodes and one `stuck` one, served on free ports.
    pub(crate) async fn start() -> Self {
        Self::start_with(PrometheusBuilder::new().build_recorder().handle()).await
    }

    /// Three `fake` nodes alone.
    pub(crate) async fn start_fake() -> Self {
        Self::start_of(&[("fake", 3)], PrometheusBuilder::new().build_recorder().handle()).await
    }

    pub(crate) async fn start_with(metrics: PrometheusHandle) -> Self {
        Self::start_of(&[("fake", 3), ("stuck", 1)], metrics).await
    }

    async fn start_of(nodes: &[(&str, u32)], metrics: PrometheusHandle) -> Self {
        Self::start_as(settings(), nodes, metrics).await
    }

    /// The same with other settings.
    pub(crate) async fn start_as(settings: Settings, nodes: &[(&str, u32)], metrics: PrometheusHandle) -> Self {
        let engine = Arc::new(FakeEngine::new(MODEL, 64).with_digest("0123456789abcdef"));
        let factory = Factory { engine: Arc::clone(&engine), n_made: AtomicU32::new(0) };
        let cluster = Cluster::new(Arc::new(factory), llambo_orchestrator::Settings::default()).unwrap();
        for (name, count) in nodes {
            cluster.spawn(&(*name).into(), *count).await.unwrap();
        }
        let models = Models::default();
        models.insert(engine);

        let tasks = Tasks::open(llambo_tasks::Settings::default()).unwrap();
        tasks.start(cluster.dispatcher());

        let now_ms = Arc::new(AtomicU64::new(1_000_000));
        let clock = Arc::clone(&now_ms);
        let clock: llambo_sessions::Clock = Arc::new(move || clock.load(Ordering::Relaxed));
        let sessions = Sessions::with_clock(&llambo_sessions::Settings::default(), clock).unwrap();
        let drains = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&drains);
        let host = Host {
            cluster: cluster.clone(),
            models,
            desk: Arc::new(llambo_edge::FixedModels),
            modules: Arc::new(NoModules),
            policies: Arc::new(llambo_strategy::NoDesk),
            tasks: tasks.clone(),
            sessions,
            default_model: MODEL.into(),
            metrics: Arc::new(move || metrics.render()),
            hardware: Arc::new(hardware),
            on_drain: Arc::new(move || {
                counted.fetch_add(1, Ordering::Relaxed);
            }),
        };
        let bound = Bound::new(settings).await.unwrap();
        let (grpc, http) = (bound.grpc_addr(), bound.http_addr());
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(bound.serve(host, async {
            let _ = stopped.await;
        }));
        let client = Client::connect(&format!("http://{grpc}")).await.unwrap();
        Self { client, cluster, tasks, grpc, http, drains, now_ms, stop, served }
    }

    /// Ends the edge and says that it came to its end well, and without cutting anyone off.
    pub(crate) async fn stop(self) {
        let begin = Instant::now();
        self.stop.send(()).unwrap();
        within(self.served).await.unwrap().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(4), "something was still open: {:?}", begin.elapsed());
    }

    /// A connection of its own, for services that the client library has no method for.
    pub(crate) async fn channel(&self) -> tonic::transport::Channel {
        tonic::transport::Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap().connect().await.unwrap()
    }

    /// Status line and body of a GET.
    pub(crate) async fn get(&self, path: &str) -> (String, String) {
        self.call("GET", path, "").await
    }

    /// Status line and body of any request; chunks are put together.
    pub(crate) async fn call(&self, method: &str, path: &str, body: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        let n_bytes = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {n_bytes}\r\n\r\n");
        let request = head + body;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if is_chunked { joined(body) } else { body.to_owned() };
        (head.lines().next().unwrap().to_owned(), body)
    }
}

/// The chunks of a body as one text.
fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((n_bytes, rest)) = chunks.split_once("\r\n") {
        let n_bytes = usize::from_str_radix(n_bytes, 16).unwrap();
        body.push_str(&rest[..n_bytes]);
        chunks = rest[n_bytes..].trim_start_matches("\r\n");
    }
    body
}

/// What the machine is said to have.
pub(crate) fn hardware() -> Hardware {
    let mut hardware = Hardware::default();
    hardware.machine.name = "test-machine".into();
    hardware.machine.processor.usable = 2;
    hardware.machine.gpus = vec![llambo_hardware::Gpu::default()];
    hardware
}

pub(crate) fn settings() -> Settings {
    Settings {
        grpc: "127.0.0.1:0".parse().unwrap(),
        http: "127.0.0.1:0".parse().unwrap(),
        max_request_bytes: MAX_REQUEST_BYTES,
        max_module_bytes: MAX_REQUEST_BYTES,
        max_policy_bytes: MAX_REQUEST_BYTES,
        max_streams_per_connection: 256,
        client_stall_timeout: std::time::Duration::from_secs(2),
        trace_sample: None,
        page: true,
        security: llambo_edge::Security::default(),
    }
}

/// Waits for something that must happen, but not for ever.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("it happened in time")
}

//! A host with a fake model of two names behind an edge with these settings.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use llambo_client::{Client, Credentials};
use llambo_edge::{
    AccessSettings, Bound, EdgeError, Host, Limits, NoModules, Permission, Security, Settings, TenantAccess, TokenHash,
};
use llambo_inference::{
    GenerateFuture, GenerateRequest, InferenceEngine, Models, Node, NodeId, NodeState, NodeTraits, NodeView, TypeName,
    fake::FakeEngine,
};
use llambo_orchestrator::{Cluster, NodeFactory, SpawnError, SpawnOutcome, Terms, TypeInfo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

/// Types, and the model that each serves.
pub(crate) const TYPES: [(&str, &str); 3] = [("small", "one"), ("big", "one"), ("other", "two")];
pub(crate) const MAX_REQUEST_BYTES: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Running {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), EdgeError>>,
}

struct TestNode {
    id: NodeId,
    node_type: TypeName,
    engine: Arc<FakeEngine>,
}

struct Factory {
    engines: [Arc<FakeEngine>; 2],
    n_made: AtomicU32,
}

fn model_of(node_type: &TypeName) -> &'static str {
    TYPES.iter().find(|(name, _)| *name == node_type.as_str()).map_or("one", |(_, model)| model)
}

impl Node for TestNode {
    fn view(&self) -> NodeView {
        NodeView {
            id: self.id.clone(),
            node_type: self.node_type.clone(),
            model: model_of(&self.node_type).into(),
            state: NodeState::Ready,
            capacity: 4,
            weight: 1.0,
            served: 0,
            replaced: 0,
            memory_bytes: 65_536,
            traits: NodeTraits::default(),
        }
    }

    fn generate(&self, request: GenerateRequest) -> GenerateFuture<'_> {
        Box::pin(async move { self.engine.submit(request) })
    }

    fn stop(&self) {}
}

impl NodeFactory for Factory {
    fn types(&self) -> Vec<TypeInfo> {
        TYPES
            .map(|(name, model)| TypeInfo {
                name: name.into(),
                model: model.into(),
                tenant: "default".into(),
                bounds: None,
                scaling: None,
                tier: 0,
            })
            .into()
    }

    fn spawn<'a>(&'a self, node_type: &'a TypeName, count: u32) -> BoxFuture<'a, Result<SpawnOutcome, SpawnError>> {
        let engine = &self.engines[usize::from(model_of(node_type) == "two")];
        let node = |_| -> Arc<dyn Node> {
            let id = format!("{node_type}-{}", self.n_made.fetch_add(1, Ordering::Relaxed)).into();
            Arc::new(TestNode { id, node_type: node_type.clone(), engine: Arc::clone(engine) })
        };
        let nodes = (0..count).map(node).collect();
        Box::pin(async move { Ok(SpawnOutcome { nodes, spawn_us: vec![1.0; count as usize] }) })
    }
}

impl Running {
    pub(crate) async fn start(security: Security) -> Self {
        let engines = ["one", "two"].map(|name| Arc::new(FakeEngine::new(name, 64)));
        let models = Models::default();
        for engine in &engines {
            models.insert(Arc::clone(engine) as Arc<dyn InferenceEngine>);
        }
        let factory = Factory { engines, n_made: AtomicU32::new(0) };
        let thrifty = Terms { requests_per_minute: Some(3), tokens_per_minute: Some(1000), ..Terms::default() };
        let quotas = llambo_orchestrator::Settings {
            tenants: [("thrifty".into(), thrifty)].into(),
            ..llambo_orchestrator::Settings::default()
        };
        let cluster = Cluster::new(Arc::new(factory), quotas).unwrap();
        for (node_type, _) in TYPES {
            cluster.spawn(&node_type.into(), 2).await.unwrap();
        }
        let host = Host {
            cluster,
            models,
            desk: Arc::new(llambo_edge::FixedModels),
            modules: Arc::new(NoModules),
            policies: Arc::new(llambo_strategy::NoDesk),
            default_model: "one".into(),
            tasks: llambo_tasks::Tasks::open(llambo_tasks::Settings::default()).unwrap(),
            sessions: llambo_sessions::Sessions::open(&llambo_sessions::Settings::default()).unwrap(),
            metrics: Arc::new(String::new),
            hardware: Arc::new(llambo_edge::Hardware::default),
            on_drain: Arc::new(|| ()),
        };
        let bound = Bound::new(settings(security)).await.unwrap();
        let (grpc, http) = (bound.grpc_addr(), bound.http_addr());
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(bound.serve(host, async {
            let _ = stopped.await;
        }));
        Self { grpc, http, stop, served }
    }

    /// Ends the edge; says how long that took.
    pub(crate) async fn stop(self) -> Duration {
        let begin = tokio::time::Instant::now();
        self.stop.send(()).unwrap();
        within(self.served).await.unwrap().unwrap();
        begin.elapsed()
    }

    pub(crate) fn client(&self, credentials: &Credentials) -> Client {
        Client::connect_lazily_with(&format!("http://{}", self.grpc), credentials).unwrap()
    }

    pub(crate) fn with_token(&self, token: &str) -> Client {
        self.client(&Credentials::default().token(token).unwrap())
    }

    /// The whole answer to a POST of JSON.
    pub(crate) async fn post(&self, path: &str, token: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n");
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        told(stream).await
    }

    /// The whole answer to a GET, with these headers besides, each with its line's end.
    pub(crate) async fn get(&self, path: &str, headers: &str) -> String {
        let stream = TcpStream::connect(self.http).await.unwrap();
        get_over(stream, path, headers).await
    }
}

pub(crate) async fn get_over(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str, headers: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    told(stream).await
}

/// What comes until the other side closes, well or badly.
pub(crate) async fn told(mut stream: impl AsyncRead + Unpin) -> String {
    let mut answer = Vec::new();
    // a reset is an end too
    let _ = within(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) fn settings(security: Security) -> Settings {
    Settings {
        grpc: "127.0.0.1:0".parse().unwrap(),
        http: "127.0.0.1:0".parse().unwrap(),
        max_request_bytes: MAX_REQUEST_BYTES,
        max_module_bytes: MAX_REQUEST_BYTES,
        max_policy_bytes: MAX_REQUEST_BYTES,
        max_streams_per_connection: 256,
        client_stall_timeout: Duration::from_secs(2),
        security,
        trace_sample: None,
        page: true,
    }
}

/// A tenant with one token, that may do this.
pub(crate) fn tenant(name: &str, token: &str, may: &[Permission]) -> TenantAccess {
    TenantAccess {
        name: name.into(),
        weight: 1.0,
        tokens: vec![TokenHash::of(token.as_bytes())],
        tokens_file: None,
        certificates: Vec::new(),
        may: may.to_vec(),
        models: None,
        types: None,
    }
}

pub(crate) fn for_tenants(tenants: Vec<TenantAccess>) -> Security {
    let access = AccessSettings { required: true, open_metrics: false, tenants };
    Security { access, tls: None, limits: Limits::default() }
}

/// Waits for something that must happen, but not for ever.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("it happened in time")
}

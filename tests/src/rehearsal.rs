//! An edge and an orchestrator on nodes without a model: what the doors themselves do, cost and bear, whatever computes behind them.
//!
//! [`stage`] makes one within a process; the program `rehearsal` serves it, and [`Rehearsal`] runs that program.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture};
use llambo_client::Client;
use llambo_edge::{Bound, Host, Limits, NoModules, Settings};
use llambo_inference::{
    AnswerEvent, GenerateFuture, GenerateRequest, InferenceEngine, Models, Node, NodeId, NodeState, NodeTraits, NodeView,
    TypeName, fake::FakeEngine,
};
use llambo_orchestrator::{Cluster, NodeFactory, SpawnError, SpawnOutcome, TypeInfo};
use llambo_sessions::Sessions;
use llambo_tasks::Tasks;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::Value;

/// The model that they say they serve.
pub const MODEL: &str = "rehearsed";
/// Text that `endless` nodes add to each word: a client that takes nothing is noticed once its window is full.
const FILLING_BYTES: usize = 2048;
/// Node types, and what their nodes do.
const TYPES: [&str; 3] = ["quick", "paced", "endless"];

/// What a rehearsal has.
#[derive(Clone, Debug, clap::Args)]
pub struct Stage {
    /// Nodes that answer `word1 word2 ...` at once
    #[arg(long, default_value_t = 256)]
    pub quick: u32,
    /// Nodes that say a word of it every `--step-ms`
    #[arg(long, default_value_t = 0)]
    pub paced: u32,
    /// Nodes that say large words, as fast as they are read
    #[arg(long, default_value_t = 0)]
    pub endless: u32,
    /// Milliseconds that a word takes a `paced` node
    #[arg(long, default_value_t = 10)]
    pub step_ms: u64,
    /// Milliseconds that a client may take nothing of its answer
    #[arg(long, default_value_t = 60_000)]
    pub stall_ms: u64,
    /// Milliseconds that what runs may take once the host is told to end
    #[arg(long, default_value_t = 30_000)]
    pub drain_ms: u64,
    /// Requests that may wait
    #[arg(long, default_value_t = 1024)]
    pub max_waiting: usize,
}

/// The program `rehearsal`, running. Killed when dropped.
pub struct Rehearsal {
    child: Child,
    grpc: String,
    http: String,
}

struct Player {
    id: NodeId,
    node_type: TypeName,
    step: Duration,
    engine: Arc<FakeEngine>,
}

struct Troupe {
    engine: Arc<FakeEngine>,
    step: Duration,
    n_made: AtomicU32,
}

/// Ports bound, nodes spawned: what is left is to serve.
pub async fn stage(stage: &Stage, metrics: PrometheusHandle) -> (Bound, Host) {
    let counts = [stage.quick, stage.paced, stage.endless];
    let engine = Arc::new(FakeEngine::new(MODEL, counts.iter().sum()));
    let troupe = Troupe { engine: Arc::clone(&engine), step: Duration::from_millis(stage.step_ms), n_made: AtomicU32::new(0) };
    let settings = llambo_orchestrator::Settings { max_waiting: stage.max_waiting, ..llambo_orchestrator::Settings::default() };
    let cluster = Cluster::new(Arc::new(troupe), settings).expect("the default strategy is there");
    for (name, count) in TYPES.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
        cluster.spawn(&name.into(), count).await.expect("they can always be made");
    }
    let models = Models::default();
    models.insert(engine);
    let any = "127.0.0.1:0".parse().expect("an address");
    let bound = Bound::new(Settings {
        grpc: any,
        http: any,
        max_request_bytes: 1 << 20,
        max_module_bytes: 1 << 20,
        max_policy_bytes: 1 << 20,
        max_streams_per_connection: 4096,
        client_stall_timeout: Duration::from_millis(stage.stall_ms),
        security: llambo_edge::Security {
            limits: Limits { max_connections: 8192, ..Limits::default() },
            ..llambo_edge::Security::default()
        },
        trace_sample: None,
        page: true,
    });
    let host = Host {
        cluster: cluster.clone(),
        models,
        desk: Arc::new(llambo_edge::FixedModels),
        modules: Arc::new(NoModules),
        policies: Arc::new(llambo_strategy::NoDesk),
        default_model: MODEL.into(),
        tasks: Tasks::open(llambo_tasks::Settings::default()).expect("memory can always be opened"),
        sessions: Sessions::with_clock(&llambo_sessions::Settings::default(), Arc::new(|| 0))
            .expect("memory can always be opened"),
        metrics: Arc::new(move || {
            cluster.publish_gauges();
            metrics.render()
        }),
        hardware: Arc::new(llambo_edge::Hardware::default),
        on_drain: Arc::new(|| ()),
    };
    (bound.await.expect("any port will do"), host)
}

/// What is answered to a request for `n` tokens.
pub fn words(n: u32) -> String {
    (1..=n).map(|i| format!("word{i}")).collect::<Vec<_>>().join(" ")
}

// === impl Player ===

impl Node for Player {
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
            memory_bytes: 0,
            traits: NodeTraits::default(),
        }
    }

    fn generate(&self, mut request: GenerateRequest) -> GenerateFuture<'_> {
        Box::pin(async move {
            let step = self.step;
            Ok(match self.node_type.as_str() {
                "paced" => {
                    let paced = move |event| async move {
                        tokio::time::sleep(step).await;
                        event
                    };
                    self.engine.submit(request)?.then(paced).boxed()
                }
                "endless" => {
                    request.sampling.max_tokens.get_or_insert(u32::MAX);
                    self.engine.submit(request)?.map(|event| event.map(filled)).boxed()
                }
                _ => self.engine.submit(request)?,
            })
        })
    }

    fn stop(&self) {}
}

fn filled(event: AnswerEvent) -> AnswerEvent {
    match event {
        AnswerEvent::Piece { text, n_tokens } => AnswerEvent::Piece { text: format!("{text:FILLING_BYTES$}"), n_tokens },
        end @ AnswerEvent::Finished(_) => end,
    }
}

// === impl Troupe ===

impl NodeFactory for Troupe {
    fn types(&self) -> Vec<TypeInfo> {
        TYPES
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
            Arc::new(Player { id, node_type: node_type.clone(), step: self.step, engine: Arc::clone(&self.engine) })
        };
        let nodes = (0..count).map(node).collect();
        Box::pin(async move { Ok(SpawnOutcome { nodes, spawn_us: vec![1.0; count as usize] }) })
    }
}

// === impl Rehearsal ===

impl Rehearsal {
    /// Starts it with these words and waits until it serves.
    pub fn start(words: &[&str]) -> Self {
        let mut child = Command::new(crate::program("rehearsal"))
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let said = child.stdout.take().expect("standard output is piped");
        BufReader::new(said).read_line(&mut line).expect("a pipe can be read");
        let places: Value = serde_json::from_str(&line).expect("it says where it listens");
        let place = |name: &str| places[name].as_str().expect("both ports are named").to_owned();
        Self { child, grpc: format!("http://{}", place("grpc")), http: place("http") }
    }

    /// `http://` and the gRPC address.
    pub fn grpc(&self) -> &str {
        &self.grpc
    }

    /// The HTTP address.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// A client of it.
    pub async fn client(&self) -> Client {
        Client::connect(&self.grpc).await.expect("a host that serves takes connections")
    }

    /// Answers that nodes are at now.
    pub async fn n_running(&self, client: &Client) -> u32 {
        client.models().await.expect("models are listed")[0].n_running
    }

    /// Files and sockets that it has open.
    pub fn n_descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }

    /// Bytes of memory that it holds.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    /// Processor time that it has used.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        // the name may have blanks; user and system time are the 14th and 15th field, in hundredths of a second
        let fields: Vec<&str> = stat.rsplit(')').next().expect("a line").split_whitespace().collect();
        let hundredths: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(hundredths * 10)
    }

    /// Tells it to end, as a service's keeper does.
    pub fn terminate(&self) {
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        assert!(sent.expect("there is a shell").success());
    }

    /// Waits for its end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("a child can be waited for")
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        // both fail only when it has ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

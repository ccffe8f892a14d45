//! What fuzz targets share: isolates on an engine without a model, small limits, one request after the other.

use std::{
    cell::RefCell,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use futures::StreamExt;
use llambo_inference::{
    AnswerEvent, GenerateRequest, InferenceEngine, InferenceError, Models, Node, NodeState, Priority, Prompt, Sampling, Share,
    fake::FakeEngine,
};
use llambo_isolate::{Isolate, Limits, Module, NodeType, Sandbox, SandboxError, TypeSettings};
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime starts"));
static ENGINE: LazyLock<Arc<FakeEngine>> = LazyLock::new(|| Arc::new(FakeEngine::new("fake", 64)));
static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| {
    let models = Models::default();
    models.insert(Arc::clone(&ENGINE) as Arc<dyn InferenceEngine>);
    Sandbox::new(models, None).expect("a sandbox starts")
});

/// A type of small isolates.
pub fn node_type(module: Module, hibernates: bool) -> Result<Arc<NodeType>, SandboxError> {
    let limits = Limits {
        memory_bytes: 4 << 20,
        cpu_time: Duration::from_millis(50),
        host_calls_per_second: 10_000_000,
        output_bytes: 1 << 20,
        output_bytes_per_second: 1 << 30,
        tokens: Some(10_000),
        time: Some(Duration::from_secs(5)),
        ..Limits::default()
    };
    let settings = TypeSettings { limits, hibernates, expected: 1, ..TypeSettings::new("t", "fake") };
    SANDBOX.node_type(settings, module)
}

/// One isolate of it; what its start code does may be refused.
pub fn spawn(node_type: &Arc<NodeType>) -> Option<Arc<Isolate>> {
    RUNTIME.block_on(node_type.spawn(1)).ok().map(|mut spawned| spawned.isolates.remove(0))
}

/// Asks an isolate and reads its answer to the end. Whatever its guest does, the host is well afterwards.
pub fn ask(isolate: &Isolate, prompt: String) -> Result<String, InferenceError> {
    let request = GenerateRequest {
        id: "r".into(),
        model: "fake".into(),
        node_type: None,
        prompt: Prompt::Text(prompt),
        sampling: Sampling { max_tokens: Some(8), ..Sampling::default() },
        share: Share::default(),
        deadline: Some(Instant::now() + Duration::from_secs(10)),
        routing: llambo_inference::Routing::default(),
        priority: Priority::default(),
        journal: None,
        log: None,
    };
    let answer = RUNTIME.block_on(async {
        let mut events = isolate.generate(request).await?;
        let mut text = String::new();
        while let Some(event) = events.next().await {
            if let AnswerEvent::Piece { text: piece, .. } = event? {
                text.push_str(&piece);
            }
        }
        Ok(text)
    });
    if let Err(InferenceError::Backend(what)) = &answer {
        panic!("the host failed: {what}");
    }
    assert_eq!(ENGINE.load().n_running, 0, "a generation outlived its request");
    assert!(matches!(isolate.view().state, NodeState::Ready | NodeState::Starting), "{:?}", isolate.view());
    answer
}

/// Guests that end badly rest after a while, and a rest is not what is tested: then the next isolate takes over.
const BAD_PROGRAMS: usize = 2;

/// A guest that makes any calls, as the bytes it is given say.
pub struct Caller {
    node_type: Arc<NodeType>,
    /// The isolate at work, and how many of its programs ended badly.
    isolate: RefCell<Option<(Arc<Isolate>, usize)>>,
}

impl Caller {
    pub fn new(module: &'static [u8]) -> Self {
        let node_type = node_type(Module::from_bytes("caller", module), false).expect("the guest that makes calls is one");
        Self { node_type, isolate: RefCell::default() }
    }

    /// Runs one program. Guests want it in hexadecimal.
    pub fn run(&self, program: &[u8]) {
        let mut kept = self.isolate.borrow_mut();
        let (isolate, n_bad) = kept
            .take()
            .filter(|(_, n_bad)| *n_bad < BAD_PROGRAMS)
            .unwrap_or_else(|| (spawn(&self.node_type).expect("there is room for one"), 0));
        let hex = program.iter().map(|byte| format!("{byte:02x}")).collect();
        let is_bad = ask(&isolate, hex).is_err();
        *kept = Some((isolate, n_bad + usize::from(is_bad)));
    }
}

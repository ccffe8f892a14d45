//! What fuzz targets share: isolates on an engine without a model, small limits, one request after the other.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use futures::StreamExt;
use llambo_inference::{
    AnswerEvent, GenerateRequest, InferenceEngine, InferenceError, Models, Node, NodeState, Prompt, Sampling, Share, fake::FakeEngine,
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
    let settings = TypeSettings {
        name: "t".into(),
        id_stem: "t".into(),
        model: "fake".into(),
        serves: "fake".into(),
        may_ask: None,
        limits,
        weight: 1.0,
        tenant: "default".into(),
        tenant_weight: 1.0,
        args: vec!["default".into(), "{prompt}".into()],
        env: Vec::new(),
        hibernates,
        expected: 1,
    };
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

/// As guests that make any calls want their program.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = std::fmt::Write::write_fmt(&mut hex, format_args!("{byte:02x}"));
        hex
    })
}

/// An isolate that makes any calls, made once; it never rests, since every program is its own request's fault.
pub fn caller(module: &'static [u8], name: &str) -> Arc<NodeType> {
    node_type(Module::from_bytes(name, module), false).expect("the guest that makes calls is one")
}

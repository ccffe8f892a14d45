//! Each budget of an isolate, used up once over gRPC: its own reason, and the same isolate answers the next request.

use llambo_client::{Ask, Code};
use llambo_tests::{Host, guest};

/// Grows its table by as many elements as it may have.
const TABLES: &str = r#"(module (memory (export "memory") 1) (table 1 funcref)
    (func (export "_start") (drop (table.grow (ref.null func) (i32.const 100000)))))"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_budget_that_is_used_up_says_which_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let tables = folder.path().join("tables.wasm");
    std::fs::write(&tables, wat::parse_str(TABLES).unwrap()).unwrap();
    let (tables, hostile) = (tables.display(), guest("hostile").display().to_string());
    let host = Host::start(&format!(
        "
models: [{{name: demo-small, path: builtin:demo-small, sequences: 32}}]
types:
  memory: {{count: 1, module: {hostile}, memory: 2MB}}
  tables: {{count: 1, module: {tables}, table-elements: 1000}}
  stack: {{count: 1, module: {hostile}, stack: 64KB}}
  cpu: {{count: 1, module: {hostile}, cpu-seconds: 0.2}}
  calls: {{count: 1, module: {hostile}, host-calls-per-second: 100}}
  output: {{count: 1, module: {hostile}, max-output: 1KB, host-calls-per-second: 1000000}}
  tokens: {{count: 1, max-tokens: 10}}
  kv: {{count: 1, max-kv: 16KB}}
  time: {{count: 1, module: {hostile}, max-time: 50ms}}
  poor: {{count: 1, tenant: poor}}
tenants: {{poor: {{max-tokens: 5}}}}
"
    ));
    let client = host.client().await;
    let cases = [
        ("memory", "grow", "MEMORY_EXHAUSTED"),
        ("tables", "anything", "TABLE_EXHAUSTED"),
        ("stack", "recurse", "STACK_EXHAUSTED"),
        ("cpu", "loop", "CPU_EXHAUSTED"),
        ("calls", "flood", "HOST_CALLS_EXHAUSTED"),
        ("output", "output", "OUTPUT_EXHAUSTED"),
        ("tokens", "A trait is", "TOKENS_EXHAUSTED"),
        ("kv", "A trait is", "KV_EXHAUSTED"),
        // what the tenant allows is less than what the type does
        ("poor", "A trait is", "TOKENS_EXHAUSTED"),
    ];
    for (name, prompt, reason) in cases {
        let used_up = client.infer(Ask::text(prompt).node_type(name).max_tokens(64).temperature(0.0)).await.unwrap_err();
        assert_eq!((used_up.reason(), used_up.code()), (reason, Code::Aborted), "{name}: {used_up}");
    }
    let late = client.infer(Ask::text("loop").node_type("time")).await.unwrap_err();
    assert_eq!((late.reason(), late.code()), ("DEADLINE_EXCEEDED", Code::DeadlineExceeded), "{late}");
    // the smallest of type and request counts as well
    let short = client.infer(Ask::text("A trait is").node_type("tokens").max_tokens(10).temperature(0.0)).await.unwrap();
    assert_eq!(short.usage.unwrap().output_tokens, 10);
    for name in ["memory", "stack", "cpu", "calls", "output", "time"] {
        assert_eq!(client.infer(Ask::text("stateful").node_type(name)).await.unwrap().text, "1", "{name}");
    }
    // each is counted by its reason
    let metrics = String::from_utf8(
        host.llamboctl(&["metrics", "--http", &format!("http://{}", host.http()), "--export", "prometheus"]).stdout,
    )
    .unwrap();
    for reason in cases.map(|(_, _, reason)| reason) {
        let counted = metrics.lines().any(|line| line.starts_with("llambo_isolate_replaced_total") && line.contains(reason));
        assert!(counted, "{reason} in {metrics}");
    }
}

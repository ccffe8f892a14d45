use futures::future::join_all;
use llambo_client::{Ask, Code};
use llambo_tests::{Host, eventually, guest};

use super::is_well;

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_misbehave_has_its_reason_while_others_are_served() {
    let module = guest("hostile");
    let host = Host::start(&format!(
        "models: [{{name: demo-small, path: builtin:demo-small, sequences: 32}}]
types:
  tiny: {{count: 8}}
  hostile: {{count: 8, module: {module:?}, memory: 4MB, cpu-seconds: 0.3, host-calls-per-second: 2000, max-output: 64KB}}
balancing: {{attempts: 1}}"
    ));
    let client = host.client().await;
    let good = join_all((0..8).map(|i| client.infer(Ask::text("A trait is").node_type("tiny").max_tokens(80).seed(i))));
    let bad = async {
        let cases = [
            ("loop", "CPU_EXHAUSTED"),
            ("grow", "MEMORY_EXHAUSTED"),
            ("recurse", "STACK_EXHAUSTED"),
            ("trap", "GUEST_TRAP"),
            ("flood", "HOST_CALLS_EXHAUSTED"),
            ("output", "OUTPUT_EXHAUSTED"),
            ("leak", "MEMORY_EXHAUSTED"),
        ];
        for (prompt, reason) in cases {
            // more calls a second than are allowed end a guest that leaks or talks before its other limit does
            let error = client.infer(Ask::text(prompt).node_type("hostile")).await.unwrap_err();
            let calls = matches!(prompt, "leak" | "output") && error.reason() == "HOST_CALLS_EXHAUSTED";
            assert!(error.reason() == reason || calls, "{prompt}: {} ({error})", error.reason());
            assert_eq!(error.code(), Code::Aborted, "{error}");
        }
        let missing = client.infer(Ask::text("bad-model").node_type("hostile")).await.unwrap_err();
        assert_eq!((missing.code(), missing.reason()), (Code::NotFound, "UNKNOWN_MODEL"), "{missing}");
        let options = client.infer(Ask::text("bad-options").node_type("hostile")).await.unwrap_err();
        assert_eq!(options.code(), Code::Aborted, "{options}");
    };
    let (good, ()) = futures::join!(good, bad);
    for answer in good {
        answer.expect("others are served");
    }
    for (prompt, text) in [("half-utf8", "🦙"), ("not-utf8", "a\u{fffd}\u{fffd}b\u{fffd}"), ("hello", "hello")] {
        assert_eq!(client.infer(Ask::text(prompt).node_type("hostile")).await.unwrap().text, text);
    }
    eventually("every guest that was ended is replaced", async || {
        let nodes = client.nodes(&llambo_client::NodeFilter::default()).await.unwrap();
        nodes.iter().map(|n| n.replaced).sum::<u64>() == 7 && nodes.iter().all(|n| n.state == "ready")
    })
    .await;
    is_well(&client).await;
}

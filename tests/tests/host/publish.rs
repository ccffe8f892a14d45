//! Guests that clients publish while the host runs.

use std::{fs, time::Duration};

use llambo_client::{Ask, Client, Code, NewModule, NodeFilter};
use llambo_tests::{Host, eventually, guest};

use super::is_well;

const CONFIG: &str = "
models: [{name: demo-small, path: builtin:demo-small, sequences: 32}]
types:
  tiny: {count: 2}
  guests: {count: 0, memory: 8MB, cpu-seconds: 0.3, max-tokens: 16}
modules: {types: [guests], count: 3, versions: 1, max-size: 4MB, max-names: 2}
";

fn wasm(name: &str) -> Vec<u8> {
    fs::read(guest(name)).unwrap()
}

async fn answer(client: &Client, model: &str) -> (String, String) {
    let answer = client.infer(Ask::text("A trait is").model(model).max_tokens(8).temperature(0.0)).await.unwrap();
    assert_eq!(answer.model, model);
    (answer.text, answer.node)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_becomes_a_model_is_replaced_put_back_and_taken_away() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    let done = client.load_module(NewModule::new("agent", wasm("default-engine"))).await.unwrap();
    let module = done.module.unwrap();
    assert_eq!((module.version, module.nodes, module.state.as_str(), module.kind.as_str()), (1, 3, "serving", "component"));
    assert_eq!((module.r#type.as_str(), module.model.as_str(), done.replaced_version), ("guests", "demo-small", 0));
    let trial = done.trial.unwrap();
    assert!(trial.output_tokens == 8 && trial.gave_up.is_empty() && !trial.text.is_empty(), "{trial:?}");
    let (text, node) = answer(&client, "agent").await;
    assert_eq!((text, &node[..8]), (answer(&client, "demo-small").await.0, "agent.1-"));
    let listed = client.models().await.unwrap();
    assert!(listed.iter().any(|model| model.name == "agent" && model.parent == "demo-small"), "{listed:?}");

    // the limits are those of its type
    let refused = client.infer(Ask::text("A trait is").model("agent").max_tokens(17).temperature(0.0)).await.unwrap_err();
    assert_eq!(refused.reason(), "TOKENS_EXHAUSTED");
    client.scale("agent", 5).await.unwrap();
    let done = client.load_module(NewModule::new("agent", wasm("wasmedge")).trial_prompt("complete Hello")).await.unwrap();
    let module = done.module.unwrap();
    assert_eq!((module.version, module.nodes, module.kind.as_str(), done.replaced_version), (2, 5, "command", 1));
    let command = client.infer(Ask::text("complete A trait is").model("agent").max_tokens(8)).await.unwrap();
    assert!(command.node.starts_with("agent.2-") && !command.text.is_empty(), "{command:?}");

    let back = client.roll_back_module("agent", None).await.unwrap();
    assert_eq!((back.module.unwrap().version, back.replaced_version), (1, 2));
    assert!(answer(&client, "agent").await.1.starts_with("agent.1-"));
    let refused = client.roll_back_module("agent", None).await.unwrap_err();
    assert_eq!((refused.code(), refused.reason()), (Code::NotFound, "UNKNOWN_VERSION"), "{refused}");
    let versions: Vec<_> = client.modules().await.unwrap().into_iter().map(|m| (m.version, m.state, m.nodes)).collect();
    assert_eq!(versions, [(2, "kept".to_owned(), 0), (1, "serving".to_owned(), 5)]);

    assert_eq!(client.unload_module("agent").await.unwrap().draining, 5);
    let gone = client.infer(Ask::text("x").model("agent")).await.unwrap_err();
    assert_eq!(gone.reason(), "UNKNOWN_MODEL", "{gone}");
    eventually("its isolates are gone", async || client.nodes(&NodeFilter::default()).await.unwrap().len() == 2).await;
    let again = client.load_module(NewModule::new("agent", wasm("default-engine"))).await.unwrap();
    assert_eq!(again.module.unwrap().version, 3);
    is_well(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_published_is_refused_and_changes_nothing() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    client.load_module(NewModule::new("agent", wasm("default-engine"))).await.unwrap();
    let good = || NewModule::new("other", wasm("default-engine"));
    let importing =
        wat::parse_str(r#"(module (import "env" "open" (func)) (memory (export "memory") 1) (func (export "_start")))"#);
    let large = wat::parse_str(r#"(module (memory (export "memory") 4096) (func (export "_start")))"#);
    let cases = [
        (NewModule::new("Agent!", wasm("default-engine")), "INVALID_REQUEST", "lower-case letter"),
        (NewModule::new("", wasm("default-engine")), "INVALID_REQUEST", "`name` is empty"),
        (NewModule::new("other", Vec::new()), "INVALID_REQUEST", "`wasm` is empty"),
        (NewModule::new("demo-small", wasm("default-engine")), "NAME_TAKEN", "the name of a model of this host"),
        (NewModule::new("tiny", wasm("default-engine")), "NAME_TAKEN", "the name of a type of this host"),
        (good().node_type("tiny"), "NOT_PERMITTED", "`modules.types`"),
        (good().count(200_001), "INVALID_REQUEST", "at most 200000"),
        (NewModule::new("other", vec![0; 5 << 20]), "INVALID_REQUEST", "`modules.max-size`"),
        (NewModule::new("other", b"not wasm".to_vec()), "INVALID_MODULE", "it is not WebAssembly"),
        (NewModule::new("other", wasm("default-engine")[..5000].to_vec()), "INVALID_MODULE", "`other` cannot be used"),
        (NewModule::new("other", importing.unwrap()), "INVALID_MODULE", "env"),
        (NewModule::new("other", large.unwrap()), "INVALID_MODULE", "memory"),
        (NewModule::new("other", wasm("hostile")).trial_prompt("trap"), "TRIAL_FAILED", "GUEST_TRAP"),
        (NewModule::new("other", wasm("hostile")).trial_prompt("loop"), "TRIAL_FAILED", "CPU_EXHAUSTED"),
        // another version that does not stand its trial leaves the old one where it is
        (NewModule::new("agent", wasm("hostile")).trial_prompt("grow"), "TRIAL_FAILED", "MEMORY_EXHAUSTED"),
    ];
    for (module, reason, told) in cases {
        let refused = client.load_module(module).await.unwrap_err();
        assert!(refused.reason() == reason && refused.to_string().contains(told), "{reason}: {refused}");
    }
    client.load_module(NewModule::new("other", wasm("hostile")).without_trial()).await.unwrap();
    let full = client.load_module(NewModule::new("third", wasm("default-engine"))).await.unwrap_err();
    assert_eq!((full.code(), full.reason()), (Code::ResourceExhausted, "TOO_MANY_MODULES"), "{full}");
    let unknown = client.unload_module("nothing").await.unwrap_err();
    assert!(unknown.reason() == "UNKNOWN_MODULE" && unknown.to_string().contains("agent, other"), "{unknown}");
    assert_eq!(client.roll_back_module("nothing", Some(1)).await.unwrap_err().reason(), "UNKNOWN_MODULE");
    assert!(answer(&client, "agent").await.1.starts_with("agent.1-"));

    let shut = Host::start(&CONFIG.replace("modules: {", "modules: {publish: false, "));
    let refused = shut.client().await.load_module(good()).await.unwrap_err();
    assert_eq!((refused.code(), refused.reason()), (Code::PermissionDenied, "NOT_PERMITTED"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_on_while_modules_are_swapped() {
    let host = Host::start(CONFIG);
    let client = host.client().await;
    client.load_module(NewModule::new("agent", wasm("default-engine"))).await.unwrap();
    let asking = async {
        let mut nodes = std::collections::BTreeSet::new();
        for _ in 0..120 {
            nodes.insert(answer(&client, "agent").await.1.split('-').next().unwrap().to_owned());
        }
        nodes
    };
    let swapping = async {
        for _ in 0..4 {
            client.load_module(NewModule::new("agent", wasm("default-engine"))).await.unwrap();
            client.roll_back_module("agent", None).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (nodes, ()) = futures::join!(asking, swapping);
    assert!(nodes.len() >= 2, "{nodes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = CONFIG.replace("modules: {", &format!("modules: {{folder: {:?}, ", folder.path()));
    let host = Host::start(&config);
    let client = host.client().await;
    for _ in 0..2 {
        client.load_module(NewModule::new("agent", wasm("default-engine")).count(5)).await.unwrap();
    }
    // what did not stand its trial leaves nothing behind
    client.load_module(NewModule::new("bad", wasm("hostile")).trial_prompt("trap")).await.unwrap_err();
    assert!(!folder.path().join("bad").exists());
    client.load_module(NewModule::new("broken", wasm("default-engine"))).await.unwrap();
    client.roll_back_module("agent", None).await.unwrap();
    drop((client, host));
    fs::write(folder.path().join("broken/1.wasm"), b"\0asm").unwrap();

    let host = Host::start(&config);
    let client = host.client().await;
    assert!(answer(&client, "agent").await.1.starts_with("agent.1-"));
    let versions: Vec<_> = client.modules().await.unwrap().into_iter().map(|m| (m.name, m.version, m.state)).collect();
    let expected = [("agent", 2, "kept"), ("agent", 1, "serving")].map(|(name, n, state)| (name.to_owned(), n, state.to_owned()));
    assert_eq!(versions, expected);
    assert_eq!(client.nodes(&NodeFilter { node_type: "agent".into(), ..NodeFilter::default() }).await.unwrap().len(), 5);
    client.roll_back_module("agent", Some(2)).await.unwrap();
    assert!(answer(&client, "agent").await.1.starts_with("agent.2-"));
    client.unload_module("agent").await.unwrap();
    assert!(!folder.path().join("agent").exists());
}

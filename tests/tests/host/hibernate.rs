//! Isolates put aside in one host process and woken in another.

use std::fs;

use llambo_client::{Ask, Code, NodeFilter};
use llambo_tests::{Host, guest};

fn config(folder: &std::path::Path, module: &str, hibernate: bool) -> String {
    let (module, folder) = (guest(module).display().to_string(), folder.display().to_string());
    format!(
        "
models: [{{name: demo-small, path: builtin:demo-small, sequences: 8}}]
types:
  agents: {{count: 1, module: {module:?}, hibernate: {hibernate}}}
hibernation: {{folder: {folder:?}}}
"
    )
}

/// A text long enough for what was computed for it to be kept.
const PAGE: &str = "diary The quick brown fox jumps over the lazy dog, and then it goes home and writes all of that down, word by word, \
                    until the page is full and the candle is short.";

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_goes_to_sleep_in_one_process_and_wakes_in_another_with_what_its_model_computed() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start(&config(folder.path(), "branches", true));
    let client = host.client().await;
    let first = client.infer(Ask::text(PAGE).max_tokens(8).temperature(0.0)).await.unwrap();
    let before = first.usage.unwrap();
    assert_eq!((first.node.as_str(), before.cached_tokens), ("agents-1", 0));
    let done = client.hibernate(Vec::new(), "agents").await.unwrap();
    assert!(done.hibernated == 1 && done.n_refused == 0 && done.bytes > 50_000, "{done:?}");
    let nodes = client.nodes(&NodeFilter::default()).await.unwrap();
    assert_eq!((nodes[0].state.as_str(), nodes[0].memory_bytes), ("hibernated", 0));
    // it ends as hosts end: what is put aside stays
    host.signal("TERM");
    assert!(host.wait().0.success());

    let host = Host::start(&config(folder.path(), "branches", true));
    let client = host.client().await;
    let nodes = client.nodes(&NodeFilter { state: "hibernated".into(), ..NodeFilter::default() }).await.unwrap();
    assert_eq!((nodes.len(), nodes[0].id.as_str()), (1, "agents-1"));
    assert_eq!(
        client.nodes(&NodeFilter::default()).await.unwrap().len(),
        1,
        "one that was put aside is one of those that there should be"
    );
    let second = client.infer(Ask::text("diary And on.").max_tokens(8).temperature(0.0)).await.unwrap();
    assert_eq!(second.node, "agents-1");
    let pages = second.text.split(": ").next().unwrap();
    assert!(pages.ends_with("the candle is short.|And on."), "{}", second.text);
    let usage = second.usage.unwrap();
    assert!(usage.cached_tokens >= before.input_tokens && usage.cached_tokens > 32, "{usage:?}, before {before:?}");
    assert!(fs::read_dir(folder.path()).unwrap().all(|entry| entry.unwrap().file_name() == "lock"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_by_name_and_stays() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let host = Host::start(&config(folder.path(), "branches", true));
    let client = host.client().await;
    client.infer(Ask::text(PAGE).max_tokens(8)).await.unwrap();
    client.hibernate(vec!["agents-1".into()], "").await.unwrap();
    let unknown = client.hibernate(vec!["agents-7".into()], "").await.unwrap_err();
    assert_eq!((unknown.code(), unknown.reason()), (Code::NotFound, "UNKNOWN_NODE"));
    assert_eq!(client.hibernate(Vec::new(), "").await.unwrap_err().reason(), "INVALID_REQUEST");
    // two hosts must not wake the same isolate
    let config_file = folder.path().join("config.yaml");
    fs::write(&config_file, config(folder.path(), "branches", true) + "\nnetwork: {grpc: 127.0.0.1:0, http: 127.0.0.1:0}\n")
        .unwrap();
    let second = llambo_tests::llambo(&["serve", "--config", config_file.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && told.contains("another host uses it"), "{told}");

    // handed over to a host whose agents are of another module
    let stranger = Host::start(&config(other.path(), "hostile", true));
    fs::rename(folder.path().join("agents-1.isolate"), other.path().join("moved.isolate")).unwrap();
    fs::write(other.path().join("not-one.isolate"), "something else").unwrap();
    // a pipe by such a name is nobody's, and is not waited for
    assert!(std::process::Command::new("mkfifo").arg(other.path().join("pipe.isolate")).status().unwrap().success());
    let done = stranger.client().await.adopt().await.unwrap();
    assert_eq!((done.n_adopted, done.n_refused), (0, 2));
    assert!(done.refused[0].message.contains("the SHA-256 of its module is"), "{done:?}");
    assert!(done.refused[1].message.contains("it does not begin as one"), "{done:?}");
    // and back: nothing was lost
    fs::rename(other.path().join("moved.isolate"), folder.path().join("back.isolate")).unwrap();
    let failed = client.infer(Ask::text("diary And on.")).await.unwrap_err();
    assert_eq!((failed.code(), failed.reason()), (Code::Aborted, "WAKE_FAILED"), "{failed}");
    let done = host.json(&["wake", "--adopt"]);
    assert_eq!((done["n_adopted"].as_u64(), done["adopted"][0].as_str()), (Some(1), Some("agents-2")));
    let woken = client.infer(Ask::text("diary And on.").max_tokens(8)).await.unwrap();
    assert!(woken.node == "agents-2" && woken.text.contains("|And on."), "{woken:?}");
}

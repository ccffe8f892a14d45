//! Models that come and go while a host runs.

use std::{fs, path::Path};

use futures::{StreamExt, future::join_all};
use llambo_catalog::{Builtin, Entry, ModelFile, Register};
use llambo_client::{Ask, Client, Code, Event, LoadModel, Model, NodeFilter};
use llambo_tests::Host;
use tempfile::TempDir;

use super::{is_well, read};

/// A catalog with copies of the small model under each of these names.
fn catalog(names: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let register = Register::at(folder.path().join("catalog.json"));
    for name in names {
        let path = folder.path().join(format!("{name}.gguf"));
        fs::write(&path, Builtin::DemoSmall.bytes()).unwrap();
        register.insert(name, &Entry::of(&ModelFile::open(&path).unwrap(), "a test".into(), false), false).unwrap();
    }
    folder
}

fn config(folder: &Path, more: &str) -> String {
    let file = folder.join("catalog.json").display().to_string();
    format!(
        "
models: [{{name: demo-small, path: builtin:demo-small, context: 256, sequences: 8, kv-memory: 0MB}}]
types: {{tiny: {{count: 4}}, guests: {{count: 0, memory: 8MB}}}}
catalog: {{file: {file:?}, types: [guests], count: 4, context: 256, sequences: 8{more}}}
"
    )
}

async fn ask(client: &Client, model: &str) -> Result<String, llambo_client::Error> {
    let asked = Ask::text("A trait is").model(model).max_tokens(24).temperature(0.0);
    client.infer(asked).await.map(|answer| answer.text)
}

async fn state(client: &Client, name: &str) -> Option<Model> {
    client.models().await.unwrap().into_iter().find(|model| model.name == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_the_catalog_is_loaded_put_aside_woken_pinned_and_retired() {
    let folder = catalog(&["one"]);
    let host = Host::start(&config(folder.path(), ""));
    let client = host.client().await;
    let reference = ask(&client, "demo-small").await.unwrap();
    assert_eq!(ask(&client, "one").await.unwrap_err().reason(), "UNKNOWN_MODEL");

    let done = client.load_model(LoadModel::new("one")).await.unwrap();
    let model = done.model.unwrap();
    assert_eq!((model.n_context, model.n_sequences, model.state.as_str()), (256, 8, "loaded"));
    assert!(!done.was_loaded && done.load_ms > 0.0 && model.memory_bytes > model.size_bytes / 2, "{model:?}");
    assert_eq!(ask(&client, "one").await.unwrap(), reference);
    let nodes = client.nodes(&NodeFilter { node_type: "one".into(), ..NodeFilter::default() }).await.unwrap();
    assert_eq!(nodes.len(), 4);
    assert!(client.load_model(LoadModel::new("one")).await.unwrap().was_loaded);

    let freed = client.unload_model("one", false).await.unwrap().freed_bytes;
    assert_eq!(freed, model.memory_bytes);
    assert_eq!(state(&client, "one").await.unwrap().state, "unloaded");
    // whoever asks has it loaded again
    assert_eq!(ask(&client, "one").await.unwrap(), reference);
    assert_eq!(state(&client, "one").await.unwrap().state, "loaded");

    client.pin_model("one", true).await.unwrap();
    let refused = client.unload_model("one", false).await.unwrap_err();
    assert_eq!((refused.code(), refused.reason()), (Code::FailedPrecondition, "MODEL_PINNED"), "{refused}");
    assert_eq!(client.unload_model("one", true).await.unwrap_err().reason(), "MODEL_PINNED");
    client.pin_model("one", false).await.unwrap();
    assert_eq!(client.unload_model("one", true).await.unwrap().draining, 4);
    assert_eq!(ask(&client, "one").await.unwrap_err().reason(), "UNKNOWN_MODEL");
    assert!(state(&client, "one").await.is_none());
    assert_eq!(client.nodes(&NodeFilter::default()).await.unwrap().len(), 4);
    // and it may come again
    client.load_model(LoadModel { count: 1, pin: true, ..LoadModel::new("one") }).await.unwrap();
    assert_eq!(ask(&client, "one").await.unwrap(), reference);
    assert!(state(&client, "one").await.unwrap().pinned);
    is_well(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_keeps_its_model() {
    let folder = catalog(&["one"]);
    let host = Host::start(&config(folder.path(), ""));
    let client = host.client().await;
    client.load_model(LoadModel::new("one")).await.unwrap();
    let long = || Ask::text("A trait is").model("one").max_tokens(200).temperature(0.0).options(|o| o.ignore_eos = true);
    let (reference, _) = read(client.generate(long()).await.unwrap()).await.unwrap();
    let mut answer = client.generate(long()).await.unwrap();
    let mut text = String::new();
    while text.is_empty() {
        if let Event::Piece(piece) = answer.next().await.unwrap().unwrap() {
            text.push_str(&piece.text);
        }
    }
    let leaving = tokio::spawn({
        let client = client.clone();
        async move { client.unload_model("one", false).await }
    });
    let late = ask(&client, "one");
    let (rest, late) = tokio::join!(read(answer), late);
    text.push_str(&rest.unwrap().0);
    assert_eq!(text, reference);
    assert!(!late.unwrap().is_empty());
    leaving.await.unwrap().unwrap();
    is_well(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_models_take_turns_in_the_memory_there_is_and_each_answer_is_right() {
    let names = ["one", "two", "three"];
    let folder = catalog(&names);
    // each takes 64 MB of kept beginnings and a little more: two of them fit, three do not
    let host = Host::start(&config(folder.path(), ", memory: 160MB"));
    let client = host.client().await;
    let reference = ask(&client, "demo-small").await.unwrap();
    for name in names {
        client.load_model(LoadModel::new(name)).await.unwrap();
    }
    assert_eq!(state(&client, "one").await.unwrap().state, "unloaded", "the last one had no room beside the others");
    assert_eq!(state(&client, "demo-small").await.unwrap().state, "loaded", "what is small need not go");
    let asks = (0..90).map(|i: usize| {
        let (client, name) = (client.clone(), names[i * 7 % 3]);
        tokio::spawn(async move {
            if i % 20 == 19 {
                client.unload_model(name, false).await.unwrap();
            }
            ask(&client, name).await
        })
    });
    for answer in join_all(asks).await {
        assert_eq!(answer.unwrap().unwrap(), reference);
    }
    let loaded = client.models().await.unwrap().into_iter().filter(|model| model.state == "loaded");
    assert!(loaded.map(|model| model.memory_bytes).sum::<u64>() <= 160 << 20);

    // two that are pinned leave no room for the third
    for name in ["one", "two"] {
        client.load_model(LoadModel { pin: true, ..LoadModel::new(name) }).await.unwrap();
    }
    let refused = client.load_model(LoadModel::new("three")).await.unwrap_err();
    assert_eq!((refused.code(), refused.reason()), (Code::ResourceExhausted, "NO_MODEL_MEMORY"), "{refused}");
    let refused = ask(&client, "three").await.unwrap_err();
    assert_eq!(refused.reason(), "NO_MODEL_MEMORY", "{refused}");
    assert_eq!(ask(&client, "one").await.unwrap(), reference);
    is_well(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unloaded_gives_its_memory_back() {
    let folder = catalog(&["one"]);
    let host = Host::start(&config(folder.path(), ""));
    let client = host.client().await;
    let resident = async || client.status().await.unwrap().resident_bytes;
    // the KV cache of so many sequences is most of it
    client.load_model(LoadModel { sequences: 256, ..LoadModel::new("one") }).await.unwrap();
    ask(&client, "one").await.unwrap();
    let before = resident().await;
    let kept = 64 << 20;
    let freed = client.unload_model("one", false).await.unwrap().freed_bytes - kept;
    let after = resident().await;
    assert!(freed > 8 << 20, "{freed}");
    assert!(before.saturating_sub(after) > freed / 2, "{before} -> {after}, and {freed} should be free");
    is_well(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_loaded_is_refused_and_changes_nothing() {
    let folder = catalog(&["one", "gone", "changed", "tiny"]);
    fs::remove_file(folder.path().join("gone.gguf")).unwrap();
    fs::write(folder.path().join("changed.gguf"), Builtin::Demo.bytes()).unwrap();
    let host = Host::start(&config(folder.path(), ""));
    let client = host.client().await;
    let wanted = LoadModel::new;
    for (wanted, reason, told) in [
        (wanted("nobody"), "UNKNOWN_MODEL", "`one`"),
        (wanted("gone"), "MODEL_UNLOADABLE", "is gone"),
        (wanted("changed"), "MODEL_UNLOADABLE", "not the file that was registered"),
        (wanted("tiny"), "NAME_TAKEN", "another name"),
        (LoadModel { node_type: "tiny".into(), ..wanted("one") }, "NOT_PERMITTED", "`catalog.types`"),
        (LoadModel { context: 1 << 20, ..wanted("one") }, "INVALID_REQUEST", "was trained for"),
        (LoadModel { sequences: 257, ..wanted("one") }, "INVALID_REQUEST", "between 1 and 256"),
        (wanted(""), "INVALID_REQUEST", "is empty"),
    ] {
        let refused = client.load_model(wanted.clone()).await.unwrap_err();
        assert_eq!(refused.reason(), reason, "{wanted:?}: {refused}");
        assert!(refused.to_string().contains(told), "{refused}");
    }
    assert_eq!(client.unload_model("demo-small", true).await.unwrap_err().reason(), "NOT_PERMITTED");
    assert_eq!(client.unload_model("nobody", false).await.unwrap_err().reason(), "UNKNOWN_MODEL");
    assert_eq!(client.models().await.unwrap().len(), 1);
    drop(host);
    let host = Host::start(&config(folder.path(), ", load: false"));
    let client = host.client().await;
    assert_eq!(client.load_model(wanted("one")).await.unwrap_err().reason(), "NOT_PERMITTED");
    assert_eq!(client.unload_model("demo-small", false).await.unwrap_err().reason(), "NOT_PERMITTED");
    is_well(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_names_a_model_of_the_catalog_and_operators_type_its_name() {
    let folder = catalog(&["one", "two"]);
    let text = config(folder.path(), "").replace("{name: demo-small, path: builtin:demo-small", "{path: 'catalog:one'");
    let host = Host::start(&text);
    let client = host.client().await;
    assert!(!ask(&client, "one").await.unwrap().is_empty());
    let loaded = host.json(&["models", "load", "two", "--count", "2", "--pin"]);
    assert_eq!((loaded["model"]["name"].as_str(), loaded["was_loaded"].as_bool()), (Some("two"), Some(false)));
    let listed = host.json(&["models", "list"]);
    assert_eq!(listed[1]["state"], "loaded");
    assert_eq!(listed[1]["pinned"], true);
    host.json(&["models", "unpin", "two"]);
    assert!(host.json(&["models", "unload", "two"])["freed_bytes"].as_u64().unwrap() > 0);
    assert!(!ask(&client, "two").await.unwrap().is_empty());
    let gone = host.json(&["models", "unload", "two", "--retire"]);
    assert_eq!(gone["draining"], 2);
}

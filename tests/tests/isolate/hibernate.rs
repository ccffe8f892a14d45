//! Isolates put aside on disk and woken: with what is in their memory and their globals, and the branches that they keep.

use std::{fs, path::Path};

use llambo_isolate::{Dormitory, Sleeper};

use super::*;

/// A sandbox that puts isolates aside in `folder`, and one type of it.
fn hibernating(models: &Models, module: &str, folder: &Path, limits: Limits) -> Result<Arc<NodeType>, SandboxError> {
    let module = Module::open(&guest(module)).unwrap();
    let dormitory = Arc::new(Dormitory::open(folder).unwrap());
    let sandbox = Sandbox::new(models.clone(), None)?.with_dormitory(dormitory);
    sandbox.node_type(TypeSettings { hibernates: true, ..settings(limits, 1) }, module)
}

async fn spawn(node_type: &Arc<NodeType>) -> Arc<Isolate> {
    node_type.spawn(1).await.unwrap().isolates.remove(0)
}

async fn says(isolate: &Isolate, prompt: &str) -> Result<String, InferenceError> {
    read(isolate.generate(ask(prompt, 2)).await?).await.map(|(text, _)| text)
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".isolate")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_isolate_that_was_put_aside_goes_on_where_it_was() {
    let (folder, (models, _)) = (tempfile::tempdir().unwrap(), models());
    let node_type = hibernating(&models, "branches", folder.path(), Limits::default()).unwrap();
    let isolate = spawn(&node_type).await;
    assert_eq!(says(&isolate, "diary one").await.unwrap(), "one: 5 one\u{1}\u{2}");
    let n_bytes = isolate.hibernate().await.unwrap();
    assert!(n_bytes > 4096, "{n_bytes}");
    assert_eq!((isolate.view().state, isolate.view().memory_bytes), (NodeState::Hibernated, 0));
    assert_eq!((files(folder.path()), isolate.hibernate().await.unwrap()), (vec!["t-1.isolate".to_owned()], 0));
    // the next request wakes it
    let grown = says(&isolate, "diary two").await.unwrap();
    assert!(grown.starts_with("one|two: 10 one") && grown.contains("two"), "{grown}");
    assert!(files(folder.path()).is_empty() && isolate.view().memory_bytes > 0);
    // and so does somebody who only wants it awake
    isolate.hibernate().await.unwrap();
    assert!(isolate.wake().await.unwrap() > 0);
    assert_eq!((isolate.wake().await.unwrap(), isolate.view().state), (0, NodeState::Ready));
    assert!(says(&isolate, "diary three").await.unwrap().starts_with("one|two|three: 17 one"));
    assert_eq!(isolate.view().replaced, 0);
}

#[tokio::test]
async fn memory_that_grew_comes_back_as_it_was() {
    let (folder, (models, _)) = (tempfile::tempdir().unwrap(), models());
    let node_type = hibernating(&models, "branches", folder.path(), Limits::default()).unwrap();
    let isolate = spawn(&node_type).await;
    // of several megabytes, and of every place in a block
    let long = "abcdefghij".repeat(50);
    for _ in 0..40 {
        says(&isolate, &format!("append {long}")).await.unwrap();
        says(&isolate, "diary x").await.unwrap();
    }
    let before = isolate.view().memory_bytes;
    let told = says(&isolate, "diary y").await.unwrap();
    isolate.hibernate().await.unwrap();
    let after = says(&isolate, "diary z").await.unwrap();
    assert!(isolate.view().memory_bytes >= before);
    let pages = |told: &str| told.split(':').next().unwrap().to_owned();
    assert_eq!(pages(&after), format!("{}|z", pages(&told)));
}

#[tokio::test]
async fn a_program_has_nothing_to_keep_and_wakes_all_the_same() {
    let (folder, (models, _)) = (tempfile::tempdir().unwrap(), models());
    let node_type = hibernating(&models, "wasmedge", folder.path(), Limits::default()).unwrap();
    let isolate = spawn(&node_type).await;
    assert!(isolate.hibernate().await.unwrap() < 1024);
    assert!(says(&isolate, "complete hello").await.unwrap().contains("word1 word2"));
}

#[tokio::test]
async fn what_cannot_be_put_aside_is_refused_and_goes_on() {
    let (folder, (models, _)) = (tempfile::tempdir().unwrap(), models());
    let node_type = hibernating(&models, "branches", folder.path(), Limits::default()).unwrap();
    let isolate = spawn(&node_type).await;
    assert_eq!(says(&isolate, "save hello").await.unwrap(), "one,two");
    let held = isolate.hibernate().await.unwrap_err();
    assert!(held.reason() == "INVALID_REQUEST" && held.to_string().contains("`save` branches"), "{held}");
    assert_eq!(says(&isolate, "restore").await.unwrap(), "hello 5 true false two");
    let events = isolate.generate(ask("fork hello", 100)).await.unwrap();
    assert_eq!(reason(isolate.hibernate().await), "FULL");
    drop(events);
    // a type that is not set up for it, and a host that has no folder
    let plain = one(&models, "branches", Limits::default()).await;
    assert!(plain.hibernate().await.unwrap_err().to_string().contains("hibernation.folder"));
    isolate.stop();
    assert_eq!(reason(isolate.hibernate().await), "STOPPED");
}

#[tokio::test]
async fn it_wakes_in_another_sandbox_of_the_same_kind_and_in_no_other() {
    let (folder, (first, _)) = (tempfile::tempdir().unwrap(), models());
    {
        let node_type = hibernating(&first, "branches", folder.path(), Limits::default()).unwrap();
        let isolate = spawn(&node_type).await;
        says(&isolate, "diary one").await.unwrap();
        isolate.hibernate().await.unwrap();
    }
    let file = folder.path().join("t-1.isolate");
    let (other, _) = models();
    let refused = |models: &Models, module: &str, limits: Limits, change: fn(&mut TypeSettings)| {
        let module = Module::open(&guest(module)).unwrap();
        let dormitory = Arc::new(Dormitory::open(folder.path()).unwrap());
        let mut settings = TypeSettings { hibernates: true, ..settings(limits, 1) };
        change(&mut settings);
        let sandbox = Sandbox::new(models.clone(), None).unwrap().with_dormitory(dormitory);
        let refused = sandbox.node_type(settings, module).unwrap().adopt(Sleeper::open(&file).unwrap());
        refused.map(|_| ()).unwrap_err().to_string()
    };
    let same = || Limits::default();
    let told = refused(&other, "hostile", same(), |_| ());
    assert!(told.contains("the SHA-256 of its module is"), "{told}");
    let told = refused(&other, "branches", same(), |settings| settings.tenant = "stranger".into());
    assert!(told.contains("its type's tenant is `stranger` here, and was `default`"), "{told}");
    let told = refused(&other, "branches", same(), |settings| settings.name = "u".into());
    assert!(told.contains("its node type is `u` here, and was `t`"), "{told}");
    let told = refused(&other, "branches", same(), |settings| settings.hibernates = false);
    assert!(told.contains("`hibernate: true`"), "{told}");
    let changed = Models::default();
    changed.insert(Arc::new(FakeEngine::new("fake", 32).with_digest("another")));
    let told = refused(&changed, "branches", same(), |_| ());
    assert!(told.contains("the SHA-256 of a model that it keeps branches of is another (`fake`) here"), "{told}");

    let node_type = hibernating(&other, "branches", folder.path(), Limits::default()).unwrap();
    let isolate = node_type.adopt(Sleeper::open(&file).unwrap()).unwrap();
    assert!(node_type.adopt(Sleeper::open(&file).unwrap()).map(|_| ()).unwrap_err().to_string().contains("of this host already"));
    assert_eq!(isolate.view().state, NodeState::Hibernated);
    assert!(says(&isolate, "diary two").await.unwrap().starts_with("one|two: 10 one"));
}

#[tokio::test]
async fn a_file_that_is_damaged_fails_its_isolate_alone_and_is_kept() {
    let (folder, (models, _)) = (tempfile::tempdir().unwrap(), models());
    let node_type = hibernating(&models, "branches", folder.path(), Limits::default()).unwrap();
    let (isolate, other) = (spawn(&node_type).await, spawn(&node_type).await);
    says(&isolate, "diary one").await.unwrap();
    isolate.hibernate().await.unwrap();
    let file = folder.path().join("t-1.isolate");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let lost = says(&isolate, "diary two").await.unwrap_err();
    assert!(lost.reason() == "WAKE_FAILED" && lost.to_string().contains("SHA-256 is wrong"), "{lost}");
    assert_eq!(isolate.view().state, NodeState::Failed);
    assert_eq!((files(folder.path()).len(), reason(says(&isolate, "diary two").await)), (1, "STOPPED"));
    assert!(says(&other, "diary two").await.is_ok());
    // one that is wanted no more takes its file along, unless the host ends
    other.hibernate().await.unwrap();
    other.stop();
    assert_eq!(files(folder.path()), ["t-1.isolate"]);
}

#[tokio::test]
async fn modules_whose_state_cannot_be_kept_are_refused_at_once() {
    let (folder, (models, _)) = (tempfile::tempdir().unwrap(), models());
    for module in ["default-engine", "best-of", "chooser", "tree-search", "draft-and-refine", "hostile"] {
        let node_type = hibernating(&models, module, folder.path(), Limits::default());
        drop(node_type.unwrap_or_else(|e| panic!("{module}: {e}")));
    }
    let changing = wat::parse_str(
        r#"(component (core module $m
            (table 1 funcref)
            (func (export "f") (table.set (i32.const 0) (ref.null func))))
            (core instance (instantiate $m)))"#,
    );
    let module = Module::from_bytes("changing", changing.unwrap());
    let settings = TypeSettings { hibernates: true, ..settings(Limits::default(), 1) };
    let refused = Sandbox::new(models, None).unwrap().node_type(settings, module).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("its code changes tables"), "{refused}");
}

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, future::join_all};
use llambo_inference::{
    AnswerEvent, AnswerStream, EmbedFuture, EngineLoad, ExtendRequest, GenerateRequest, InferenceEngine, InferenceError,
    MeasureFuture, MeasureRequest, ModelInfo, ModelName, Priority, Prompt, Routing, Sampling, Share, TokenId, fake::FakeEngine,
};
use tokio::time::timeout;

use super::*;

/// What each model of these tests takes.
const BYTES: u64 = 10;

/// Loads engines without models, and knows which are there.
#[derive(Default)]
struct Fakes {
    here: Arc<Mutex<BTreeSet<ModelName>>>,
    most: AtomicUsize,
    loads: AtomicU64,
    fails: AtomicBool,
}

/// An engine that is there until it is dropped.
struct Here {
    engine: FakeEngine,
    here: Arc<Mutex<BTreeSet<ModelName>>>,
}

impl Loader for Fakes {
    fn load(&self, model: &ModelName) -> Result<Arc<dyn InferenceEngine>, String> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        if self.fails.load(Ordering::Relaxed) {
            return Err("its file is gone".into());
        }
        let mut here = self.here.lock().unwrap();
        assert!(here.insert(model.clone()), "{model} was in memory already");
        self.most.fetch_max(here.len(), Ordering::Relaxed);
        Ok(Arc::new(Here { engine: FakeEngine::new(model.as_str(), 64), here: Arc::clone(&self.here) }))
    }

    fn available_bytes(&self) -> Option<u64> {
        None
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.here.lock().unwrap().remove(&self.engine.info().name);
    }
}

impl InferenceEngine for Here {
    fn submit(&self, request: GenerateRequest) -> Result<AnswerStream, InferenceError> {
        self.engine.submit(request)
    }
    fn embed(&self, text: String) -> EmbedFuture {
        self.engine.embed(text)
    }
    fn tokens(&self, prompt: &Prompt) -> Result<Vec<TokenId>, InferenceError> {
        self.engine.tokens(prompt)
    }
    fn tokens_within(&self, text: &str) -> Result<Vec<TokenId>, InferenceError> {
        self.engine.tokens_within(text)
    }
    fn bytes_of(&self, tokens: &[TokenId]) -> Vec<u8> {
        self.engine.bytes_of(tokens)
    }
    fn extend(&self, request: ExtendRequest) -> Result<AnswerStream, InferenceError> {
        self.engine.extend(request)
    }
    fn measure(&self, request: MeasureRequest) -> MeasureFuture {
        self.engine.measure(request)
    }
    fn info(&self) -> &ModelInfo {
        self.engine.info()
    }
    fn load(&self) -> EngineLoad {
        self.engine.load()
    }
}

fn shelf(room_for: u64, wait: Duration) -> (Shelf, Arc<Fakes>) {
    let fakes = Arc::new(Fakes::default());
    let settings = Settings { memory_bytes: Some(room_for * BYTES), wait };
    (Shelf::new(settings, Arc::clone(&fakes) as Arc<dyn Loader>), fakes)
}

async fn with(names: &[&str], room_for: u64) -> (Shelf, Arc<Fakes>, Vec<Arc<Model>>) {
    let (shelf, fakes) = shelf(room_for, Duration::from_secs(30));
    let mut models = Vec::new();
    for name in names {
        models.push(shelf.add(&ModelName::from(*name), BYTES).await.unwrap().0);
    }
    (shelf, fakes, models)
}

fn request(model: &str) -> GenerateRequest {
    GenerateRequest {
        id: "r".into(),
        model: model.into(),
        node_type: None,
        priority: Priority::default(),
        prompt: Prompt::Text("x".into()),
        sampling: Sampling { max_tokens: Some(4), ..Sampling::default() },
        share: Share::default(),
        deadline: None,
        log: None,
        journal: None,
        routing: Routing::default(),
    }
}

async fn read(answer: AnswerStream) -> Result<String, InferenceError> {
    let mut text = String::new();
    for event in answer.collect::<Vec<_>>().await {
        if let AnswerEvent::Piece { text: piece, .. } = event? {
            text.push_str(&piece);
        }
    }
    Ok(text)
}

fn stage(shelf: &Shelf, name: &str) -> Stage {
    shelf.status(&name.into()).unwrap().stage
}

#[tokio::test]
async fn a_model_that_was_put_aside_comes_back_with_the_next_request() {
    let (shelf, fakes, models) = with(&["a"], 1).await;
    assert_eq!(shelf.put_aside(&"a".into()).await, Ok(BYTES));
    assert_eq!((stage(&shelf, "a"), fakes.here.lock().unwrap().len()), (Stage::Asleep, 0));
    assert_eq!(shelf.put_aside(&"a".into()).await, Ok(0));
    assert_eq!(read(models[0].submit(request("a")).unwrap()).await.unwrap(), "word1 word2 word3 word4");
    assert_eq!(stage(&shelf, "a"), Stage::Awake);
    // whatever is asked of it wakes it
    for _ in 0..2 {
        shelf.put_aside(&"a".into()).await.unwrap();
        assert_eq!(models[0].embed("ab".into()).await.unwrap().input_tokens, 2);
        shelf.put_aside(&"a".into()).await.unwrap();
        assert_eq!(models[0].tokens_within("ab").unwrap().len(), 2);
    }
    assert_eq!(models[0].load().n_generated_tokens, 4, "what was counted before is not forgotten");
}

#[tokio::test]
async fn a_request_in_flight_keeps_its_model() {
    let (shelf, fakes, models) = with(&["a"], 1).await;
    let mut answer = models[0].submit(request("a")).unwrap();
    assert!(answer.next().await.unwrap().is_ok());
    let name = ModelName::from("a");
    let mut leaving = std::pin::pin!(shelf.put_aside(&name));
    assert!(timeout(Duration::from_millis(50), &mut leaving).await.is_err());
    assert_eq!((stage(&shelf, "a"), fakes.here.lock().unwrap().len()), (Stage::Leaving, 1));
    // one that comes now waits, and finds it again afterwards
    let late = tokio::spawn(read(models[0].submit(request("a")).unwrap()));
    assert_eq!(read(answer).await.unwrap(), " word2 word3 word4");
    assert_eq!(leaving.await, Ok(BYTES));
    assert_eq!(late.await.unwrap().unwrap(), "word1 word2 word3 word4");
    assert_eq!(fakes.loads.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn whoever_sends_it_away_and_goes_leaves_it_where_it_is() {
    let (shelf, _, models) = with(&["a"], 1).await;
    let answer = models[0].submit(request("a")).unwrap();
    assert!(timeout(Duration::from_millis(20), shelf.put_aside(&"a".into())).await.is_err());
    assert_eq!(stage(&shelf, "a"), Stage::Awake);
    assert!(read(answer).await.is_ok());
}

#[tokio::test]
async fn the_model_that_was_used_longest_ago_goes_and_a_pinned_one_stays() {
    let (shelf, fakes, models) = with(&["a", "b"], 2).await;
    read(models[0].submit(request("a")).unwrap()).await.unwrap();
    let (_, woken) = shelf.add(&"c".into(), BYTES).await.unwrap();
    assert_eq!(woken.gone, [ModelName::from("b")]);
    shelf.pin(&"a".into(), true).unwrap();
    read(models[1].submit(request("b")).unwrap()).await.unwrap();
    assert_eq!((stage(&shelf, "a"), stage(&shelf, "c")), (Stage::Awake, Stage::Asleep));
    assert_eq!(shelf.put_aside(&"a".into()).await, Err(ShelfError::Pinned { model: "a".into() }));
    shelf.pin(&"b".into(), true).unwrap();
    let refused = shelf.wake(&"c".into()).await.unwrap_err();
    assert_eq!((refused.reason(), fakes.most.load(Ordering::Relaxed)), ("NO_MODEL_MEMORY", 2));
    shelf.pin(&"b".into(), false).unwrap();
    assert_eq!(shelf.wake(&"c".into()).await.unwrap().gone, [ModelName::from("b")]);
}

#[tokio::test]
async fn a_model_that_never_fits_is_refused_at_once() {
    let (shelf, _, _) = with(&["a"], 1).await;
    let refused = shelf.add(&"large".into(), 2 * BYTES).await.err().unwrap();
    assert_eq!(refused.reason(), "NO_MODEL_MEMORY");
    assert_eq!(stage(&shelf, "a"), Stage::Awake, "nobody goes in vain");
}

#[tokio::test]
async fn a_request_waits_for_room_no_longer_than_it_may() {
    let (shelf, fakes) = shelf(1, Duration::from_millis(200));
    let a = shelf.add(&"a".into(), BYTES).await.unwrap().0;
    shelf.put_aside(&"a".into()).await.unwrap();
    let b = shelf.add(&"b".into(), BYTES).await.unwrap().0;
    let busy = b.submit(request("b")).unwrap();
    let late = read(a.submit(request("a")).unwrap()).await.unwrap_err();
    assert_eq!(late.reason(), "MODEL_NOT_READY");
    // an operator is told at once
    assert_eq!(shelf.wake(&"a".into()).await.unwrap_err().reason(), "NO_MODEL_MEMORY");
    let waiting = tokio::spawn(read(a.submit(request("a")).unwrap()));
    tokio::task::yield_now().await;
    drop(busy);
    assert!(waiting.await.unwrap().is_ok());
    assert_eq!(fakes.most.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_load_that_fails_is_told_and_may_be_tried_again() {
    let (shelf, fakes, models) = with(&["a"], 1).await;
    shelf.put_aside(&"a".into()).await.unwrap();
    fakes.fails.store(true, Ordering::Relaxed);
    let error = read(models[0].submit(request("a")).unwrap()).await.unwrap_err();
    assert_eq!(error.reason(), "MODEL_UNLOADABLE");
    assert!(error.to_string().contains("its file is gone"), "{error}");
    fakes.fails.store(false, Ordering::Relaxed);
    assert!(read(models[0].submit(request("a")).unwrap()).await.is_ok());
}

#[tokio::test]
async fn what_was_removed_is_unknown() {
    let (shelf, _, models) = with(&["a"], 1).await;
    shelf.put_aside(&"a".into()).await.unwrap();
    shelf.remove(&"a".into());
    assert_eq!(read(models[0].submit(request("a")).unwrap()).await.unwrap_err().reason(), "UNKNOWN_MODEL");
    assert_eq!(shelf.wake(&"a".into()).await.unwrap_err().reason(), "UNKNOWN_MODEL");
    assert!(shelf.add(&"a".into(), BYTES).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_each_request_is_answered_and_memory_is_never_exceeded() {
    let (shelf, fakes, models) = with(&["a", "b", "c"], 2).await;
    let asks = (0..300).map(|i: usize| {
        let (shelf, model) = (shelf.clone(), Arc::clone(&models[i * 7 % 3]));
        tokio::spawn(async move {
            let name = model.info().name.clone();
            if i.is_multiple_of(29) {
                shelf.put_aside(&name).await.unwrap();
            }
            read(model.submit(request(name.as_str())).unwrap()).await
        })
    });
    for answer in timeout(Duration::from_mins(1), join_all(asks)).await.expect("nobody waits for ever") {
        assert_eq!(answer.unwrap().unwrap(), "word1 word2 word3 word4");
    }
    assert!(fakes.most.load(Ordering::Relaxed) <= 2, "{}", fakes.most.load(Ordering::Relaxed));
    for model in ["a", "b", "c"] {
        shelf.put_aside(&model.into()).await.unwrap();
        assert_eq!(shelf.status(&model.into()).unwrap().n_users, 0);
    }
    assert!(fakes.here.lock().unwrap().is_empty(), "memory comes back");
}

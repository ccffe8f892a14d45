//! A host that is made up, which can go away and come back. It notes what it was asked.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, stream};
use llambo_proto::{
    status::Failure,
    v1::{
        self,
        cluster_server::{Cluster, ClusterServer},
        generate_response::Event,
        inference_server::{Inference, InferenceServer},
    },
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::watch,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// Tokens that the model of this host holds.
pub(crate) const N_CONTEXT: u32 = 400;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A running host; with it gone, nothing answers at its address.
pub(crate) struct Host {
    pub(crate) address: String,
    seen: Arc<Seen>,
    runtime: Option<Runtime>,
}

/// What came to it, over all its runs.
#[derive(Debug)]
struct Seen {
    /// What generations were asked, each as `role: content` joined by ` | `.
    asked: Mutex<Vec<String>>,
    n_cancelled: watch::Sender<usize>,
    n_connections: AtomicUsize,
}

#[derive(Clone)]
struct Service(Arc<Seen>);

/// Notes when an answer is dropped by whoever asked.
struct Dropped(Arc<Seen>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.n_cancelled.send_modify(|n| *n += 1);
    }
}

impl Host {
    pub(crate) fn start() -> Self {
        let seen = Seen { asked: Mutex::default(), n_cancelled: watch::Sender::new(0), n_connections: AtomicUsize::new(0) };
        let mut host = Self { address: "127.0.0.1:0".into(), seen: Arc::new(seen), runtime: None };
        host.come();
        host
    }

    /// Answers at its address, again if it was away.
    pub(crate) fn come(&mut self) {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("there are threads left");
        let address = self.address.trim_start_matches("http://");
        let listener = runtime.block_on(TcpListener::bind(address)).expect("the port is free");
        self.address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let seen = self.seen.clone();
        let connections = TcpListenerStream::new(listener).inspect(move |_| {
            seen.n_connections.fetch_add(1, Ordering::Relaxed);
        });
        let service = Service(self.seen.clone());
        let server =
            Server::builder().add_service(InferenceServer::new(service.clone())).add_service(ClusterServer::new(service));
        runtime.spawn(server.serve_with_incoming(connections));
        self.runtime = Some(runtime);
    }

    /// Goes away, with all its connections.
    pub(crate) fn go(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.seen.asked.lock().expect("nobody panics with it").clone()
    }

    pub(crate) fn n_connections(&self) -> usize {
        self.seen.n_connections.load(Ordering::Relaxed)
    }

    /// Waits until so many answers were dropped before their end.
    pub(crate) fn wait_for_cancelled(&self, n: usize) {
        let mut cancelled = self.seen.n_cancelled.subscribe();
        let runtime = self.runtime.as_ref().expect("it is there");
        let deadline = Instant::now() + Duration::from_secs(20);
        let waited = async { tokio::time::timeout_at(deadline.into(), cancelled.wait_for(|found| *found >= n)).await.is_ok() };
        assert!(runtime.block_on(waited), "the host was not told to stop");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.go();
    }
}

fn model(name: &str) -> v1::Model {
    v1::Model { name: name.into(), n_context: N_CONTEXT, ..v1::Model::default() }
}

#[expect(clippy::unnecessary_wraps, reason = "an item of a stream, which may be an error")]
fn piece(text: &str) -> Result<v1::GenerateResponse, Status> {
    let event = Event::Piece(v1::Piece { text: text.into(), n_tokens: 1 });
    Ok(v1::GenerateResponse { event: Some(event) })
}

#[tonic::async_trait]
impl Inference for Service {
    type GenerateStream = Answers<v1::GenerateResponse>;

    /// Answers `slow` without end, refuses `long` as long as anything was said before, and says how many messages it had otherwise.
    async fn generate(&self, request: Request<v1::GenerateRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        let request = request.into_inner();
        let messages = match request.prompt.unwrap_or(v1::generate_request::Prompt::Text(String::new())) {
            v1::generate_request::Prompt::Chat(chat) => chat.messages,
            v1::generate_request::Prompt::Text(content) => vec![v1::Message { role: "text".into(), content }],
        };
        let told: Vec<_> = messages.iter().map(|message| format!("{}: {}", message.role, message.content)).collect();
        self.0.asked.lock().expect("nobody panics with it").push(told.join(" | "));
        let question = &messages.last().expect("something is asked").content;
        if question.contains("long") && messages.len() > 1 {
            return Err(Failure::new("PROMPT_TOO_LONG", "the prompt has 999 tokens, and the model holds 400").into_status());
        }
        let model = if request.model.is_empty() { "first".into() } else { request.model };
        let started = v1::Started { request_id: "r-1".into(), node: "tiny-0002".into(), model, route: None };
        let started = stream::iter([Ok(v1::GenerateResponse { event: Some(Event::Started(started)) })]);
        if question.contains("slow") {
            let dropped = Dropped(self.0.clone());
            let endless = stream::pending().inspect(move |_: &Result<v1::GenerateResponse, Status>| {
                let _ = &dropped;
            });
            return Ok(Response::new(started.chain(stream::iter([piece("one "), piece("two ")])).chain(endless).boxed()));
        }
        let n = messages.len();
        let bytes: usize = messages.iter().map(|message| message.content.len()).sum();
        let usage =
            v1::Usage { input_tokens: u32::try_from(bytes / 4 + 1).unwrap_or(u32::MAX), output_tokens: 5, cached_tokens: 0 };
        let finished = v1::Finished { finish_reason: "stop".into(), usage: Some(usage), ttft_ms: 1.0, total_ms: 2.0, tier: None };
        let last = Ok(v1::GenerateResponse { event: Some(Event::Finished(finished)) });
        let pieces = [piece("It is *"), piece("*blue"), piece("**, "), piece(&format!("after {n} messages.")), last];
        Ok(Response::new(started.chain(stream::iter(pieces)).boxed()))
    }

    async fn infer(&self, _: Request<v1::GenerateRequest>) -> Result<Response<v1::InferResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn embed(&self, _: Request<v1::EmbedRequest>) -> Result<Response<v1::EmbedResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_models(&self, _: Request<v1::ListModelsRequest>) -> Result<Response<v1::ListModelsResponse>, Status> {
        Ok(Response::new(v1::ListModelsResponse { models: vec![model("first"), model("second")] }))
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    type WatchEventsStream = futures::stream::BoxStream<'static, Result<v1::WatchEventsResponse, Status>>;

    async fn watch_events(&self, _: Request<v1::WatchEventsRequest>) -> Result<Response<Self::WatchEventsStream>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn list_hosts(&self, _: Request<v1::ListHostsRequest>) -> Result<Response<v1::ListHostsResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    type WatchStatusStream = Answers<v1::StatusResponse>;

    async fn spawn(&self, request: Request<v1::SpawnRequest>) -> Result<Response<v1::SpawnResponse>, Status> {
        let v1::SpawnRequest { r#type, count } = request.into_inner();
        if r#type != "tiny" {
            return Err(Failure::new("UNKNOWN_TYPE", format!("there is no type `{type}`")).into_status());
        }
        Ok(Response::new(v1::SpawnResponse { spawned: count, ..v1::SpawnResponse::default() }))
    }

    async fn list_nodes(&self, _: Request<v1::ListNodesRequest>) -> Result<Response<v1::ListNodesResponse>, Status> {
        let node = |id: &str| v1::Node { id: id.into(), r#type: "tiny".into(), state: "ready".into(), ..v1::Node::default() };
        Ok(Response::new(v1::ListNodesResponse { nodes: vec![node("tiny-0001"), node("wide-0002")], total: 2 }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(v1::StatusResponse {
            version: "0.1.0".into(),
            nodes_by_state: [("ready".to_owned(), 2)].into(),
            nodes_by_type: [("tiny".to_owned(), 2)].into(),
            ..v1::StatusResponse::default()
        }))
    }

    async fn watch_status(&self, _: Request<v1::WatchStatusRequest>) -> Result<Response<Self::WatchStatusStream>, Status> {
        let now = self.status(Request::new(v1::StatusRequest {})).await?.into_inner();
        Ok(Response::new(stream::iter([Ok(now)]).chain(stream::pending()).boxed()))
    }

    async fn get_balancer(&self, _: Request<v1::GetBalancerRequest>) -> Result<Response<v1::GetBalancerResponse>, Status> {
        let available = ["random".to_owned(), "round-robin".to_owned()].to_vec();
        Ok(Response::new(v1::GetBalancerResponse { strategy: "random".into(), available, ..v1::GetBalancerResponse::default() }))
    }

    async fn set_balancer(&self, _: Request<v1::SetBalancerRequest>) -> Result<Response<v1::SetBalancerResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn scale(&self, _: Request<v1::ScaleRequest>) -> Result<Response<v1::ScaleResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn drain(&self, _: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn hibernate(&self, _: Request<v1::HibernateRequest>) -> Result<Response<v1::HibernateResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn wake(&self, _: Request<v1::WakeRequest>) -> Result<Response<v1::WakeResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

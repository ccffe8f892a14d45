//! A host of which only policies and answers are there, and they are made up. It notes what it was asked.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::{Stream, StreamExt, stream};
use llambo_proto::{
    status::Failure,
    v1::{
        self,
        inference_server::{Inference, InferenceServer},
        policies_server::{Policies, PoliciesServer},
        replay_routes_request::Part,
        route_record::Event,
    },
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// What it was asked, as the messages came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked(Arc<Mutex<Vec<String>>>);

#[derive(Debug)]
struct Host {
    asked: Asked,
    /// Whether a recording goes on after what is made up.
    endless: bool,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Asked {
    fn note(&self, message: &impl std::fmt::Debug) {
        self.0.lock().expect("nobody panics with it").push(format!("{message:?}"));
    }

    /// The last message.
    pub(crate) fn last(&self) -> String {
        self.0.lock().expect("nobody panics with it").last().cloned().unwrap_or_default()
    }
}

/// Starts one; it ends with the runtime of the test.
pub(crate) async fn start(endless: bool) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let address = format!("http://{}", listener.local_addr().expect("it is bound"));
    let asked = Asked::default();
    let host = Arc::new(Host { asked: asked.clone(), endless });
    let policies = PoliciesServer::from_arc(host.clone()).max_decoding_message_size(usize::MAX);
    let server = Server::builder().add_service(policies).add_service(InferenceServer::from_arc(host));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, asked)
}

/// A decision, a number of missed events, and an end.
pub(crate) fn records() -> Vec<v1::RouteRecord> {
    let decision = v1::RouteDecision {
        number: 1,
        request_id: "r-1".into(),
        labels: [("team".to_owned(), "search".to_owned())].into(),
        route: Some(route()),
        entropy: u64::MAX,
        ..v1::RouteDecision::default()
    };
    let end = v1::RouteEnd { number: 1, outcome: "finished".into(), latency_us: 1500.25, ..v1::RouteEnd::default() };
    [Event::Decision(decision), Event::NMissed(2), Event::End(end)].map(|event| v1::RouteRecord { event: Some(event) }).to_vec()
}

fn reference(name: &str, generation: u32) -> v1::PolicyRef {
    let sha256 = "9f1c2a7b43de00ff".into();
    v1::PolicyRef { kind: "balancer".into(), name: name.into(), sha256, generation, role: "live".into() }
}

fn policy(name: &str, role: &str) -> v1::Policy {
    v1::Policy {
        kind: "balancer".into(),
        name: name.into(),
        generation: 3,
        role: role.into(),
        state: "running".into(),
        sha256: "9f1c2a7b43de00ff".into(),
        ..v1::Policy::default()
    }
}

fn route() -> v1::Route {
    let candidate =
        |node: &str| v1::RouteCandidate { node: node.into(), capacity: 4, score: Some(0.5), ..v1::RouteCandidate::default() };
    v1::Route {
        strategy: "round-robin".into(),
        policy: Some(reference("latency-aware", 3)),
        candidates: vec![candidate("tiny-1"), candidate("tiny-2")],
        n_eligible: 2,
        chosen: "tiny-2".into(),
        ..v1::Route::default()
    }
}

#[tonic::async_trait]
impl Policies for Host {
    type RecordRoutesStream = Answers<v1::RouteRecord>;

    async fn load_policy(&self, request: Request<v1::LoadPolicyRequest>) -> Result<Response<v1::LoadPolicyResponse>, Status> {
        let request = request.into_inner();
        self.asked.note(&request);
        if request.name == "bad" {
            return Err(Failure::new("INVALID_MODULE", "`bad` exports no `balancing`").into_status());
        }
        let role = match request {
            v1::LoadPolicyRequest { shadow: true, .. } => "shadow",
            v1::LoadPolicyRequest { share, .. } if share > 0.0 => "canary",
            _ => "live",
        };
        Ok(Response::new(v1::LoadPolicyResponse {
            policy: Some(v1::Policy { share: request.share, ..policy(&request.name, role) }),
            replaced: (role == "live").then(|| reference("round-about", 2)),
            compile_ms: 12.0,
            dry_run_calls: 100,
            dry_run_p50_ns: 1250.0,
        }))
    }

    async fn list_policies(&self, _: Request<v1::ListPoliciesRequest>) -> Result<Response<v1::ListPoliciesResponse>, Status> {
        let live = v1::Policy {
            state: "suspended".into(),
            reason: "10 of its last 100 calls failed".into(),
            calls: 1234,
            fallbacks: [("trap".to_owned(), 10), ("timeout".to_owned(), 2)].into(),
            call_p50_ns: 1250.0,
            call_p99_ns: 4000.0,
            ..policy("latency-aware", "live")
        };
        let shadow = v1::Policy { compared: 8, agreed: 7, ..policy("other", "shadow") };
        Ok(Response::new(v1::ListPoliciesResponse {
            policies: vec![live, shadow],
            built_in: vec!["scaler".into(), "fusion".into()],
        }))
    }

    async fn promote_policy(
        &self,
        request: Request<v1::PromotePolicyRequest>,
    ) -> Result<Response<v1::PromotePolicyResponse>, Status> {
        self.asked.note(request.get_ref());
        Ok(Response::new(v1::PromotePolicyResponse {
            policy: Some(policy("other", "live")),
            replaced: Some(reference("latency-aware", 2)),
        }))
    }

    async fn roll_back_policy(
        &self,
        request: Request<v1::RollBackPolicyRequest>,
    ) -> Result<Response<v1::RollBackPolicyResponse>, Status> {
        self.asked.note(request.get_ref());
        Ok(Response::new(v1::RollBackPolicyResponse { policy: None, replaced: Some(reference("latency-aware", 3)) }))
    }

    async fn unload_policy(
        &self,
        request: Request<v1::UnloadPolicyRequest>,
    ) -> Result<Response<v1::UnloadPolicyResponse>, Status> {
        self.asked.note(request.get_ref());
        Ok(Response::new(v1::UnloadPolicyResponse { unloaded: Some(reference("latency-aware", 3)) }))
    }

    async fn resume_policy(
        &self,
        request: Request<v1::ResumePolicyRequest>,
    ) -> Result<Response<v1::ResumePolicyResponse>, Status> {
        self.asked.note(request.get_ref());
        Ok(Response::new(v1::ResumePolicyResponse { policy: Some(policy("other", &request.get_ref().role)) }))
    }

    async fn record_routes(&self, _: Request<v1::RecordRoutesRequest>) -> Result<Response<Self::RecordRoutesStream>, Status> {
        let records = stream::iter(records()).map(Ok);
        let endless = stream::iter(self.endless.then(stream::pending)).flatten();
        Ok(Response::new(records.chain(endless).boxed()))
    }

    async fn replay_routes(
        &self,
        request: Request<Streaming<v1::ReplayRoutesRequest>>,
    ) -> Result<Response<v1::ReplayRoutesResponse>, Status> {
        let mut parts = request.into_inner();
        let mut read = Vec::new();
        while let Some(part) = parts.message().await? {
            read.push(part.part);
        }
        self.asked.note(&read);
        let decisions =
            read.iter().filter(|part| matches!(part, Some(Part::Record(v1::RouteRecord { event: Some(Event::Decision(_)) }))));
        Ok(Response::new(v1::ReplayRoutesResponse {
            decisions: decisions.count() as u64,
            with_choice: 1,
            ..v1::ReplayRoutesResponse::default()
        }))
    }
}

#[tonic::async_trait]
impl Inference for Host {
    type GenerateStream = Answers<v1::GenerateResponse>;

    async fn generate(&self, request: Request<v1::GenerateRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        use v1::generate_response::Event;
        let request = request.into_inner();
        self.asked.note(&request);
        let started = v1::Started { node: "tiny-2".into(), route: request.explain.then(route), ..v1::Started::default() };
        let piece = v1::Piece { text: "It is blue".into(), n_tokens: 3 };
        let events = [Event::Started(started), Event::Piece(piece), Event::Finished(v1::Finished::default())];
        Ok(Response::new(stream::iter(events.map(|event| Ok(v1::GenerateResponse { event: Some(event) }))).boxed()))
    }

    async fn infer(&self, _: Request<v1::GenerateRequest>) -> Result<Response<v1::InferResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn embed(&self, _: Request<v1::EmbedRequest>) -> Result<Response<v1::EmbedResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_models(&self, _: Request<v1::ListModelsRequest>) -> Result<Response<v1::ListModelsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

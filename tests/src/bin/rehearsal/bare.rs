//! What llambo's edge is measured against: the same messages, from a service that has them at once.

use futures::stream::{self, Iter};
use llambo_proto::v1::{
    self,
    generate_response::Event,
    inference_server::{Inference, InferenceServer},
};
use llambo_tests::rehearsal::{MODEL, words};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

struct Plain;

type Messages = Iter<std::vec::IntoIter<Result<v1::GenerateResponse, Status>>>;

#[tonic::async_trait]
impl Inference for Plain {
    type GenerateStream = Messages;

    async fn generate(&self, request: Request<v1::GenerateRequest>) -> Result<Response<Messages>, Status> {
        let request = request.into_inner();
        let n = n_tokens(&request);
        let mut messages = Vec::with_capacity(n as usize + 2);
        let event = |event| Ok(v1::GenerateResponse { event: Some(event) });
        messages.push(event(Event::Started(v1::Started {
            request_id: "0123456789abcdef".into(),
            node: "quick-0".into(),
            model: MODEL.into(),
            route: None,
        })));
        for i in 1..=n {
            let text = if i == 1 { format!("word{i}") } else { format!(" word{i}") };
            messages.push(event(Event::Piece(v1::Piece { text, n_tokens: 1 })));
        }
        let usage = Some(usage(&request, n));
        let finished = v1::Finished { finish_reason: "length".into(), usage, ttft_ms: 0.1, total_ms: 0.1, tier: None };
        messages.push(event(Event::Finished(finished)));
        Ok(Response::new(stream::iter(messages)))
    }

    async fn infer(&self, request: Request<v1::GenerateRequest>) -> Result<Response<v1::InferResponse>, Status> {
        let request = request.into_inner();
        let n = n_tokens(&request);
        Ok(Response::new(v1::InferResponse {
            request_id: "0123456789abcdef".into(),
            node: "quick-0".into(),
            model: MODEL.into(),
            text: words(n),
            finish_reason: "length".into(),
            usage: Some(usage(&request, n)),
            ttft_ms: 0.1,
            total_ms: 0.1,
            route: None,
            tier: None,
        }))
    }

    async fn embed(&self, _: Request<v1::EmbedRequest>) -> Result<Response<v1::EmbedResponse>, Status> {
        Err(Status::unimplemented("it is not measured"))
    }

    async fn list_models(&self, _: Request<v1::ListModelsRequest>) -> Result<Response<v1::ListModelsResponse>, Status> {
        Err(Status::unimplemented("it is not measured"))
    }
}

fn n_tokens(request: &v1::GenerateRequest) -> u32 {
    request.options.as_ref().and_then(|options| options.max_tokens).unwrap_or(8)
}

fn usage(request: &v1::GenerateRequest, output_tokens: u32) -> v1::Usage {
    let input = match &request.prompt {
        Some(v1::generate_request::Prompt::Text(text)) => text.len(),
        _ => 0,
    };
    v1::Usage { input_tokens: u32::try_from(input).unwrap_or(u32::MAX), output_tokens, cached_tokens: 0 }
}

pub(crate) async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("any port will do");
    let address = listener.local_addr().expect("it listens");
    println!("{}", serde_json::json!({"grpc": address, "http": address}));
    Server::builder()
        .add_service(InferenceServer::new(Plain))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await
        .expect("it serves until it is killed");
}

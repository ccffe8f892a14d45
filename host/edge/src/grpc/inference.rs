//! Text in, tokens out.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{Stream, StreamExt};
use llambo_inference::{AnswerEvent, InferenceError, ModelName, Usage};
use llambo_proto::{
    convert::{self, Asked, Timing},
    deadline, status,
    v1::{self, inference_server::Inference},
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{invalid, invalid_field, models, not_served, route};
use crate::{
    answer::{Answering, Deadline},
    caller::Caller,
    door::{Askable, Door},
    pump::{Pumped, pump},
};

/// Metadata that asks for an explanation, where a client's stubs are older than the field.
const EXPLAIN: &str = "llambo-explain";
/// Texts of one Embed call; more are sent as several calls.
const MAX_TEXTS: usize = 256;

pub(super) struct Service {
    pub(super) door: Door,
}

impl Service {
    /// Reads a request and hands it to the dispatcher; the answer's first event is there.
    async fn start(&self, request: Request<v1::GenerateRequest>) -> Result<Answering, Status> {
        let received = Instant::now();
        let deadline = deadline::timeout(request.metadata()).map(|timeout| Deadline::new(received, timeout));
        let explain = request.metadata().get(EXPLAIN).is_some_and(|value| value == "1" || value == "true");
        let caller = Caller::of(request.extensions());
        let mut asked = Asked::try_from(request.into_inner()).map_err(|e| status::status(&e))?;
        asked.routing.explain |= explain;
        self.door.ask(asked, &caller, received, deadline).await.map_err(|error| not_served(&error))
    }
}

/// An answer as messages: `started`, pieces, `finished`; or an error in between.
struct Messages {
    started: Option<v1::GenerateResponse>,
    answering: Answering,
}

impl Messages {
    fn new(mut answering: Answering) -> Self {
        let route = answering.route.take().map(|route| route::wire(&route));
        let started = convert::started(&answering.id, &answering.node, &answering.model, route);
        Self { started: Some(started), answering }
    }
}

impl Stream for Messages {
    type Item = Result<v1::GenerateResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(started) = self.started.take() {
            return Poll::Ready(Some(Ok(started)));
        }
        let event = ready!(self.answering.poll_next_unpin(cx));
        let message = |event| match event {
            Ok(event) => Ok(convert::event(event, || self.answering.timing())),
            Err(error) => Err(not_served(&error)),
        };
        Poll::Ready(event.map(message))
    }
}

#[tonic::async_trait]
impl Inference for Service {
    type GenerateStream = Pumped<Result<v1::GenerateResponse, Status>>;

    async fn generate(&self, request: Request<v1::GenerateRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        let answering = self.start(request).await?;
        let stalled = |waited| Err(status::status(&InferenceError::stalled(waited)));
        Ok(Response::new(pump(Messages::new(answering), self.door.patience, stalled)))
    }

    async fn infer(&self, request: Request<v1::GenerateRequest>) -> Result<Response<v1::InferResponse>, Status> {
        let mut answering = self.start(request).await?;
        let mut whole = v1::InferResponse {
            request_id: answering.id.to_string(),
            node: answering.node.to_string(),
            model: answering.model.to_string(),
            route: answering.route.take().map(|route| route::wire(&route)),
            ..v1::InferResponse::default()
        };
        while let Some(event) = answering.next().await {
            match event.map_err(|error| not_served(&error))? {
                AnswerEvent::Piece { text, .. } => whole.text.push_str(&text),
                AnswerEvent::Finished(end) => {
                    (whole.finish_reason, whole.usage) = (end.reason.as_str().to_owned(), Some(convert::usage(end.usage)));
                    let Timing { ttft_ms, total_ms, tier } = answering.timing();
                    (whole.ttft_ms, whole.total_ms, whole.tier) = (ttft_ms, total_ms, tier);
                }
            }
        }
        Ok(Response::new(whole))
    }

    async fn embed(&self, request: Request<v1::EmbedRequest>) -> Result<Response<v1::EmbedResponse>, Status> {
        let received = Instant::now();
        let deadline = deadline::timeout(request.metadata()).map(|timeout| Deadline::new(received, timeout));
        let caller = Caller::of(request.extensions());
        let v1::EmbedRequest { model, texts } = request.into_inner();
        if !(1..=MAX_TEXTS).contains(&texts.len()) {
            return Err(invalid_field("texts", format!("a list of {}", texts.len()), "1 to 256 texts"));
        }
        if let Some(i) = texts.iter().position(String::is_empty) {
            return Err(invalid(format!("`texts[{i}]` is empty; leave it out or give it text")));
        }
        let model = (!model.is_empty()).then(|| ModelName::from(&model));
        let engine = self.door.embedder(&caller, model.as_ref()).map_err(|error| not_served(&error))?;
        let embedded = self.door.embed(&caller, &engine, texts, deadline).await;
        let (embedded, input_tokens) = embedded.map_err(|error| not_served(&error))?;
        let embeddings = embedded.into_iter().map(|embedding| v1::Embedding { values: embedding.values }).collect();
        let usage = Usage { input_tokens, ..Usage::default() };
        let model = engine.info().name.to_string();
        Ok(Response::new(v1::EmbedResponse { model, embeddings, usage: Some(convert::usage(usage)) }))
    }

    async fn list_models(&self, request: Request<v1::ListModelsRequest>) -> Result<Response<v1::ListModelsResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let told = |Askable { name, engine, module }: Askable| {
            let model = convert::model(engine.info(), engine.load());
            let model = match module {
                None => model,
                Some(module) => v1::Model { name: name.to_string(), parent: module.parent.to_string(), ..model },
            };
            models::told(&self.door.host, model)
        };
        let models = self.door.askable(&caller).into_iter().map(told).collect();
        Ok(Response::new(v1::ListModelsResponse { models }))
    }
}

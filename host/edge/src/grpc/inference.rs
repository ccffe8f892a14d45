//! Text in, tokens out.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use llambo_inference::{GenerateRequest, InferenceError, ModelName, RequestId, Usage};
use llambo_orchestrator::DispatchError;
use llambo_proto::{
    convert::{self, Asked},
    deadline, status,
    v1::{self, generate_response::Event, inference_server::Inference},
};
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::{
    answer::{Answering, Deadline},
    invalid, invalid_field, not_served,
    pump::{Pumped, pump},
};
use crate::{
    Host, Modules,
    serve::{Closing, closed},
};

/// Texts of one Embed call; more are sent as several calls.
const MAX_TEXTS: usize = 256;
/// Texts of one call that are embedded at a time, so that one caller cannot fill an engine's queue.
const EMBEDS_AT_ONCE: usize = 8;

pub(super) struct Service {
    pub(super) host: Arc<Host>,
    pub(super) closing: Closing,
    /// How long a client may take nothing of its answer.
    pub(super) patience: Duration,
}

impl Service {
    /// Reads a request and hands it to the dispatcher; the answer's first event is there.
    async fn start(&self, request: Request<v1::GenerateRequest>) -> Result<Answering, Status> {
        let received = Instant::now();
        let deadline = deadline::timeout(request.metadata()).map(|timeout| Deadline::new(received, timeout));
        let asked = Asked::try_from(request.into_inner()).map_err(|e| status::status(&e))?;
        let inner = deadline.map(|deadline| deadline.inner.into_std());
        let request = self.resolve(asked, inner).map_err(|e| status::status(&e))?;
        let (id, model) = (request.id.clone(), request.model.clone());
        let dispatcher = self.host.cluster.dispatcher();
        let first = async {
            tokio::select! {
                answer = dispatcher.dispatch(request) => answer,
                () = closed(self.closing.clone()) => Err(DispatchError::Draining),
            }
        };
        let answer = within(deadline, first).await?.map_err(|error| {
            tracing::debug!(request_id = %id, %model, %error, "not served");
            not_served(&error)
        })?;
        let started = convert::started(&id, &answer.node, &model);
        let closed = closed(self.closing.clone()).boxed();
        Ok(Answering::new(id, started, answer, received, deadline, closed))
    }

    /// Fills in what the request leaves out. A published module takes what its model takes.
    fn resolve(&self, asked: Asked, deadline: Option<std::time::Instant>) -> Result<GenerateRequest, InferenceError> {
        let name = asked.model.clone().unwrap_or_else(|| self.host.default_model.clone());
        let engine = self.host.models.get(&name).or_else(|unknown| match self.host.modules.parent(&name) {
            Some(parent) => self.host.models.get(&parent),
            None => Err(with_published(unknown, self.host.modules.as_ref())),
        })?;
        Ok(GenerateRequest { model: name, ..asked.resolve(engine.info(), new_request_id, deadline)? })
    }
}

#[tonic::async_trait]
impl Inference for Service {
    type GenerateStream = Pumped;

    async fn generate(&self, request: Request<v1::GenerateRequest>) -> Result<Response<Pumped>, Status> {
        let answering = self.start(request).await?;
        Ok(Response::new(pump(answering, self.patience)))
    }

    async fn infer(&self, request: Request<v1::GenerateRequest>) -> Result<Response<v1::InferResponse>, Status> {
        let mut messages = self.start(request).await?;
        let mut whole = v1::InferResponse::default();
        while let Some(message) = messages.try_next().await? {
            match message.event {
                Some(Event::Started(started)) => {
                    (whole.request_id, whole.node, whole.model) = (started.request_id, started.node, started.model);
                }
                Some(Event::Piece(piece)) => whole.text.push_str(&piece.text),
                Some(Event::Finished(end)) => {
                    (whole.finish_reason, whole.usage) = (end.finish_reason, end.usage);
                    (whole.ttft_ms, whole.total_ms) = (end.ttft_ms, end.total_ms);
                }
                None => {}
            }
        }
        Ok(Response::new(whole))
    }

    async fn embed(&self, request: Request<v1::EmbedRequest>) -> Result<Response<v1::EmbedResponse>, Status> {
        let received = Instant::now();
        let deadline = deadline::timeout(request.metadata()).map(|timeout| Deadline::new(received, timeout));
        let v1::EmbedRequest { model, texts } = request.into_inner();
        if self.host.cluster.is_draining() {
            return Err(not_served(&DispatchError::Draining));
        }
        if !(1..=MAX_TEXTS).contains(&texts.len()) {
            return Err(invalid_field("texts", format!("a list of {}", texts.len()), "1 to 256 texts"));
        }
        if let Some(i) = texts.iter().position(String::is_empty) {
            return Err(invalid(format!("`texts[{i}]` is empty; leave it out or give it text")));
        }
        let model = (!model.is_empty()).then(|| ModelName::from(&model));
        let engine = self.host.models.get(model.as_ref().unwrap_or(&self.host.default_model)).map_err(|e| status::status(&e))?;
        let embeds = stream::iter(texts).map(|text| engine.embed(text)).buffered(EMBEDS_AT_ONCE).try_collect::<Vec<_>>();
        let embedded = within(deadline, embeds).await?.map_err(|e| status::status(&e))?;

        let mut usage = Usage::default();
        let mut embeddings = Vec::with_capacity(embedded.len());
        for embedding in embedded {
            usage += Usage { input_tokens: embedding.input_tokens, ..Usage::default() };
            embeddings.push(v1::Embedding { values: embedding.values });
        }
        let model = engine.info().name.to_string();
        Ok(Response::new(v1::EmbedResponse { model, embeddings, usage: Some(convert::usage(usage)) }))
    }

    async fn list_models(&self, _: Request<v1::ListModelsRequest>) -> Result<Response<v1::ListModelsResponse>, Status> {
        let engines = self.host.models.all();
        let mut models: Vec<_> = engines.iter().map(|engine| convert::model(engine.info(), engine.load())).collect();
        for published in self.host.modules.list().into_iter().filter(|module| module.serves) {
            let parent = models.iter().find(|model| model.name == published.parent.as_str());
            if let Some(parent) = parent.cloned() {
                let (name, of) = (published.name.to_string(), parent.name.clone());
                models.push(v1::Model { name, parent: of, ..parent });
            }
        }
        Ok(Response::new(v1::ListModelsResponse { models }))
    }
}

/// The error names what else could have been asked for.
fn with_published(error: InferenceError, modules: &dyn Modules) -> InferenceError {
    match error {
        InferenceError::UnknownModel { model, mut loaded } => {
            loaded.extend(modules.list().into_iter().filter(|module| module.serves).map(|module| module.name));
            InferenceError::UnknownModel { model, loaded }
        }
        error => error,
    }
}

/// The end of `work`, or `DEADLINE_EXCEEDED`.
async fn within<T>(deadline: Option<Deadline>, work: impl Future<Output = T>) -> Result<T, Status> {
    match deadline {
        None => Ok(work.await),
        Some(deadline) => timeout_at(deadline.edge, work)
            .await
            .map_err(|_| status::status(&InferenceError::DeadlineExceeded { n_generated: 0 })),
    }
}

/// 64 random bits: unique among the requests that one log is searched for.
fn new_request_id() -> RequestId {
    format!("{:016x}", rand::random::<u64>()).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use llambo_proto::status::Details;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_without_end_is_given_up_before_the_transport_does() {
        let received = Instant::now();
        let timeout = Duration::from_secs(3);
        let status = within(Some(Deadline::new(received, timeout)), std::future::pending::<()>()).await.unwrap_err();
        assert_eq!(Details::of(&status).reason.as_deref(), Some("DEADLINE_EXCEEDED"));
        assert!(received.elapsed() < timeout, "{:?}", received.elapsed());
    }

    #[test]
    fn request_ids_differ() {
        assert_ne!(new_request_id(), new_request_id());
    }
}

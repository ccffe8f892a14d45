//! The one way from a client's request to the orchestrator, whatever the client speaks.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use llambo_inference::{GenerateRequest, InferenceEngine, InferenceError, ModelName, RequestId, TypeName};
use llambo_orchestrator::DispatchError;
use llambo_proto::convert::Asked;
use tokio::time::{Instant, timeout_at};

use crate::{
    Host, Modules, PublishedModule,
    answer::{Answering, Deadline},
    caller::Caller,
    serve::{Closing, closed},
    trace,
};

/// What every service that asks models has.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) host: Arc<Host>,
    pub(crate) closing: Closing,
    /// How long a client may take nothing of its answer.
    pub(crate) patience: Duration,
    /// Bytes of one request at most.
    pub(crate) max_request_bytes: usize,
}

/// A name that can be asked.
pub(crate) struct Askable {
    pub(crate) name: ModelName,
    pub(crate) engine: Arc<dyn InferenceEngine>,
    /// The guest that is published under that name and asks the engine; `None`: the name is the engine's own.
    pub(crate) module: Option<PublishedModule>,
}

impl Door {
    /// Hands a request to the dispatcher; the answer's first event is there.
    pub(crate) async fn ask(
        &self,
        asked: Asked,
        caller: &Caller,
        received: Instant,
        deadline: Option<Deadline>,
    ) -> Result<Answering, DispatchError> {
        let inner = deadline.map(|deadline| deadline.inner.into_std());
        let mut request = self.resolve(asked, caller, inner)?;
        let part = trace::request(caller, &request.id, &request.model, &request.prompt);
        request.routing.trace = part.context();
        let (id, model, journal) = (request.id.clone(), request.model.clone(), request.journal.clone());
        let dispatcher = self.host.cluster.dispatcher();
        // pinned here: what is moved from one future into the next is copied, and this is a large one
        let first = pin!(async {
            tokio::select! {
                // most nodes say something at once: then nobody waits for the end of the edge
                biased;
                answer = dispatcher.dispatch(request) => answer,
                () = closed(self.closing.clone()) => Err(DispatchError::Draining),
            }
        });
        let answer = within(deadline, first).await.map_err(DispatchError::from).flatten().inspect_err(|error| {
            part.failed(error.reason());
            tracing::debug!(request_id = %id, trace_id = trace::id(&part), %model, %error, "not served");
        })?;
        let mut answering = Answering::new((id, model), answer, received, deadline, self.closing.clone()).traced(part);
        answering.journal = journal;
        Ok(answering)
    }

    /// Done once the edge closes.
    pub(crate) fn closed(&self) -> BoxFuture<'static, ()> {
        closed(self.closing.clone()).boxed()
    }

    /// The engine behind a name: a model's own, or that which a published module asks. `None` is the default model.
    pub(crate) fn engine(&self, name: Option<&ModelName>) -> Result<(ModelName, Arc<dyn InferenceEngine>), InferenceError> {
        let name = name.unwrap_or(&self.host.default_model).clone();
        let engine = self.host.models.get(&name).or_else(|unknown| match self.host.modules.parent(&name) {
            Some(parent) => self.host.models.get(&parent),
            None => Err(with_published(unknown, self.host.modules.as_ref())),
        })?;
        Ok((name, engine))
    }

    /// The same for somebody: a model that they may not ask is refused, and none of those is named to them.
    pub(crate) fn engine_for(
        &self,
        caller: &Caller,
        name: Option<&ModelName>,
    ) -> Result<(ModelName, Arc<dyn InferenceEngine>), InferenceError> {
        // asked first: what is not theirs is refused alike, whether it is there or not
        caller.check_model(name.unwrap_or(&self.host.default_model))?;
        self.engine(name).map_err(|error| known_to(caller, error))
    }

    /// The names that the caller may ask, the default model's first, since who names none gets that: of others they learn nothing, not even that they are there.
    pub(crate) fn askable(&self, caller: &Caller) -> Vec<Askable> {
        let engines = self.host.models.all();
        let own =
            engines.iter().map(|engine| Askable { name: engine.info().name.clone(), engine: Arc::clone(engine), module: None });
        let modules = self.host.modules.list().into_iter().filter(|module| module.serves);
        let published = modules.filter_map(|module| {
            let engine = engines.iter().find(|engine| engine.info().name == module.parent)?;
            Some(Askable { name: module.name.clone(), engine: Arc::clone(engine), module: Some(module) })
        });
        let mut askable: Vec<_> = own.chain(published).filter(|askable| caller.has_model(&askable.name)).collect();
        askable.sort_by_key(|askable| askable.name != self.host.default_model);
        askable
    }

    /// That a type is there and may serve the caller: for what is asked later, and would only then be told.
    pub(crate) fn check_type(&self, caller: &Caller, node_type: &TypeName) -> Result<(), DispatchError> {
        caller.check_type(node_type)?;
        let known: Vec<TypeName> = self.host.cluster.types().into_iter().map(|info| info.name).collect();
        if known.contains(node_type) {
            return Ok(());
        }
        Err(DispatchError::UnknownType { node_type: node_type.clone(), known })
    }

    /// Names a type that may serve the caller, where not all may: the one asked for, or the first of theirs that serves the model.
    fn permitted(&self, mut asked: Asked, caller: &Caller, model: &ModelName) -> Result<Asked, InferenceError> {
        let Some(types) = caller.rights.types() else { return Ok(asked) };
        if let Some(node_type) = &asked.node_type {
            caller.check_type(node_type)?;
            return Ok(asked);
        }
        let known = self.host.cluster.types();
        let serves = |name: &&TypeName| known.iter().any(|info| info.name == **name && info.model == *model);
        let found = types.iter().find(serves).cloned();
        let tenant = &caller.tenant;
        let nothing =
            || InferenceError::NotPermitted(format!("none of the types that may serve tenant `{tenant}` has model `{model}`"));
        asked.node_type = Some(found.ok_or_else(nothing)?);
        Ok(asked)
    }

    /// Fills in what the request leaves out. A published module takes what its model takes.
    pub(crate) fn resolve(
        &self,
        asked: Asked,
        caller: &Caller,
        deadline: Option<std::time::Instant>,
    ) -> Result<GenerateRequest, InferenceError> {
        let (name, engine) = self.engine_for(caller, asked.model.as_ref())?;
        let asked = self.permitted(asked, caller, &name)?;
        let request = asked.resolve(engine.info(), new_request_id, deadline)?;
        Ok(GenerateRequest { model: name, share: caller.share(), ..request })
    }
}

/// The end of `work`, or that the deadline passed.
pub(crate) async fn within<T>(deadline: Option<Deadline>, work: impl Future<Output = T>) -> Result<T, InferenceError> {
    match deadline {
        None => Ok(work.await),
        Some(deadline) => timeout_at(deadline.edge, work).await.map_err(|_| InferenceError::DeadlineExceeded { n_generated: 0 }),
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

/// The error names only what the caller may know of.
pub(crate) fn known_to(caller: &Caller, error: InferenceError) -> InferenceError {
    match error {
        InferenceError::UnknownModel { model, mut loaded } => {
            loaded.retain(|model| caller.has_model(model));
            InferenceError::UnknownModel { model, loaded }
        }
        error => error,
    }
}

/// 64 random bits: unique among the requests that one log is searched for.
pub(crate) fn new_request_id() -> RequestId {
    format!("{:016x}", rand::random::<u64>()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_without_end_is_given_up_before_the_transport_does() {
        let received = Instant::now();
        let timeout = Duration::from_secs(3);
        let late = within(Some(Deadline::new(received, timeout)), std::future::pending::<()>()).await.unwrap_err();
        assert_eq!(late, InferenceError::DeadlineExceeded { n_generated: 0 });
        assert!(received.elapsed() < timeout, "{:?}", received.elapsed());
    }

    #[test]
    fn request_ids_differ() {
        assert_ne!(new_request_id(), new_request_id());
    }
}

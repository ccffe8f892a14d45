//! Models that come and go, for those who operate a host.

use std::sync::Arc;

use llambo_inference::{ModelName, TypeName};
use llambo_proto::{
    convert,
    status::Failure,
    v1::{self, models_server::Models},
};
use tonic::{Request, Response, Status};

use super::{invalid, invalid_field, not_done};
use crate::{
    Host,
    desk::{LoadedModel, ModelError, WantedModel},
};

/// As for types of the configuration.
const MAX_COUNT: u32 = 200_000;

pub(super) struct Service {
    pub(super) host: Arc<Host>,
}

#[tonic::async_trait]
impl Models for Service {
    async fn load_model(&self, request: Request<v1::LoadModelRequest>) -> Result<Response<v1::LoadModelResponse>, Status> {
        let v1::LoadModelRequest { name, r#type, count, context, sequences, pin } = request.into_inner();
        for (field, value, range) in
            [("count", count, 1..=MAX_COUNT), ("context", context, 64..=1 << 20), ("sequences", sequences, 1..=256)]
        {
            if value > 0 && !range.contains(&value) {
                return Err(invalid_field(field, value, &format!("between {} and {}", range.start(), range.end())));
            }
        }
        let given = |n: u32| (n > 0).then_some(n);
        let name = named(&name)?;
        let wanted = WantedModel {
            name: name.clone(),
            node_type: (!r#type.is_empty()).then(|| TypeName::from(&r#type)),
            count: given(count),
            context: given(context),
            sequences: given(sequences),
            pin,
        };
        // to its end also when the client leaves: half of it would be a model without nodes
        let desk = Arc::clone(&self.host.desk);
        let loading = tokio::spawn(async move { desk.load(wanted).await });
        let loaded = loading.await.map_err(|_| Status::internal("loading it failed by a fault of the host; see its log"))?;
        let LoadedModel { was_loaded, took, unloaded } = loaded.map_err(|e| refused(&e))?;
        Ok(Response::new(v1::LoadModelResponse {
            model: self.host.models.get(&name).ok().map(|engine| told(&self.host, convert::model(engine.info(), engine.load()))),
            was_loaded,
            load_ms: took.as_secs_f64() * 1e3,
            unloaded: unloaded.iter().map(ModelName::to_string).collect(),
        }))
    }

    async fn unload_model(&self, request: Request<v1::UnloadModelRequest>) -> Result<Response<v1::UnloadModelResponse>, Status> {
        let v1::UnloadModelRequest { name, retire } = request.into_inner();
        let done = self.host.desk.unload(named(&name)?, retire).await.map_err(|e| refused(&e))?;
        Ok(Response::new(v1::UnloadModelResponse { freed_bytes: done.freed_bytes, draining: done.draining }))
    }

    async fn pin_model(&self, request: Request<v1::PinModelRequest>) -> Result<Response<v1::PinModelResponse>, Status> {
        let v1::PinModelRequest { name, pinned } = request.into_inner();
        self.host.desk.pin(named(&name)?, pinned).map_err(|e| refused(&e))?;
        Ok(Response::new(v1::PinModelResponse {}))
    }
}

/// A model with how it stands; a published module stands as the model that it asks.
pub(crate) fn told(host: &Host, model: v1::Model) -> v1::Model {
    let name = if model.parent.is_empty() { &model.name } else { &model.parent };
    match host.desk.status(&ModelName::from(name)) {
        None => v1::Model { state: "loaded".into(), ..model },
        Some(status) => {
            v1::Model { state: status.state.into(), pinned: status.is_pinned, memory_bytes: status.memory_bytes, ..model }
        }
    }
}

fn named(name: &str) -> Result<ModelName, Status> {
    if name.is_empty() { Err(invalid("`name` is empty; name the model")) } else { Ok(name.into()) }
}

fn refused(error: &ModelError) -> Status {
    match error {
        ModelError::Cluster(error) => not_done(error),
        _ => Failure::new(error.reason(), error.to_string()).into_status(),
    }
}

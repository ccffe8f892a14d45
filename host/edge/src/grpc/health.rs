//! `grpc.health.v1`, by its specification: an unknown service is `NOT_FOUND` for Check, while Watch says `SERVICE_UNKNOWN`
//! and stays open. (The service that comes with tonic-health ends such a watch with an error, which makes clients retry.)

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt, stream};
use llambo_proto::SERVICES;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health};

use crate::{
    Host,
    serve::{Closing, closed},
};

pub(super) struct Service {
    pub(super) host: Arc<Host>,
    /// Changes when the host begins to drain.
    pub(super) serving: watch::Receiver<bool>,
    pub(super) closing: Closing,
}

#[tonic::async_trait]
impl Health for Service {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        if is_known(service) {
            return Ok(Response::new(response(told(!self.host.cluster.is_draining()))));
        }
        let message = format!("service {service:?} is unknown; ask for the empty name, {:?} or {:?}", SERVICES[0], SERVICES[1]);
        Err(Status::not_found(message))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let statuses = if is_known(&request.get_ref().service) {
            let mut serving = self.serving.clone();
            serving.mark_changed();
            stream::unfold(serving, |mut serving| async move {
                serving.changed().await.ok()?;
                let status = told(*serving.borrow_and_update());
                Some((status, serving))
            })
            .boxed()
        } else {
            // services of a host do not change while it runs
            stream::iter([ServingStatus::ServiceUnknown]).chain(stream::pending()).boxed()
        };
        let messages = statuses.map(|status| Ok(response(status))).take_until(closed(self.closing.clone()));
        Ok(Response::new(messages.boxed()))
    }
}

fn is_known(service: &str) -> bool {
    service.is_empty() || SERVICES.contains(&service)
}

fn told(is_serving: bool) -> ServingStatus {
    if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

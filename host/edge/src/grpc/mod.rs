//! The services of `llambo.proto`, health and reflection.

pub(crate) mod cluster;
mod events;
mod faults;
mod health;
mod hosts;
mod inference;
pub(crate) mod models;
mod modules;
mod policies;
mod replay;
pub(crate) mod route;
mod sessions;

use std::sync::Arc;

use llambo_inference::{InferenceError, ModelName, TypeName};
use llambo_orchestrator::{ClusterError, DispatchError};
use llambo_proto::{
    FILE_DESCRIPTOR_SET,
    status::{self, Failure},
    v1::{
        cluster_server::ClusterServer, faults_server::FaultsServer, inference_server::InferenceServer,
        models_server::ModelsServer, modules_server::ModulesServer, policies_server::PoliciesServer,
        sessions_server::SessionsServer,
    },
};
use tokio::sync::watch;
use tonic::{Status, service::Routes};
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder;

use crate::{Settings, door::Door, sessions::Conversing};

/// Everything that is served over gRPC.
pub(crate) fn routes(door: &Door, serving: watch::Receiver<bool>, settings: &Settings) -> Routes {
    let Door { host, closing, .. } = door;
    let max_request_bytes = settings.max_request_bytes;
    let reflection = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let sound = "descriptors made by the compiler are sound";
    let inference = inference::Service { door: door.clone() };
    let cluster = cluster::Service { host: Arc::clone(host), closing: closing.clone() };
    let models = models::Service { host: Arc::clone(host) };
    let modules = modules::Service { host: Arc::clone(host) };
    let max_module_bytes = settings.max_module_bytes.saturating_add(max_request_bytes);
    let policies = policies::Service { host: Arc::clone(host), closing: closing.clone() };
    let faults = faults::Service { host: Arc::clone(host) };
    let max_policy_bytes = settings.max_policy_bytes.saturating_add(max_request_bytes);
    let sessions = sessions::Service { conversing: Conversing { door: door.clone() } };
    let health = health::Service { host: Arc::clone(host), serving, closing: closing.clone() };
    Routes::new(InferenceServer::new(inference).max_decoding_message_size(max_request_bytes))
        .add_service(ClusterServer::new(cluster).max_decoding_message_size(max_request_bytes))
        .add_service(ModelsServer::new(models).max_decoding_message_size(max_request_bytes))
        .add_service(ModulesServer::new(modules).max_decoding_message_size(max_module_bytes))
        .add_service(PoliciesServer::new(policies).max_decoding_message_size(max_policy_bytes))
        .add_service(FaultsServer::new(faults).max_decoding_message_size(max_request_bytes))
        .add_service(SessionsServer::new(sessions).max_decoding_message_size(max_request_bytes))
        .add_service(HealthServer::new(health))
        .add_service(reflection().build_v1().expect(sound))
        .add_service(reflection().build_v1alpha().expect(sound))
}

fn invalid(message: impl Into<String>) -> Status {
    status::status(&InferenceError::InvalidRequest(message.into()))
}

/// A request field with a value that it cannot have.
pub(crate) fn invalid_field(field: &str, found: impl std::fmt::Display, allowed: &str) -> Status {
    Failure::new("INVALID_REQUEST", format!("`{field}` is {found}, but must be {allowed}"))
        .field(field, format!("must be {allowed}"))
        .into_status()
}

pub(crate) fn not_served(error: &DispatchError) -> Status {
    let mut failure = match error {
        DispatchError::Inference(error) => Failure::from(error),
        _ => Failure::new(error.reason(), error.to_string()),
    };
    if let Some(delay) = error.retry_after() {
        failure = failure.retry_after(delay);
    }
    match error {
        DispatchError::QueueFull { waiting, limit, .. } => {
            failure.with("waiting", waiting).with("limit", limit).quota("queue", format!("{waiting} of {limit} requests wait"))
        }
        DispatchError::WaitExpired { waited, .. } => {
            failure.with("waited_ms", waited.as_millis()).quota("nodes", "every node was busy all the time")
        }
        DispatchError::NoNode { model, node_type } => {
            failure.with("model", model).with("type", node_type.as_ref().map_or("", TypeName::as_str))
        }
        DispatchError::UnknownType { node_type, known } => {
            failure.with("type", node_type).with("known", joined(known.iter().map(TypeName::as_str)))
        }
        DispatchError::WrongModel { node_type, model, serves } => {
            failure.with("type", node_type).with("model", model).with("serves", joined(serves.iter().map(ModelName::as_str)))
        }
        DispatchError::QuotaExceeded { tenant, quota, limit, .. } => {
            failure.with("quota", quota).with("limit", limit).quota(tenant.as_str(), format!("{quota}: {limit}"))
        }
        DispatchError::NotAdmitted { reason, .. } => failure.with("policy_reason", reason),
        _ => failure,
    }
    .into_status()
}

fn not_done(error: &ClusterError) -> Status {
    let failure = Failure::new(error.reason(), error.to_string());
    match error {
        ClusterError::UnknownType { node_type, known } => {
            failure.with("type", node_type).with("known", joined(known.iter().map(TypeName::as_str)))
        }
        ClusterError::UnknownNode { node, total, .. } => failure.with("node", node).with("total", total),
        ClusterError::Draining => match DispatchError::Draining.retry_after() {
            Some(delay) => failure.retry_after(delay),
            None => failure,
        },
        _ => failure,
    }
    .into_status()
}

fn joined<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use llambo_proto::status::Details;
    use tonic::Code;

    use super::*;

    #[test]
    fn a_full_queue_says_how_full_and_when_to_come_back() {
        let retry_after = Duration::from_millis(250);
        let status = not_served(&DispatchError::QueueFull { waiting: 8, limit: 8, retry_after });
        let details = Details::of(&status);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!((details.reason.as_deref(), details.retry_after), (Some("QUEUE_FULL"), Some(retry_after)));
        assert_eq!(details.metadata["limit"], "8");
    }

    #[test]
    fn an_inference_error_keeps_its_own_reason() {
        let status = not_served(&InferenceError::Backend("x".into()).into());
        assert_eq!((status.code(), Details::of(&status).reason.as_deref()), (Code::Internal, Some("BACKEND_FAILED")));
    }

    #[test]
    fn a_field_out_of_range_is_named() {
        let status = invalid_field("limit", 7, "at most 5");
        assert_eq!(status.message(), "`limit` is 7, but must be at most 5");
        assert_eq!(Details::of(&status).fields, [("limit".to_owned(), "must be at most 5".to_owned())]);
    }
}

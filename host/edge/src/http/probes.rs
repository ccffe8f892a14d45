//! For whoever keeps the host running: probes and metrics.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use llambo_inference::NodeState;

use crate::Host;

/// States in which a node takes a request, now or as soon as it is done with another.
const ABLE: [NodeState; 3] = [NodeState::Ready, NodeState::Busy, NodeState::Hibernated];

pub(super) fn router(host: Arc<Host>) -> Router {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).route("/metrics", get(metrics)).with_state(host)
}

/// The process runs and answers. Says nothing about nodes: a restart would not help them.
async fn livez() -> &'static str {
    "alive\n"
}

/// Whether requests are served, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ability {
    Able,
    Draining,
    NoNodes,
}

/// Whether requests are served; how many nodes can, and how many there are.
pub(super) fn ability(host: &Host) -> (Ability, u32, u32) {
    let status = host.cluster.status();
    let total: u32 = status.nodes_by_state.values().sum();
    let able: u32 = ABLE.iter().filter_map(|state| status.nodes_by_state.get(state)).sum();
    let ability = match able {
        _ if status.draining => Ability::Draining,
        // what has gone to none comes back with the first who asks
        0 if host.cluster.types().iter().any(|info| info.scaling.is_some()) => Ability::Able,
        0 => Ability::NoNodes,
        _ => Ability::Able,
    };
    (ability, able, total)
}

/// Whether a balancer in front should send requests here.
async fn readyz(State(host): State<Arc<Host>>) -> (StatusCode, String) {
    match ability(&host) {
        (Ability::Draining, ..) => {
            (StatusCode::SERVICE_UNAVAILABLE, "draining: new requests are refused, those under way finish\n".into())
        }
        (Ability::NoNodes, _, total) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("no node can serve: none of {total} is ready; spawn some\n"))
        }
        (Ability::Able, 0, _) => (StatusCode::OK, "ready: no node is there, and the first request gets one\n".into()),
        (Ability::Able, able, total) => (StatusCode::OK, format!("ready: {able} of {total} nodes can serve\n")),
    }
}

/// Prometheus text.
async fn metrics(State(host): State<Arc<Host>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (host.metrics)())
}

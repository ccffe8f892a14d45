//! Probes and metrics for whoever keeps the host running.

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

pub(crate) fn router(host: Arc<Host>) -> Router {
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).route("/metrics", get(metrics)).with_state(host)
}

/// The process runs and answers. Says nothing about nodes: a restart would not help them.
async fn livez() -> &'static str {
    "alive\n"
}

/// Whether a balancer in front should send requests here.
async fn readyz(State(host): State<Arc<Host>>) -> (StatusCode, String) {
    let status = host.cluster.status();
    let total: u32 = status.nodes_by_state.values().sum();
    let able: u32 = ABLE.iter().filter_map(|state| status.nodes_by_state.get(state)).sum();
    if status.draining {
        (StatusCode::SERVICE_UNAVAILABLE, "draining: new requests are refused, those under way finish\n".into())
    } else if able == 0 {
        (StatusCode::SERVICE_UNAVAILABLE, format!("no node can serve: none of {total} is ready; spawn some\n"))
    } else {
        (StatusCode::OK, format!("ready: {able} of {total} nodes can serve\n"))
    }
}

/// Prometheus text, gauges fresh.
async fn metrics(State(host): State<Arc<Host>>) -> impl IntoResponse {
    (host.refresh_gauges)();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], host.metrics.render())
}

//! The cluster as one: a request that is answered whole, how it does, and whether it can serve.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{Extensions, StatusCode},
    routing::{get, post},
};
use futures::StreamExt;
use llambo_inference::{AnswerEvent, InferenceError};
use llambo_proto::v1;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::{OpenApi, ToSchema};

use super::{
    failure::{ApiError, ErrorBody},
    probes::{Ability, ability},
    reading::{json_bytes, parse},
    tasks::{Ask, Urgency, Usage},
};
use crate::{answer::Deadline, caller::Caller, door::Door, grpc};

/// What is served here, for programs.
#[derive(OpenApi)]
#[openapi(
    paths(execute, status, health),
    components(schemas(Ask, Executed, Status, Health, ErrorBody)),
    tags((name = "cluster", description = "The cluster as one"))
)]
pub(super) struct Doc;

/// A whole answer.
#[derive(Debug, Serialize, ToSchema)]
struct Executed {
    id: String,
    text: String,
    node: String,
    model: String,
    /// `stop` or `length`.
    finish_reason: &'static str,
    usage: Usage,
    /// From the host's receipt of the request to the first token.
    ttft_ms: f64,
    /// And to the end.
    total_ms: f64,
    /// Which tier served it, where there are several.
    tier: Option<Tier>,
}

/// Which tier served an answer, and why.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the fields are called as in gRPC")]
struct Tier {
    /// The node that ended it.
    node: String,
    /// That node's tier.
    tier: u32,
    /// The one that it should have been; null: any.
    wanted: Option<u32>,
    /// Who said so: `request`, `classifier` or `heuristic`; empty: nobody.
    by: String,
    /// Why, for people.
    reason: String,
    /// No node of the wanted tier was free.
    fell_back: bool,
}

/// Requests that should have had a tier, by the one that served them.
#[derive(Debug, Serialize, ToSchema)]
struct TierCount {
    wanted: u32,
    served: u32,
    requests: u64,
}

/// The cluster at a glance.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Status {
    version: String,
    strategy: String,
    uptime_seconds: f64,
    draining: bool,
    /// States with none are left out.
    nodes_by_state: BTreeMap<String, u32>,
    nodes_by_type: BTreeMap<String, u32>,
    queue: Queue,
    /// Since the start.
    totals: Totals,
    models: Vec<Model>,
    /// Memory of the host's process.
    resident_bytes: u64,
    /// Since the start; those that never were are left out.
    tiers: Vec<TierCount>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct Queue {
    waiting: u32,
    max_waiting: u32,
    in_flight: u32,
    max_in_flight: u32,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct Totals {
    requests: u64,
    finished: u64,
    failed: u64,
    cancelled: u64,
    rejected: u64,
    redispatched: u64,
    input_tokens: u64,
    output_tokens: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct Model {
    name: String,
    architecture: String,
    n_params: u64,
    size_bytes: u64,
    n_vocab: u32,
    n_embd: u32,
    n_context: u32,
    n_sequences: u32,
    sha256: String,
    n_running: u32,
    n_waiting: u32,
    /// `loaded`, `unloading`, `unloaded` or `loading`.
    state: String,
    pinned: bool,
    /// What it is counted with.
    memory_bytes: u64,
}

/// Whether requests are served.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok`, `draining` or `no_nodes`.
    status: &'static str,
    /// Nodes that can serve, now or as soon as they are done with another request.
    nodes_able: u32,
    nodes: u32,
    version: &'static str,
}

pub(super) fn router(door: &Door) -> Router {
    Router::new()
        .route("/cluster/execute", post(execute))
        .route("/cluster/status", get(status))
        .route("/health", get(health))
        .with_state(door.clone())
}

/// Answers a request whole. A client that goes away calls it off.
#[utoipa::path(
    post, path = "/cluster/execute", tag = "cluster", request_body = Ask,
    responses(
        (status = 200, body = Executed), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 413, body = ErrorBody), (status = 429, body = ErrorBody), (status = 503, body = ErrorBody),
        (status = 504, body = ErrorBody),
    )
)]
async fn execute(State(door): State<Door>, extensions: Extensions, request: Request) -> Result<Json<Executed>, ApiError> {
    let received = Instant::now();
    let caller = Caller::of(&extensions);
    let body = json_bytes(request, door.max_request_bytes).await?;
    let ask: Ask = parse(&body)?;
    drop(body);
    let deadline = ask.timeout_ms().map(|ms| Deadline::new(received, Duration::from_millis(ms)));
    let mut answer = door.ask(ask.asked(Urgency::Interactive)?, &caller, received, deadline).await?;
    let mut text = String::new();
    while let Some(event) = answer.next().await {
        match event? {
            AnswerEvent::Piece { text: piece, .. } => text.push_str(&piece),
            AnswerEvent::Finished(finished) => {
                let timing = answer.timing();
                return Ok(Json(Executed {
                    id: answer.id.to_string(),
                    text,
                    node: answer.node.to_string(),
                    model: answer.model.to_string(),
                    finish_reason: finished.reason.as_str(),
                    usage: finished.usage.into(),
                    ttft_ms: timing.ttft_ms,
                    total_ms: timing.total_ms,
                    tier: timing.tier.map(Tier::from),
                }));
            }
        }
    }
    Err(InferenceError::Backend("the answer broke off without an end".into()).into())
}

/// The cluster at a glance.
#[utoipa::path(get, path = "/cluster/status", tag = "cluster", responses((status = 200, body = Status)))]
async fn status(State(door): State<Door>) -> Json<Status> {
    Json(grpc::cluster::status(&door.host).into())
}

/// Whether requests are served.
#[utoipa::path(
    get, path = "/health", tag = "cluster",
    responses((status = 200, body = Health), (status = 503, description = "They are not", body = Health))
)]
async fn health(State(door): State<Door>) -> (StatusCode, Json<Health>) {
    let (ability, nodes_able, nodes) = ability(&door.host);
    let (code, status) = match ability {
        Ability::Able => (StatusCode::OK, "ok"),
        Ability::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        Ability::NoNodes => (StatusCode::SERVICE_UNAVAILABLE, "no_nodes"),
    };
    (code, Json(Health { status, nodes_able, nodes, version: env!("CARGO_PKG_VERSION") }))
}

impl From<v1::StatusResponse> for Status {
    fn from(status: v1::StatusResponse) -> Self {
        let queue = status.queue.map_or_else(Queue::default, |queue| Queue {
            waiting: queue.waiting,
            max_waiting: queue.max_waiting,
            in_flight: queue.in_flight,
            max_in_flight: queue.max_in_flight,
        });
        let totals = status.totals.map_or_else(Totals::default, |totals| Totals {
            requests: totals.requests,
            finished: totals.finished,
            failed: totals.failed,
            cancelled: totals.cancelled,
            rejected: totals.rejected,
            redispatched: totals.redispatched,
            input_tokens: totals.input_tokens,
            output_tokens: totals.output_tokens,
        });
        Self {
            version: status.version,
            strategy: status.strategy,
            uptime_seconds: status.uptime_seconds,
            draining: status.draining,
            nodes_by_state: status.nodes_by_state.into_iter().collect(),
            nodes_by_type: status.nodes_by_type.into_iter().collect(),
            queue,
            totals,
            models: status.models.into_iter().map(Model::from).collect(),
            resident_bytes: status.resident_bytes,
            tiers: status.tiers.into_iter().map(TierCount::from).collect(),
        }
    }
}

impl From<v1::TierServed> for Tier {
    fn from(tier: v1::TierServed) -> Self {
        let v1::TierServed { node, tier, wanted, by, reason, fell_back } = tier;
        Self { node, tier, wanted, by, reason, fell_back }
    }
}

impl From<v1::TierCount> for TierCount {
    fn from(count: v1::TierCount) -> Self {
        Self { wanted: count.wanted, served: count.served, requests: count.requests }
    }
}

impl From<v1::Model> for Model {
    fn from(model: v1::Model) -> Self {
        Self {
            name: model.name,
            architecture: model.architecture,
            n_params: model.n_params,
            size_bytes: model.size_bytes,
            n_vocab: model.n_vocab,
            n_embd: model.n_embd,
            n_context: model.n_context,
            n_sequences: model.n_sequences,
            sha256: model.sha256,
            n_running: model.n_running,
            n_waiting: model.n_waiting,
            state: model.state,
            pinned: model.pinned,
            memory_bytes: model.memory_bytes,
        }
    }
}

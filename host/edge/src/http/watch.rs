//! The cluster as it changes, for whoever looks on: its status each second, and each node as a place in a field.
//!
//! A field of 100,000 nodes is told once in runs of places that are alike, and then only what changed. What a watcher costs is one number in
//! the orchestrator and the places that changed; nothing is computed while nobody watches.

use std::{convert::Infallible, ops::RangeInclusive, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::sse::{Event, Sse},
    routing::get,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::{Stream, StreamExt, stream};
use llambo_orchestrator::{Cell, FieldWatch, Look, NodeEntry, Pulse};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::{
    cluster::Status,
    failure::{ApiError, ErrorBody},
};
use crate::{door::Door, grpc};

/// How often a watch tells, unless told otherwise, and what it may be; as over gRPC.
const DEFAULT_INTERVAL_MS: u32 = 1000;
const INTERVALS_MS: RangeInclusive<u32> = 100..=60_000;

/// What is served here, for programs.
#[derive(OpenApi)]
#[openapi(paths(watch, cell), components(schemas(Moment, Field, CellNode)))]
pub(super) struct Doc;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Milliseconds from one look to the next, 100 to 60000; 1000 unless told otherwise.
    #[serde(rename = "interval-ms")]
    interval_ms: Option<u32>,
    /// Whether nodes are told too, as events `field`.
    #[serde(default)]
    cells: bool,
    /// How often it is told, at least 1; until the client goes unless told otherwise.
    times: Option<u64>,
}

/// An event `status`.
#[derive(Debug, Serialize, ToSchema)]
struct Moment {
    status: Status,
    /// Tokens generated since the host started, those of answers under way included.
    generated_tokens: u64,
    /// Since the event before; null in the first.
    span: Option<Span>,
}

/// What happened between two looks.
#[derive(Debug, Serialize, ToSchema)]
struct Span {
    seconds: f64,
    /// Answers that began.
    first_tokens: u64,
    /// From the arrival of a request to its first token: what half of them took at most, right to a tenth; null if none began.
    ttft_p50_ms: Option<f64>,
    /// And 95 of 100.
    ttft_p95_ms: Option<f64>,
}

/// An event `field`: every node has a place for as long as it lives. Left out where nothing changed.
#[derive(Debug, Serialize, ToSchema)]
struct Field {
    /// Whether places that are not told have no node; otherwise they are as before.
    whole: bool,
    /// Kinds of nodes that were not told before.
    kinds: Vec<Kind>,
    /// The number of the first of them.
    first_kind: usize,
    /// Base64 of runs: places to skip, places that are alike, and what they are, each as LEB128. What a place is: 0 without a node, else the
    /// number of its kind times 8, plus 1 to 7 for `starting`, `ready`, `busy`, `hibernated`, `draining`, `stopped` and `failed`.
    runs: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct Kind {
    #[serde(rename = "type")]
    node_type: String,
    model: String,
}

/// The node at a place.
#[derive(Debug, Serialize, ToSchema)]
struct CellNode {
    id: String,
    #[serde(rename = "type")]
    node_type: String,
    model: String,
    state: &'static str,
    in_flight: u32,
    capacity: u32,
    /// Requests that it served.
    served: u64,
    memory_bytes: u64,
    /// Times that its guest was replaced.
    replaced: u64,
}

/// One who watches.
struct Watcher {
    door: Door,
    ticks: Interval,
    field: Option<FieldWatch>,
    before: Option<(Instant, Pulse)>,
}

pub(super) fn router(door: &Door) -> Router {
    Router::new().route("/cluster/watch", get(watch)).route("/cluster/cells/{place}", get(cell)).with_state(door.clone())
}

/// The cluster at a glance, again and again, as server-sent events `status`; with `cells=true` each node too, as events `field`.
#[utoipa::path(
    get, path = "/cluster/watch", tag = "cluster", params(Wanted),
    responses(
        (status = 200, description = "Events `status`; with `cells=true` also events `field`, each with a `Field`", content((Moment = "text/event-stream"))),
        (status = 400, body = ErrorBody),
    )
)]
async fn watch(
    State(door): State<Door>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let Query(Wanted { interval_ms, cells, times }) = wanted.map_err(|error| ApiError::invalid(error.body_text()))?;
    let interval_ms = interval_ms.unwrap_or(DEFAULT_INTERVAL_MS);
    if !INTERVALS_MS.contains(&interval_ms) {
        let what = format!("`interval-ms` is {interval_ms}, but must be 100 to 60000");
        return Err(ApiError::invalid(what).param("interval-ms"));
    }
    if times == Some(0) {
        return Err(ApiError::invalid("`times` is 0, but must be at least 1").param("times"));
    }
    let mut ticks = interval(Duration::from_millis(interval_ms.into()));
    // a client that was slow gets what is now, not all that it missed
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let closed = door.closed();
    let field = cells.then(|| door.host.cluster.watch_field());
    let watcher = Watcher { door, ticks, field, before: None };
    let events = stream::unfold(watcher, |mut watcher| async move {
        let events = watcher.next().await;
        Some((stream::iter(events.into_iter().map(Ok)), watcher))
    });
    let times = times.and_then(|times| usize::try_from(times).ok()).unwrap_or(usize::MAX);
    Ok(Sse::new(events.take(times).flatten().take_until(closed)))
}

/// The node at a place of the field.
#[utoipa::path(
    get, path = "/cluster/cells/{place}", tag = "cluster", params(("place" = u32, Path, description = "As in the events `field`")),
    responses((status = 200, body = CellNode), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody))
)]
async fn cell(State(door): State<Door>, Path(place): Path<String>) -> Result<Json<CellNode>, ApiError> {
    let place: u32 = place.parse().map_err(|_| {
        ApiError::invalid(format!("{place:?} is no place; it is a number, as `/cluster/watch?cells=true` tells it"))
            .param("place")
    })?;
    let node = door.host.cluster.node_at(place).ok_or_else(|| {
        let what = format!("there is no node at place {place}; it went, or there are not that many");
        ApiError::new(StatusCode::NOT_FOUND, "unknown_node", what)
    })?;
    Ok(Json(node.into()))
}

// === impl Watcher ===

impl Watcher {
    /// What is told at the next tick: the field first, so that whoever counts its places finds what the status says, or what is newer.
    async fn next(&mut self) -> Vec<Event> {
        self.ticks.tick().await;
        let look = self.field.as_mut().map(FieldWatch::look);
        let field = look.filter(|look| look.is_whole || !look.cells.is_empty()).map(|look| json("field", &Field::of(look)));
        field.into_iter().chain([json("status", &self.moment())]).collect()
    }

    fn moment(&mut self) -> Moment {
        let host = &self.door.host;
        let (now, pulse) = (Instant::now(), host.cluster.pulse());
        let span = self.before.as_ref().map(|(then, before)| {
            let ttft = pulse.ttft.since(&before.ttft);
            Span {
                seconds: (now - *then).as_secs_f64(),
                first_tokens: ttft.n(),
                ttft_p50_ms: ttft.percentile_ms(0.50),
                ttft_p95_ms: ttft.percentile_ms(0.95),
            }
        });
        let generated_tokens = pulse.generated_tokens;
        self.before = Some((now, pulse));
        Moment { status: grpc::cluster::status(host).into(), generated_tokens, span }
    }
}

// === impl Field ===

impl Field {
    fn of(look: Look) -> Self {
        let kind =
            |kind: llambo_orchestrator::CellKind| Kind { node_type: kind.node_type.to_string(), model: kind.model.to_string() };
        Self {
            whole: look.is_whole,
            runs: BASE64_STANDARD.encode(runs(look.cells.iter().map(|(place, cell)| (*place, number(*cell))))),
            kinds: look.new_kinds.into_iter().map(kind).collect(),
            first_kind: look.n_known_kinds,
        }
    }
}

fn number(cell: Option<Cell>) -> u32 {
    // states are few, kinds at most as many as nodes: 16,777,216
    cell.map_or(0, |cell| cell.kind << 3 | (cell.state as u32 + 1))
}

/// Places in order, with what each is, in the form that [`Field::runs`] tells.
fn runs(cells: impl Iterator<Item = (u32, u32)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // where the last run that was written ends, and the run that still grows
    let (mut end, mut run) = (0, None::<(u32, u32, u32)>);
    let mut write = |(start, length, value): (u32, u32, u32)| {
        for n in [start - end, length, value] {
            leb128(n, &mut bytes);
        }
        end = start + length;
    };
    for (place, value) in cells {
        match &mut run {
            Some((start, length, of)) if *start + *length == place && *of == value => *length += 1,
            grown => {
                if let Some(done) = grown.replace((place, 1, value)) {
                    write(done);
                }
            }
        }
    }
    run.into_iter().for_each(&mut write);
    bytes
}

fn leb128(mut n: u32, bytes: &mut Vec<u8>) {
    while n >= 0x80 {
        bytes.push(n.to_le_bytes()[0] | 0x80);
        n >>= 7;
    }
    bytes.push(n.to_le_bytes()[0]);
}

// === impl CellNode ===

impl From<NodeEntry> for CellNode {
    fn from(NodeEntry { view, in_flight }: NodeEntry) -> Self {
        Self {
            id: view.id.to_string(),
            node_type: view.node_type.to_string(),
            model: view.model.to_string(),
            state: view.state.as_str(),
            in_flight,
            capacity: view.capacity,
            served: view.served,
            memory_bytes: view.memory_bytes,
            replaced: view.replaced,
        }
    }
}

fn json(name: &str, data: &impl Serialize) -> Event {
    // strings and numbers, which JSON has, and no line breaks, which events have not
    Event::default().event(name).data(serde_json::to_string(data).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use llambo_inference::NodeState;

    use super::*;

    #[test]
    fn places_that_are_alike_are_one_run() {
        let alike: Vec<(u32, u32)> = (0..100_000).map(|place| (place, 2)).collect();
        assert_eq!(runs(alike.into_iter()), [0, 0xa0, 0x8d, 0x06, 2]);
        let apart = [(3, 2), (4, 2), (5, 3), (7, 3), (300, 2), (301, 2)];
        assert_eq!(runs(apart.into_iter()), [3, 2, 2, 0, 1, 3, 1, 1, 3, 0xa4, 0x02, 2, 2]);
        assert!(runs(std::iter::empty()).is_empty());
    }

    #[test]
    fn what_a_place_is_has_its_kind_and_its_state() {
        assert_eq!(number(None), 0);
        assert_eq!(number(Some(Cell { state: NodeState::Starting, kind: 0 })), 1);
        assert_eq!(number(Some(Cell { state: NodeState::Failed, kind: 5 })), 47);
    }

    #[test]
    fn a_thousand_changes_among_a_hundred_thousand_take_four_bytes_each() {
        let changes = (0..1000).map(|i| (i * 97, 3));
        assert!(runs(changes).len() <= 4000);
    }
}

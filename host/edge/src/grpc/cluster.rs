//! The cluster, for its operators.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use llambo_inference::{InferenceError, NodeId, NodeState, TypeName};
use llambo_orchestrator::{DrainTarget, NodeEntry, NodeFilter, TierCount};
use llambo_proto::{
    convert,
    v1::{self, cluster_server::Cluster},
};
use tokio::time::{MissedTickBehavior, interval};
use tonic::{Request, Response, Status};

use super::{events, hosts, invalid, invalid_field, models, not_done};
use crate::{
    Host, memory,
    serve::{Closing, closed},
};

/// Nodes of one answer, unless told otherwise and at most.
const DEFAULT_LIMIT: u32 = 1000;
const MAX_LIMIT: u32 = 200_000;
/// Nodes told of by name; `ListNodes` has the rest.
const TOLD: usize = 100;
/// How often a watch tells, unless told otherwise, and what it may be.
const DEFAULT_INTERVAL_MS: u32 = 1000;
const INTERVALS_MS: std::ops::RangeInclusive<u32> = 100..=60_000;

pub(super) struct Service {
    pub(super) host: Arc<Host>,
    pub(super) closing: Closing,
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn spawn(&self, request: Request<v1::SpawnRequest>) -> Result<Response<v1::SpawnResponse>, Status> {
        let v1::SpawnRequest { r#type, count } = request.into_inner();
        let node_type = required_type(&r#type)?;
        if count == 0 {
            return Err(invalid_field("count", 0, "at least 1"));
        }
        let done = self.host.cluster.spawn(&node_type, count).await.map_err(|e| not_done(&e))?;
        let (nodes, spawned) = told(done.nodes, |node| node.to_string());
        Ok(Response::new(v1::SpawnResponse { nodes, spawned, spawn_p50_us: done.spawn_p50_us, spawn_p99_us: done.spawn_p99_us }))
    }

    async fn scale(&self, request: Request<v1::ScaleRequest>) -> Result<Response<v1::ScaleResponse>, Status> {
        let v1::ScaleRequest { r#type, count } = request.into_inner();
        let node_type = required_type(&r#type)?;
        let done = self.host.cluster.scale(&node_type, count).await.map_err(|e| not_done(&e))?;
        Ok(Response::new(v1::ScaleResponse { before: done.before, after: done.after }))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        let v1::DrainRequest { nodes, r#type } = request.into_inner();
        let cluster = &self.host.cluster;
        if nodes.is_empty() && r#type.is_empty() {
            let draining = cluster.status().nodes_by_state.values().sum();
            tracing::info!(nodes = draining, "a client drains the host");
            cluster.start_drain();
            (self.host.on_drain)();
            return Ok(Response::new(v1::DrainResponse { draining }));
        }
        let target = target(&nodes, &r#type, "drain")?;
        let draining = cluster.drain(&target).map_err(|e| not_done(&e))?;
        Ok(Response::new(v1::DrainResponse { draining }))
    }

    async fn hibernate(&self, request: Request<v1::HibernateRequest>) -> Result<Response<v1::HibernateResponse>, Status> {
        let v1::HibernateRequest { nodes, r#type } = request.into_inner();
        let target = target(&nodes, &r#type, "hibernate")?;
        let done = self.host.cluster.hibernate(&target).await.map_err(|e| not_done(&e))?;
        let (refused, n_refused) = told(done.refused, refusal);
        Ok(Response::new(v1::HibernateResponse { hibernated: done.nodes, bytes: done.bytes, refused, n_refused }))
    }

    async fn wake(&self, request: Request<v1::WakeRequest>) -> Result<Response<v1::WakeResponse>, Status> {
        let v1::WakeRequest { nodes, r#type, adopt } = request.into_inner();
        if adopt {
            if !nodes.is_empty() || !r#type.is_empty() {
                return Err(invalid("`adopt` is set together with `nodes` or `type`; adopt, or wake what is there"));
            }
            let done = self.host.cluster.adopt().await.map_err(|e| not_done(&e))?;
            let mismatch = |(name, message)| v1::Refusal { name, reason: "MISMATCH".to_owned(), message };
            let (adopted, n_adopted) = told(done.nodes, |node| node.to_string());
            let (refused, n_refused) = told(done.refused, mismatch);
            return Ok(Response::new(v1::WakeResponse { adopted, n_adopted, refused, n_refused, ..v1::WakeResponse::default() }));
        }
        let target = target(&nodes, &r#type, "wake")?;
        let done = self.host.cluster.wake(&target).await.map_err(|e| not_done(&e))?;
        let (refused, n_refused) = told(done.refused, refusal);
        Ok(Response::new(v1::WakeResponse {
            woken: done.nodes,
            bytes: done.bytes,
            refused,
            n_refused,
            ..v1::WakeResponse::default()
        }))
    }

    async fn list_nodes(&self, request: Request<v1::ListNodesRequest>) -> Result<Response<v1::ListNodesResponse>, Status> {
        let v1::ListNodesRequest { r#type, state, limit, offset } = request.into_inner();
        let limit = match limit {
            0 => DEFAULT_LIMIT,
            1..=MAX_LIMIT => limit,
            _ => return Err(invalid_field("limit", limit, "at most 200000; ask for more with `offset`")),
        };
        let state = match state.as_str() {
            "" => None,
            name => Some(NodeState::ALL.into_iter().find(|state| state.as_str() == name).ok_or_else(|| {
                let names = NodeState::ALL.map(NodeState::as_str).join(", ");
                invalid_field("state", format!("{name:?}"), &format!("one of {names}"))
            })?),
        };
        let filter = NodeFilter { node_type: (!r#type.is_empty()).then(|| TypeName::from(&r#type)), state };
        let page = self.host.cluster.list(&filter, offset as usize, limit as usize).map_err(|e| not_done(&e))?;
        let nodes = page.nodes.into_iter().map(node).collect();
        Ok(Response::new(v1::ListNodesResponse { nodes, total: n(page.total) }))
    }

    async fn list_hosts(&self, _: Request<v1::ListHostsRequest>) -> Result<Response<v1::ListHostsResponse>, Status> {
        // it asks files and drivers
        let hardware = Arc::clone(&self.host.hardware);
        let found = tokio::task::spawn_blocking(move || hardware()).await;
        let hardware = found.map_err(|_| invalid("this host cannot tell what its machine has"))?;
        Ok(Response::new(v1::ListHostsResponse { hosts: vec![hosts::this(&status(&self.host), hardware)] }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(status(&self.host)))
    }

    type WatchStatusStream = Pin<Box<dyn Stream<Item = Result<v1::StatusResponse, Status>> + Send>>;

    async fn watch_status(&self, request: Request<v1::WatchStatusRequest>) -> Result<Response<Self::WatchStatusStream>, Status> {
        let interval_ms = match request.into_inner().interval_ms {
            0 => DEFAULT_INTERVAL_MS,
            ms if INTERVALS_MS.contains(&ms) => ms,
            ms => return Err(invalid_field("interval_ms", ms, "between 100 and 60000")),
        };
        let mut ticks = interval(Duration::from_millis(interval_ms.into()));
        // a client that was slow gets the status now, not all those it missed
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let host = Arc::clone(&self.host);
        let statuses = stream::unfold((ticks, host), |(mut ticks, host)| async move {
            ticks.tick().await;
            Some((Ok(status(&host)), (ticks, host)))
        });
        Ok(Response::new(statuses.take_until(closed(self.closing.clone())).boxed()))
    }

    type WatchEventsStream = Pin<Box<dyn Stream<Item = Result<v1::WatchEventsResponse, Status>> + Send>>;

    async fn watch_events(&self, request: Request<v1::WatchEventsRequest>) -> Result<Response<Self::WatchEventsStream>, Status> {
        let events = events::watch(&self.host, request.into_inner())?;
        Ok(Response::new(events.take_until(closed(self.closing.clone())).boxed()))
    }

    async fn get_balancer(&self, _: Request<v1::GetBalancerRequest>) -> Result<Response<v1::GetBalancerResponse>, Status> {
        let report = self.host.cluster.balancer_report();
        Ok(Response::new(v1::GetBalancerResponse {
            strategy: report.strategy.to_owned(),
            available: llambo_strategy::NAMES.iter().map(ToString::to_string).collect(),
            choices: report.choices,
            choice_p50_ns: report.choice_p50_ns,
            choice_p99_ns: report.choice_p99_ns,
            served_max: report.served_max,
            served_min: report.served_min,
            policy: live_balancer(&self.host),
        }))
    }

    async fn set_balancer(&self, request: Request<v1::SetBalancerRequest>) -> Result<Response<v1::SetBalancerResponse>, Status> {
        let done = self.host.cluster.set_balancer(&request.into_inner().strategy).map_err(|e| not_done(&e))?;
        tracing::info!(before = done.before, after = done.after, "the balancing strategy was switched");
        Ok(Response::new(v1::SetBalancerResponse { before: done.before.to_owned(), after: done.after.to_owned() }))
    }
}

fn live_balancer(host: &Host) -> Option<v1::PolicyRef> {
    let live = |status: &llambo_strategy::PolicyStatus| {
        (status.kind, status.policy.role) == (llambo_strategy::PolicyKind::Balancer, llambo_strategy::Role::Live)
    };
    host.policies.list().iter().find(|status| live(status)).map(|status| super::route::policy(&status.policy))
}

/// Nodes or a type, and not both.
fn target(nodes: &[String], node_type: &str, verb: &str) -> Result<DrainTarget, Status> {
    match (nodes.is_empty(), node_type.is_empty()) {
        (false, false) => Err(invalid(format!("`nodes` and `type` are both set; {verb} either nodes or a type"))),
        (true, true) => Err(invalid(format!("neither `nodes` nor `type` is set; name what to {verb}"))),
        (false, true) => Ok(DrainTarget::Nodes(nodes.iter().map(NodeId::from).collect())),
        (true, false) => Ok(DrainTarget::Type(TypeName::from(node_type))),
    }
}

/// The first of them, as they are told, and how many there are.
fn told<T, U>(all: Vec<T>, one: impl FnMut(T) -> U) -> (Vec<U>, u32) {
    let n_all = n(all.len());
    (all.into_iter().take(TOLD).map(one).collect(), n_all)
}

fn refusal((id, error): (NodeId, InferenceError)) -> v1::Refusal {
    v1::Refusal { name: id.to_string(), reason: error.reason().to_owned(), message: error.to_string() }
}

fn required_type(name: &str) -> Result<TypeName, Status> {
    if name.is_empty() { Err(invalid("`type` is empty; name a node type")) } else { Ok(name.into()) }
}

fn node(entry: NodeEntry) -> v1::Node {
    let NodeEntry { view, in_flight, ttft_us, latency_us, failures } = entry;
    v1::Node {
        ttft_us: ttft_us.into(),
        latency_us: latency_us.into(),
        failures: failures.into(),
        id: view.id.to_string(),
        r#type: view.node_type.to_string(),
        model: view.model.to_string(),
        state: view.state.as_str().to_owned(),
        in_flight,
        capacity: view.capacity,
        served: view.served,
        memory_bytes: view.memory_bytes,
        weight: view.weight,
        replaced: view.replaced,
    }
}

pub(crate) fn status(host: &Host) -> v1::StatusResponse {
    let status = host.cluster.status();
    let totals = status.totals;
    v1::StatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        strategy: status.strategy.to_owned(),
        uptime_seconds: status.uptime.as_secs_f64(),
        draining: status.draining,
        nodes_by_state: status.nodes_by_state.iter().filter(|(_, n)| **n > 0).map(|(s, n)| (s.as_str().to_owned(), *n)).collect(),
        nodes_by_type: status.nodes_by_type.iter().map(|(name, n)| (name.to_string(), *n)).collect(),
        queue: Some(v1::QueueStatus {
            waiting: n(status.waiting),
            max_waiting: n(status.max_waiting),
            in_flight: n(status.in_flight),
            max_in_flight: n(status.max_in_flight),
        }),
        totals: Some(v1::Totals {
            requests: totals.requests,
            finished: totals.finished,
            failed: totals.failed,
            cancelled: totals.cancelled,
            rejected: totals.rejected,
            redispatched: totals.redispatched,
            input_tokens: totals.input_tokens,
            output_tokens: totals.output_tokens,
        }),
        models: host.models.all().iter().map(|engine| models::told(host, convert::model(engine.info(), engine.load()))).collect(),
        resident_bytes: memory::resident_bytes(),
        tiers: status.tiers.into_iter().map(tier_count).collect(),
    }
}

fn tier_count(count: TierCount) -> v1::TierCount {
    v1::TierCount { wanted: count.wanted.into(), served: count.served.into(), requests: count.requests }
}

/// A count as the wire has it.
fn n(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

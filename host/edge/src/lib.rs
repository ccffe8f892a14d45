//! The doors of a host: gRPC for clients and operators, HTTP for probes and metrics.
//!
//! The edge reads requests, fills in what they leave out, gives them to the orchestrator's one door, and writes answers
//! and errors in the form that `llambo.proto` promises. It knows no nodes and holds no queue: what it cannot pass on at
//! once it refuses. A client that goes away drops its stream, and with it everything behind it.
//!
//! ```text
//!  bind ──► serve ──► (Drain, or the program's own signal: health NOT_SERVING, answers go on) ──► shutdown ──► closed
//! ```

mod grpc;
mod http;
mod memory;
mod meter;
mod modules;
mod serve;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use llambo_inference::{ModelName, Models};
use llambo_orchestrator::Cluster;
use metrics_exporter_prometheus::PrometheusHandle;

pub use meter::describe_metrics;
pub use modules::{LoadedModule, ModuleError, Modules, NewModule, NoModules, PublishedModule, TrialReport};
pub use serve::{Bound, EdgeError};

/// Where the edge listens and what it lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Address for gRPC; port 0 takes any free one.
    pub grpc: SocketAddr,
    /// Address for HTTP; port 0 takes any free one.
    pub http: SocketAddr,
    /// Bytes of one request at most, as encoded.
    pub max_request_bytes: usize,
    /// Bytes of a module that is published at most.
    pub max_module_bytes: usize,
    /// Calls that one connection may have open at a time; a client's further calls wait on its side.
    pub max_streams_per_connection: u32,
    /// How long a client may take nothing of its answer before its node is given to others.
    pub client_stall_timeout: Duration,
}

/// What runs when something outside happens. Called from the edge's own tasks: must not block.
pub type Hook = Arc<dyn Fn() + Send + Sync>;

/// What the edge is a door to.
#[derive(Clone)]
pub struct Host {
    /// Nodes and the way to them.
    pub cluster: Cluster,
    /// Models that can be asked.
    pub models: Models,
    /// What clients published.
    pub modules: Arc<dyn Modules>,
    /// The model of requests that name none.
    pub default_model: ModelName,
    /// Where `/metrics` comes from.
    pub metrics: PrometheusHandle,
    /// Called before metrics are rendered, to bring gauges up to date.
    pub refresh_gauges: Hook,
    /// Called when a client drains the whole host, after the cluster began to refuse new requests. The program then waits
    /// for what is under way and ends; the edge serves until it does.
    pub on_drain: Hook,
}

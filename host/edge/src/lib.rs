//! The doors of a host: gRPC for clients and operators, HTTP for probes and metrics.
//!
//! The edge reads requests, fills in what they leave out, gives them to the orchestrator's one door, and writes answers
//! and errors in the form that `llambo.proto` promises. It knows no nodes and holds no queue: what it cannot pass on at
//! once it refuses. `access` knows who asks and what they may, `listen` what a connection may take up. A client that goes away drops its stream, and with it everything behind it.
//!
//! ```text
//!  bind ──► serve ──► (Drain, or the program's own signal: health NOT_SERVING, answers go on) ──► shutdown ──► closed
//! ```

mod access;
mod answer;
mod caller;
mod desk;
mod door;
mod embed;
mod grpc;
mod http;
mod listen;
mod memory;
mod meter;
mod modules;
mod pump;
mod serve;
mod sessions;
mod trace;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use llambo_hardware::Machine;
use llambo_inference::{ModelName, Models};
use llambo_orchestrator::Cluster;
use llambo_sessions::Sessions;
use llambo_strategy::PolicyDesk;
use llambo_tasks::Tasks;

pub use access::{AccessSettings, Permission, TenantAccess, TokenHash, TokensError, read_tokens};
pub use desk::{FixedModels, LoadedModel, ModelDesk, ModelError, ModelStatus, UnloadedModel, WantedModel};
pub use listen::{Limits, TlsError, TlsSettings, check_tls};
pub use modules::{LoadedModule, ModuleError, Modules, NewModule, NoModules, PublishedModule, TrialReport};
pub use serve::{Bound, EdgeError};

/// Where the edge listens and what it lets in.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Address for gRPC; port 0 takes any free one.
    pub grpc: SocketAddr,
    /// Address for HTTP; port 0 takes any free one.
    pub http: SocketAddr,
    /// Bytes of one request at most, as encoded.
    pub max_request_bytes: usize,
    /// Bytes of a module that is published at most.
    pub max_module_bytes: usize,
    /// Bytes of a policy at most.
    pub max_policy_bytes: usize,
    /// Calls that one connection may have open at a time; a client's further calls wait on its side.
    pub max_streams_per_connection: u32,
    /// How long a client may take nothing of its answer before its node is given to others.
    pub client_stall_timeout: Duration,
    /// Whether the page for people is served at `/`.
    pub page: bool,
    /// Who is let in, and what connections may take up.
    pub security: Security,
    /// The share of requests that are traced though their clients say nothing of traces, 0 to 1; `None`: nothing is traced.
    pub trace_sample: Option<f64>,
}

/// Who is let in, and what connections may take up. The default lets everybody in, unencrypted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Security {
    /// Who may send requests.
    pub access: AccessSettings,
    /// Encryption of both ports.
    pub tls: Option<TlsSettings>,
    /// What connections may take up.
    pub limits: Limits,
}

/// Describes the edge's metrics to the recorder; call once, after it is installed.
pub fn describe_metrics() {
    meter::describe_metrics();
    listen::describe_metrics();
    access::describe_metrics();
}

/// What runs when something outside happens. Called from the edge's own tasks: must not block.
pub type Hook = Arc<dyn Fn() + Send + Sync>;

/// Writes a page that somebody asked for.
pub type Page = Arc<dyn Fn() -> String + Send + Sync>;

/// Looks at the machine. Called from a thread that may block.
pub type Look = Arc<dyn Fn() -> Hardware + Send + Sync>;

/// What the machine has, and what of it computes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// The machine.
    pub machine: Machine,
    /// What llama.cpp computes on.
    pub devices: Vec<ComputeDevice>,
}

/// Something that llama.cpp computes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComputeDevice {
    /// As the configuration names it.
    pub name: String,
    /// As its maker calls it.
    pub description: String,
    /// Whether it is a graphics card.
    pub is_gpu: bool,
    /// 0 where its driver does not say.
    pub memory_bytes: u64,
}

/// What the edge is a door to.
#[derive(Clone)]
pub struct Host {
    /// Nodes and the way to them.
    pub cluster: Cluster,
    /// Models that can be asked.
    pub models: Models,
    /// Who loads and unloads them.
    pub desk: Arc<dyn ModelDesk>,
    /// What clients published.
    pub modules: Arc<dyn Modules>,
    /// Who decides in the place of what is built in.
    pub policies: Arc<dyn PolicyDesk>,
    /// Requests that are answered later.
    pub tasks: Tasks,
    /// Conversations that are kept for clients.
    pub sessions: Sessions,
    /// The model of requests that name none.
    pub default_model: ModelName,
    /// Writes the page of metrics, up to date. Called from the edge's own tasks: must not block.
    pub metrics: Page,
    /// Looks at the machine.
    pub hardware: Look,
    /// Called when a client drains the whole host, after the cluster began to refuse new requests. The program then waits
    /// for what is under way and ends; the edge serves until it does.
    pub on_drain: Hook,
}

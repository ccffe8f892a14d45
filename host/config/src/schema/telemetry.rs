//! What a host tells others about itself.

use super::FilePath;

/// The page of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Whether it has the names of llama-server and vLLM too.
    pub aliases: bool,
}

/// Traces that are sent away.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// Where a collector listens, with `http://`; `None`: what OpenTelemetry's environment says, and nowhere without it.
    pub otlp: Option<String>,
    /// What it speaks; `None`: what the environment says, and gRPC without it.
    pub protocol: Option<OtlpProtocol>,
    /// The share of requests that are traced though their clients say nothing of traces, 0 to 1.
    pub sample: f64,
    /// A file with headers for the collector, which may be secrets.
    pub headers_file: Option<FilePath>,
    /// The host's name among services; `None`: what the environment says, and `llambo` without it.
    pub service_name: Option<String>,
}

/// OTLP's transports. Both carry protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// gRPC.
    Grpc,
    /// HTTP.
    Http,
}

impl OtlpProtocol {
    pub(crate) const NAMES: &[(&str, Self)] = &[("grpc", Self::Grpc), ("http", Self::Http)];
}

//! Where requests come in, and who may send them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{FilePath, named};

/// Where requests come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// gRPC listens here. Port 0 takes any free port.
    pub grpc: SocketAddr,
    /// HTTP listens here. Port 0 takes any free port.
    pub http: SocketAddr,
    /// Bytes of one request at most.
    pub max_request_bytes: u64,
    /// Whether the page for people is served.
    pub page: bool,
    /// How long a client may take nothing of its answer before the request is given up.
    pub client_stall_timeout: Duration,
    /// Whether every danger of an address that other machines reach was accepted.
    pub insecure: bool,
    /// Who may send requests.
    pub access: Access,
    /// Whether `/metrics` is for everybody; `None`: where HTTP listens on loopback.
    pub open_metrics: Option<bool>,
    /// Encryption of both ports.
    pub tls: Option<Tls>,
    /// Connections open at a time, of both ports together.
    pub max_connections: u32,
    /// Bytes of all headers of a request.
    pub max_header_bytes: u32,
    /// How long a client may take to send the head of its request.
    pub header_timeout: Duration,
    /// How long an HTTP/1 connection may stay open without a request.
    pub idle_timeout: Duration,
}

/// Who may send requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Whoever reaches the port. Those who show a token are told by it all the same.
    #[default]
    Open,
    /// Tenants, who show a token or a certificate.
    Tokens,
}

/// Encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM file with the host's certificate and those between it and a root.
    pub certificate: FilePath,
    /// PEM file with its private key.
    pub key: FilePath,
    /// PEM file with the roots of client certificates; `None`: clients need none.
    pub client_ca: Option<FilePath>,
    /// Whether a client without a certificate is turned away.
    pub require_client_certificate: bool,
}

/// What a tenant may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Ask models.
    Infer,
    /// Give tasks.
    Tasks,
    /// Hold sessions.
    Sessions,
    /// Publish guest modules.
    Modules,
    /// Load policies.
    Policies,
    /// Change nodes and balancing, and end the host.
    Operate,
    /// See status, nodes and metrics.
    Observe,
}

/// Why an address should not be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Whoever reaches it may do everything.
    Open,
    /// Tokens, prompts and answers can be read on their way.
    Clear,
}

// === impl Network ===

impl Network {
    /// Why `address` should not be served, unless that was accepted.
    pub fn exposure(&self, address: SocketAddr) -> Option<Exposure> {
        if self.insecure || is_loopback(address.ip()) {
            return None;
        }
        match (self.access, &self.tls) {
            (Access::Open, _) => Some(Exposure::Open),
            (Access::Tokens, None) => Some(Exposure::Clear),
            (Access::Tokens, Some(_)) => None,
        }
    }

    /// Whether everybody may see `/metrics`.
    pub fn metrics_are_open(&self) -> bool {
        self.access == Access::Open || self.open_metrics.unwrap_or_else(|| is_loopback(self.http.ip()))
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

// === impl Exposure ===

impl Exposure {
    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Open => {
                "use 127.0.0.1, give `tenants` tokens (`llamboctl token new`), or accept it with `network.insecure: true` \
                           or `llambo serve --insecure`"
            }
            Self::Clear => {
                "use 127.0.0.1, set `network.tls`, or accept it with `network.insecure: true` or `llambo serve --insecure`"
            }
        }
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "other machines could then use and stop this host, because nobody has to show a token",
            Self::Clear => "tokens, prompts and answers would then cross the network unencrypted",
        })
    }
}

// === names ===

named!(Access { Open => "open", Tokens => "tokens" });
named!(Permission {
    Infer => "infer",
    Tasks => "tasks",
    Sessions => "sessions",
    Modules => "modules",
    Policies => "policies",
    Operate => "operate",
    Observe => "observe",
});

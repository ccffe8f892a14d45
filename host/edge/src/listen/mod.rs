//! Connections: taken from a port, encrypted where that is asked for, counted, and closed when they only take up room.
//!
//! ```text
//!  port ──► place free? ──► TLS handshake ──► first words in time? ──► served ──► closed
//!             │ no             │ 10 s            │ 10 s
//!             ▼                ▼                 ▼
//!           told, closed     closed            closed
//! ```
//!
//! It knows no requests and no tenants; the names in a client's certificate are handed on with each request.

mod connection;
mod full;
mod hosted;
mod pace;
mod reload;
mod tls;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::{Stream, stream};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

pub use self::tls::{TlsError, TlsSettings, check_tls};
pub(crate) use self::{
    connection::{Connection, Peer},
    hosted::{MAX_PENDING_RESETS, serve as serve_http},
    reload::Reload,
};
use self::{pace::Pace, tls::Certified};
use crate::access::Protocol;

const CONNECTIONS: &str = "llambo_edge_connections";
const CLOSED: &str = "llambo_edge_connections_refused_total";
/// After a connection could not be accepted, mostly because descriptors have run out: trying again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections may take up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at a time, of both ports together; further ones are closed at once.
    pub max_connections: u32,
    /// Bytes of all headers of a request; at least 8 KiB.
    pub max_header_bytes: u32,
    /// For the head of an HTTP/1 request, for a TLS handshake, and for the first words of a gRPC client.
    pub header_timeout: Duration,
    /// How long an HTTP/1 connection may stay open without a request.
    pub idle_timeout: Duration,
}

/// Connections of one port, ready to be served.
pub(crate) struct Incoming {
    listener: TcpListener,
    protocol: Protocol,
    tls: Option<watch::Receiver<Arc<Certified>>>,
    limits: Limits,
    /// One permit for each connection of both ports.
    places: Arc<Semaphore>,
    /// Bounded by `places`, and each by its time. Dropping it ends them.
    handshakes: JoinSet<Option<Connection>>,
}

pub(crate) fn describe_metrics() {
    metrics::describe_gauge!(CONNECTIONS, "Connections that are open, by protocol");
    metrics::describe_counter!(
        CLOSED,
        "Connections that were closed before they were served, by protocol and cause: full, handshake"
    );
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Grpc => "grpc",
        Protocol::Http => "http",
    }
}

// === impl Limits ===

impl Default for Limits {
    /// Those of the configuration.
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_header_bytes: 32 << 10,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
        }
    }
}

// === impl Incoming ===

impl Incoming {
    pub(crate) fn new(
        listener: TcpListener,
        protocol: Protocol,
        tls: Option<watch::Receiver<Arc<Certified>>>,
        limits: Limits,
        places: Arc<Semaphore>,
    ) -> Self {
        Self { listener, protocol, tls, limits, places, handshakes: JoinSet::new() }
    }

    /// The next one. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Connection {
        loop {
            tokio::select! {
                Some(shaken) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = shaken {
                        return connection;
                    }
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        if let Some(connection) = self.take(stream, address) {
                            return connection;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(protocol = name(self.protocol), %error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    /// As a stream without end. No item is an error.
    pub(crate) fn stream(self) -> impl Stream<Item = Result<Connection, std::io::Error>> + Send {
        stream::unfold(self, async |mut this| {
            let connection = this.next().await;
            Some((Ok(connection), this))
        })
    }

    /// What was accepted, unless it has a handshake before it, or there is no place.
    fn take(&mut self, stream: TcpStream, address: SocketAddr) -> Option<Connection> {
        let protocol = self.protocol;
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            metrics::counter!(CLOSED, "protocol" => name(protocol), "cause" => "full").increment(1);
            tracing::debug!(protocol = name(protocol), %address, "closed: as many connections are open as may be");
            if self.tls.is_none() {
                full::tell(&stream, protocol);
            }
            return None;
        };
        // small messages are sent at once; where that cannot be set they are late, and no worse
        let _ = stream.set_nodelay(true);
        let limits = self.limits;
        let pace = Arc::new(Pace::new(protocol));
        let Some(tls) = &self.tls else {
            return Some(Connection::plain(stream, permit, pace, limits, protocol));
        };
        let config = tls.borrow().for_protocol(protocol);
        self.handshakes.spawn(async move {
            let shaken = timeout(limits.header_timeout, TlsAcceptor::from(config).accept(stream)).await;
            let why = match shaken {
                Ok(Ok(stream)) => return Some(Connection::encrypted(stream, permit, pace, limits, protocol)),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it took too long".to_owned(),
            };
            metrics::counter!(CLOSED, "protocol" => name(protocol), "cause" => "handshake").increment(1);
            tracing::debug!(protocol = name(protocol), %address, why, "no TLS handshake");
            None
        });
        None
    }
}

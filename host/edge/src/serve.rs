//! Listens, serves, and stops.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::extract::DefaultBodyLimit;
use futures::FutureExt;
use llambo_orchestrator::Cluster;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};
use tonic::transport::Server;

use crate::{
    Host, Settings, TlsError, TokensError,
    access::{Access, AccessLayer, Protocol, refused_grpc, refused_http},
    door::Door,
    grpc, http,
    listen::{self, Incoming, MAX_PENDING_RESETS, Reload},
    meter::MeterLayer,
    trace::TraceLayer,
};

/// A client that answers no ping within `PING_TIMEOUT` is gone, and its requests with it.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether the host drains, whoever made it: what watchers of the health service may lag.
const DRAIN_CHECK: Duration = Duration::from_millis(200);
/// What open connections get to end by themselves once the edge shuts down.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// Why the edge could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EdgeError {
    /// An address could not be listened on.
    #[error("cannot listen for {protocol} on {address}: {source}; {advice}")]
    Bind {
        /// `gRPC` or `HTTP`.
        protocol: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// What to do about it.
        advice: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// A server that ran failed.
    #[error("the {protocol} server failed: {source}")]
    Serve {
        /// `gRPC` or `HTTP`.
        protocol: &'static str,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Both ports, taken but not yet served: connections wait. Dropping it gives them back.
pub struct Bound {
    grpc: TcpListener,
    http: TcpListener,
    grpc_addr: SocketAddr,
    http_addr: SocketAddr,
    access: Arc<Access>,
    reload: Reload,
    settings: Settings,
}

/// Told once to every stream that would otherwise never end.
pub(crate) type Closing = watch::Receiver<bool>;

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("grpc", &self.grpc_addr).field("http", &self.http_addr).finish_non_exhaustive()
    }
}

impl Bound {
    /// Takes both ports, and reads certificates and tokens. Worth doing first of all at start: it fails fast when another host runs.
    ///
    /// # Errors
    /// [`EdgeError::Bind`], [`EdgeError::Tls`], [`EdgeError::Tokens`].
    pub async fn new(settings: Settings) -> Result<Self, EdgeError> {
        let (grpc, grpc_addr) = listen("gRPC", "network.grpc", settings.grpc).await?;
        let (http, http_addr) = listen("HTTP", "network.http", settings.http).await?;
        let security = settings.security.clone();
        let (access, reload) = spawn_blocking(move || {
            let access = Arc::new(Access::new(security.access)?);
            let reload = Reload::new(Arc::clone(&access), security.tls)?;
            Ok::<_, EdgeError>((access, reload))
        })
        .await
        .map_err(|e| EdgeError::Serve { protocol: "gRPC", source: e.into() })??;
        Ok(Self { grpc, http, grpc_addr, http_addr, access, reload, settings })
    }

    /// Where gRPC listens, with the port that was taken for port 0.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where HTTP listens, with the port that was taken for port 0.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Serves until `shutdown` is done. Then nothing new is accepted, watches end, and what else is open gets 5 seconds;
    /// the program that wants answers to finish waits for [`Cluster::drained`] before it ends `shutdown`.
    ///
    /// # Errors
    /// [`EdgeError::Serve`] when a server fails; the other one is stopped then.
    pub async fn serve(self, host: Host, shutdown: impl Future<Output = ()>) -> Result<(), EdgeError> {
        let host = Arc::new(host);
        let (close, closing) = watch::channel(false);
        let (serving, is_serving) = watch::channel(!host.cluster.is_draining());

        let door = Door {
            host: Arc::clone(&host),
            closing: closing.clone(),
            patience: self.settings.client_stall_timeout,
            max_request_bytes: self.settings.max_request_bytes,
        };
        let routes = grpc::routes(&door, is_serving, &self.settings);
        let limits = self.settings.security.limits;
        let places = Arc::new(Semaphore::new((limits.max_connections as usize).min(Semaphore::MAX_PERMITS)));
        let incoming =
            |listener, protocol| Incoming::new(listener, protocol, self.reload.certified(), limits, Arc::clone(&places));
        let (grpc_incoming, http_incoming) = (incoming(self.grpc, Protocol::Grpc), incoming(self.http, Protocol::Http));
        let (max_request_bytes, trace_sample) = (self.settings.max_request_bytes, self.settings.trace_sample);
        let access = Arc::clone(&self.access);
        let grpc = Server::builder()
            .http2_keepalive_interval(Some(PING_INTERVAL))
            .http2_keepalive_timeout(Some(PING_TIMEOUT))
            .http2_max_header_list_size(limits.max_header_bytes)
            .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
            .max_concurrent_streams(self.settings.max_streams_per_connection)
            .layer(TraceLayer { sample: trace_sample })
            .layer(MeterLayer::new(max_request_bytes))
            .layer(AccessLayer { access: Arc::clone(&access), protocol: Protocol::Grpc, refuse: refused_grpc })
            .add_routes(routes)
            .serve_with_incoming_shutdown(grpc_incoming.stream(), closed(closing.clone()))
            .map(|end| end.map_err(|e| EdgeError::Serve { protocol: "gRPC", source: e.into() }));
        let page = if self.settings.page { http::PageSwitch::On } else { http::PageSwitch::Off };
        let over_http = http::router(&door, page)
            .layer(DefaultBodyLimit::max(max_request_bytes))
            .layer(AccessLayer { access, protocol: Protocol::Http, refuse: refused_http })
            .layer(TraceLayer { sample: trace_sample });
        let http = listen::serve_http(http_incoming, over_http, closed(closing)).map(Ok::<_, EdgeError>);
        let servers = async { tokio::try_join!(grpc, http) };
        tokio::pin!(servers);

        tokio::select! {
            end = &mut servers => return end.map(|_| ()),
            () = shutdown => {}
            () = follow_drain(&host.cluster, &serving) => {}
            () = self.reload.run() => {}
        }
        close.send_replace(true);
        if let Ok(end) = timeout(CLOSE_GRACE, servers).await {
            end?;
        } else {
            tracing::warn!(waited_ms = CLOSE_GRACE.as_millis(), "connections were still open at shutdown and are cut");
        }
        Ok(())
    }
}

async fn listen(protocol: &'static str, key: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), EdgeError> {
    let taken = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    taken.await.map_err(|source: io::Error| {
        let advice = match source.kind() {
            io::ErrorKind::AddrInUse => {
                format!("another program, maybe another host, has it: stop that one or set another `{key}`")
            }
            io::ErrorKind::AddrNotAvailable => format!("set `{key}` to an address of this machine"),
            io::ErrorKind::PermissionDenied => {
                format!("set `{key}` to a port above 1023, or give the program the right to use it")
            }
            _ => format!("check `{key}`"),
        };
        EdgeError::Bind { protocol, address, advice, source }
    })
}

/// Done once the edge closes.
pub(crate) async fn closed(mut closing: Closing) {
    // an error means that the edge is gone, which is as closed as can be
    let _ = closing.wait_for(|is_closing| *is_closing).await;
}

/// Keeps `serving` true to the cluster; never done.
async fn follow_drain(cluster: &Cluster, serving: &watch::Sender<bool>) {
    let mut ticks = interval(DRAIN_CHECK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = !cluster.is_draining();
        serving.send_if_modified(|before| std::mem::replace(before, now) != now);
    }
}

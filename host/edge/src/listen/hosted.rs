//! Serves HTTP over the connections of a port: HTTP/1.1, and HTTP/2 for those who speak it.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming as Received;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use tokio::task::JoinSet;
use tonic::codegen::{Bytes, Service, http};

use super::{Incoming, Limits, Peer, pace::Pace};

/// Requests of one HTTP/2 connection at a time; a browser opens about as many.
const MAX_STREAMS: u32 = 256;
/// Streams that a client opened and took back before they were served: what a rapid reset attack lives on (CVE-2023-44487).
pub(crate) const MAX_PENDING_RESETS: usize = 20;
/// An HTTP/2 client that answers no ping is gone, as over gRPC.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Every service of the port, for one connection.
struct Hosted {
    router: Router,
    peer: Peer,
    pace: Arc<Pace>,
}

/// An answer under way: when it is dropped, its connection waits for the next request.
struct Answered {
    body: Body,
    pace: Arc<Pace>,
}

/// Serves until `closed` is done, and then until every connection has ended; dropping the future ends them at once.
pub(crate) async fn serve(mut incoming: Incoming, router: Router, closed: impl Future<Output = ()>) {
    let server = server(incoming.limits);
    let graceful = GracefulShutdown::new();
    // as many as there are places
    let mut connections = JoinSet::new();
    let mut closed = pin!(closed);
    loop {
        let connection = tokio::select! {
            () = &mut closed => break,
            connection = incoming.next() => connection,
            Some(_) = connections.join_next() => continue,
        };
        let (router, peer, pace) = (router.clone(), connection.peer(), Arc::clone(&connection.pace));
        let hosted = Hosted { router, peer, pace };
        let ending = server.serve_connection(TokioIo::new(connection), hosted).into_owned();
        connections.spawn(graceful.watch(ending));
    }
    // nobody new gets in while the others finish
    drop(incoming);
    graceful.shutdown().await;
    connections.join_all().await;
}

fn server(limits: Limits) -> Builder<TokioExecutor> {
    let mut server = Builder::new(TokioExecutor::new());
    // hyper's own timer begins when it waits for a request: with the longer time it ends idle connections, while `Pace` times heads
    let idle = limits.idle_timeout.max(limits.header_timeout);
    server.http1().timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(limits.max_header_bytes as usize);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(limits.max_header_bytes)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS);
    server
}

// === impl Hosted ===

impl hyper::service::Service<http::Request<Received>> for Hosted {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn call(&self, mut request: http::Request<Received>) -> Self::Future {
        let is_multiplexed = request.version() == http::Version::HTTP_2;
        self.pace.begin(is_multiplexed);
        request.extensions_mut().insert(self.peer.clone());
        let answer = self.router.clone().call(request.map(Body::new));
        let pace = Arc::clone(&self.pace);
        Box::pin(async move {
            let response = answer.await?;
            if is_multiplexed {
                return Ok(response);
            }
            Ok(response.map(|body| Body::new(Answered { body, pace })))
        })
    }
}

// === impl Answered ===

impl http_body::Body for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.pace.end();
    }
}

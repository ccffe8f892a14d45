//! One connection, encrypted or not, with its place among all.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep},
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::{CONNECTIONS, Limits, name, pace::Pace, tls};
use crate::access::Protocol;

/// Who is at the other end, as far as the connection says it. Goes into the extensions of each of its requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// Names in its certificate: DNS names, URIs and the common name. Empty without one.
    pub(crate) names: Arc<[String]>,
}

/// A connection to be served. Dropping it closes it and gives its place to another.
pub(crate) struct Connection {
    io: Io,
    peer: Peer,
    pub(super) pace: Arc<Pace>,
    limits: Limits,
    /// Runs while a head is waited for, whose number is beside it.
    timer: Option<(u64, Pin<Box<Sleep>>)>,
    protocol: Protocol,
    _place: OwnedSemaphorePermit,
}

enum Io {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

// === impl Connection ===

impl Connection {
    pub(super) fn plain(
        stream: TcpStream,
        permit: OwnedSemaphorePermit,
        pace: Arc<Pace>,
        limits: Limits,
        protocol: Protocol,
    ) -> Self {
        Self::new(Io::Plain(stream), Peer::default(), permit, pace, limits, protocol)
    }

    pub(super) fn encrypted(
        stream: TlsStream<TcpStream>,
        permit: OwnedSemaphorePermit,
        pace: Arc<Pace>,
        limits: Limits,
        protocol: Protocol,
    ) -> Self {
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let peer = Peer { names: certificate.map_or_else(Vec::new, tls::names).into() };
        Self::new(Io::Encrypted(Box::new(stream)), peer, permit, pace, limits, protocol)
    }

    fn new(io: Io, peer: Peer, permit: OwnedSemaphorePermit, pace: Arc<Pace>, limits: Limits, protocol: Protocol) -> Self {
        metrics::gauge!(CONNECTIONS, "protocol" => name(protocol)).increment(1.0);
        Self { io, peer, pace, limits, timer: None, protocol, _place: permit }
    }

    pub(super) fn peer(&self) -> Peer {
        self.peer.clone()
    }

    /// Whether the head that is waited for took too long; otherwise wakes the task when it has.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(number) = self.pace.head() else {
            self.timer = None;
            return false;
        };
        if self.timer.as_ref().is_none_or(|(of, _)| *of != number) {
            self.timer = Some((number, Box::pin(sleep(self.limits.header_timeout))));
        }
        self.timer.as_mut().is_some_and(|(_, timer)| timer.as_mut().poll(cx).is_ready())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        metrics::gauge!(CONNECTIONS, "protocol" => name(self.protocol)).decrement(1.0);
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = match &mut this.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Io::Encrypted(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if read.is_ready() {
            let n_bytes = buffer.filled().len() - before;
            if n_bytes > 0 {
                this.pace.received(n_bytes);
            }
            return read;
        }
        if this.is_late(cx) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no whole request came in time")));
        }
        Poll::Pending
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Io::Encrypted(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Io::Encrypted(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// What tonic puts into the extensions of each request.
impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer()
    }
}

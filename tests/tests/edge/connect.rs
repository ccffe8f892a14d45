//! Connections as other clients have them: with little room for what they have not read, or torn instead of closed.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use llambo_proto::v1::inference_client::InferenceClient;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tonic::{
    codegen::{Service, http::Uri},
    transport::{Channel, Endpoint},
};

/// Bytes of an answer that a client of [`narrow`] holds unread: two or three messages of an `endless` node.
const NARROW_BYTES: u32 = 4096;

/// Opens connections that end with a reset, as those of a program do that is killed or loses its network.
#[derive(Clone)]
struct Torn;

/// A connection whose client cannot hold much.
pub(crate) async fn narrow(grpc: &str) -> InferenceClient<Channel> {
    let endpoint = Endpoint::from_shared(grpc.to_owned()).unwrap().initial_stream_window_size(NARROW_BYTES);
    InferenceClient::new(endpoint.connect().await.expect("everybody gets a connection"))
}

/// A connection that is torn when it is dropped.
pub(crate) async fn torn(grpc: &str) -> InferenceClient<Channel> {
    let endpoint = Endpoint::from_shared(grpc.to_owned()).unwrap();
    InferenceClient::new(endpoint.connect_with_connector(Torn).await.expect("everybody gets a connection"))
}

/// As many descriptors as the system grants: two for each connection are needed, since half of them may be in this process.
pub(crate) fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit it may be raised");
}

impl Service<Uri> for Torn {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let address: SocketAddr = uri.authority().unwrap().as_str().parse().unwrap();
            let stream = TcpStream::connect(address).await?;
            stream.set_zero_linger()?;
            Ok(TokioIo::new(stream))
        })
    }
}

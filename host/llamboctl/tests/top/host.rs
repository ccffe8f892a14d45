//! A host of which only the cluster is there, and it is made up. It can go and come back at the same address.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use llambo_proto::v1::{
    self,
    cluster_server::{Cluster, ClusterServer},
};
use tokio::{net::TcpListener, runtime::Runtime, time::interval};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct Service {
    /// Tokens generated, which grow with each look.
    tokens: Arc<AtomicU64>,
}

type Answer<T> = Result<Response<T>, Status>;

// === impl Host ===

impl Host {
    pub(crate) fn start() -> Self {
        let mut host = Self { address: SocketAddr::from(([127, 0, 0, 1], 0)), runtime: None };
        host.begin();
        host
    }

    /// Serves where it served before.
    pub(crate) fn begin(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("there are threads left");
        let listener = runtime.block_on(TcpListener::bind(self.address)).expect("the port is free");
        self.address = listener.local_addr().expect("it is bound");
        let server = Server::builder().add_service(ClusterServer::new(Service::default()));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        self.runtime = Some(runtime);
    }

    /// Is gone, with its connections.
    pub(crate) fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end();
    }
}

fn status(tokens: u64) -> v1::StatusResponse {
    v1::StatusResponse {
        version: "9.8.7".into(),
        strategy: "least-loaded".into(),
        // never less than before: the host is the same
        uptime_seconds: tokens as f64,
        nodes_by_state: [("ready".into(), 38), ("busy".into(), 2)].into(),
        nodes_by_type: [("tiny".into(), 40)].into(),
        totals: Some(v1::Totals { output_tokens: tokens, ..v1::Totals::default() }),
        models: vec![v1::Model { name: "demo-model".into(), n_running: 2, n_sequences: 64, ..v1::Model::default() }],
        ..v1::StatusResponse::default()
    }
}

fn node(i: u32) -> v1::Node {
    v1::Node {
        id: format!("tiny-{i}"),
        r#type: "tiny".into(),
        model: "demo-model".into(),
        state: if i < 2 { "busy" } else { "ready" }.into(),
        in_flight: u32::from(i < 2),
        capacity: 1,
        ttft_us: 1500.0,
        ..v1::Node::default()
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    type WatchStatusStream = Pin<Box<dyn Stream<Item = Result<v1::StatusResponse, Status>> + Send>>;
    type WatchEventsStream = Pin<Box<dyn Stream<Item = Result<v1::WatchEventsResponse, Status>> + Send>>;

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        Ok(Response::new(status(self.tokens.fetch_add(100, Ordering::Relaxed))))
    }

    async fn watch_status(&self, _: Request<v1::WatchStatusRequest>) -> Answer<Self::WatchStatusStream> {
        let tokens = Arc::clone(&self.tokens);
        let statuses = stream::unfold(interval(Duration::from_millis(100)), move |mut ticks| {
            let tokens = Arc::clone(&tokens);
            async move {
                ticks.tick().await;
                Some((Ok(status(tokens.fetch_add(100, Ordering::Relaxed))), ticks))
            }
        });
        Ok(Response::new(statuses.boxed()))
    }

    async fn watch_events(&self, _: Request<v1::WatchEventsRequest>) -> Answer<Self::WatchEventsStream> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn list_nodes(&self, _: Request<v1::ListNodesRequest>) -> Answer<v1::ListNodesResponse> {
        Ok(Response::new(v1::ListNodesResponse { nodes: (0..40).map(node).collect(), total: 40 }))
    }

    async fn list_hosts(&self, _: Request<v1::ListHostsRequest>) -> Answer<v1::ListHostsResponse> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn spawn(&self, _: Request<v1::SpawnRequest>) -> Answer<v1::SpawnResponse> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn scale(&self, _: Request<v1::ScaleRequest>) -> Answer<v1::ScaleResponse> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn drain(&self, _: Request<v1::DrainRequest>) -> Answer<v1::DrainResponse> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn hibernate(&self, _: Request<v1::HibernateRequest>) -> Answer<v1::HibernateResponse> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn wake(&self, _: Request<v1::WakeRequest>) -> Answer<v1::WakeResponse> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn get_balancer(&self, _: Request<v1::GetBalancerRequest>) -> Answer<v1::GetBalancerResponse> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn set_balancer(&self, _: Request<v1::SetBalancerRequest>) -> Answer<v1::SetBalancerResponse> {
        Err(Status::unimplemented("not asked for here"))
    }
}

//! Parts of traces on their way to a collector that runs here.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

use std::{net::SocketAddr, time::Duration};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use llambo_inference::{TraceContext, part};
use llambo_telemetry::{Destination, Exporting, LogFormat, Logs, Protocol, span_queue};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use tokio::{net::TcpListener, sync::mpsc, time::Instant};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What came, with the header `authorization` that it came with.
type Came = (ExportTraceServiceRequest, Option<String>);

struct Collector(mpsc::Sender<Came>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let authorization = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        self.0.send((request.into_inner(), authorization)).await.unwrap();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn over_http(State(came): State<mpsc::Sender<Came>>, headers: HeaderMap, body: Bytes) -> Vec<u8> {
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    came.send((ExportTraceServiceRequest::decode(body).unwrap(), authorization)).await.unwrap();
    Vec::new()
}

async fn collector(protocol: Protocol) -> (SocketAddr, mpsc::Receiver<Came>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, (sender, came)) = (listener.local_addr().unwrap(), mpsc::channel(64));
    match protocol {
        Protocol::Grpc => {
            let service = TraceServiceServer::new(Collector(sender));
            let served = tonic::transport::Server::builder().add_service(service);
            tokio::spawn(served.serve_with_incoming(TcpListenerStream::new(listener)));
        }
        Protocol::Http => {
            let router = Router::new().route("/v1/traces", post(over_http)).with_state(sender);
            tokio::spawn(axum::serve(listener, router).into_future());
        }
    }
    (address, came)
}

fn destination(address: SocketAddr, protocol: Protocol) -> Destination {
    Destination {
        endpoint: format!("http://{address}"),
        protocol,
        service_name: "llambo-test".into(),
        headers: vec![("authorization".into(), "Bearer secret".into())],
    }
}

fn start(destination: &Destination) -> Exporting {
    let (queue, waiting) = span_queue();
    Logs { level: "info".into(), format: LogFormat::Json }.start(Some(&queue)).unwrap();
    Exporting::start(waiting, destination).unwrap()
}

fn spans(came: &ExportTraceServiceRequest) -> Vec<Span> {
    came.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| s.spans.clone()).collect()
}

async fn arrives_whole(protocol: Protocol) {
    let (address, mut came) = collector(protocol).await;
    let exporting = start(&destination(address, protocol));
    let parent = TraceContext::parse(TRACEPARENT);
    let request = part!(parent, "llambo.request", otel.kind = "server", gen_ai.usage.output_tokens = Empty);
    let node = part!(request.context(), "node", llambo.attempt = 1u64);
    assert!(!part!(Some(TraceContext::begun(false)), "unsampled").is_open());
    node.failed("NODE_STOPPED");
    drop(node);
    request.record("gen_ai.usage.output_tokens", 7u64);
    drop(request);

    let (batch, authorization) = tokio::time::timeout(Duration::from_secs(20), came.recv()).await.unwrap().unwrap();
    assert_eq!(authorization.as_deref(), Some("Bearer secret"));
    let resource = batch.resource_spans[0].resource.clone().unwrap();
    assert!(format!("{resource:?}").contains("llambo-test"), "{resource:?}");
    let spans = spans(&batch);
    let [node, request] = &spans[..] else { panic!("{spans:?}") };
    for span in [node, request] {
        assert_eq!(span.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano && span.start_time_unix_nano > 0);
    }
    assert_eq!((request.name.as_str(), request.kind()), ("llambo.request", SpanKind::Server));
    assert_eq!(request.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!(node.parent_span_id, request.span_id);
    assert_eq!((node.name.as_str(), node.kind()), ("node", SpanKind::Internal));
    assert_eq!(node.status.clone().unwrap().message, "NODE_STOPPED");
    let text = format!("{:?}", request.attributes);
    assert!(text.contains("gen_ai.usage.output_tokens") && text.contains("IntValue(7)"), "{text}");
    assert!(!text.contains("span_id") && !text.contains("otel.kind"), "what became something else is no attribute: {text}");
    exporting.finish().await;
}

#[tokio::test]
async fn parts_arrive_over_grpc() {
    arrives_whole(Protocol::Grpc).await;
}

#[tokio::test]
async fn parts_arrive_over_http() {
    arrives_whole(Protocol::Http).await;
}

#[tokio::test]
async fn what_waits_at_the_end_is_sent() {
    let (address, mut came) = collector(Protocol::Grpc).await;
    let exporting = start(&destination(address, Protocol::Grpc));
    for _ in 0..1000 {
        drop(part!(TraceContext::parse(TRACEPARENT), "llambo.request"));
    }
    exporting.finish().await;
    let mut n_spans = 0;
    while let Ok((batch, _)) = came.try_recv() {
        n_spans += spans(&batch).len();
    }
    assert_eq!(n_spans, 1000);
}

#[tokio::test]
async fn a_collector_that_is_gone_costs_its_spans_and_nothing_else() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap();
    let exporting = start(&destination(gone, Protocol::Grpc));
    let began = Instant::now();
    // more than may wait
    for _ in 0..10_000 {
        drop(part!(TraceContext::parse(TRACEPARENT), "llambo.request"));
    }
    assert!(began.elapsed() < Duration::from_secs(2), "nobody waits for it: {:?}", began.elapsed());
    exporting.finish().await;
    assert!(began.elapsed() < Duration::from_secs(5), "not even at the end: {:?}", began.elapsed());
    let page = recorder.render();
    let counted = |outcome: &str| -> u64 {
        let line = page.lines().find(|line| line.starts_with("llambo_telemetry_spans_total") && line.contains(outcome));
        line.map_or(0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
    };
    assert_eq!(counted("sent"), 0);
    assert!(counted("dropped") > 0 && counted("failed") > 0, "{page}");
    assert_eq!(counted("dropped") + counted("failed"), 10_000, "each is counted: {page}");
}

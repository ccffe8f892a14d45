//! What a host tells about itself: metrics under their own names and those of others, one trace for a request, lines that programs read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use llambo_client::{Ask, Client};
use llambo_proto::v1;
use llambo_tests::{Host, eventually, llambo};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span,
};
use serde_json::Value as Json;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::SMALL;

/// Suffixes of a histogram's samples.
const OF_HISTOGRAM: [&str; 3] = ["_bucket", "_sum", "_count"];

struct Collector(mpsc::Sender<Vec<Span>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
        self.0.send(spans.collect()).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (String, mpsc::Receiver<Vec<Span>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (endpoint, (sender, came)) = (format!("http://{}", listener.local_addr().unwrap()), mpsc::channel(64));
    let served = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
    tokio::spawn(served.serve_with_incoming(TcpListenerStream::new(listener)));
    (endpoint, came)
}

async fn ask(host: &Host, traceparent: Option<&str>) -> v1::InferResponse {
    let channel = tonic::transport::Endpoint::from_shared(host.grpc().to_owned()).unwrap().connect().await.unwrap();
    let mut client = v1::inference_client::InferenceClient::new(channel);
    let prompt = Some(v1::generate_request::Prompt::Text("A trait is".into()));
    let options = Some(v1::SamplingOptions { max_tokens: Some(6), ..v1::SamplingOptions::default() });
    let mut request = Request::new(v1::GenerateRequest { prompt, options, ..v1::GenerateRequest::default() });
    if let Some(traceparent) = traceparent {
        request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    }
    client.infer(request).await.unwrap().into_inner()
}

fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|attribute| attribute.key == name)?.value.as_ref()?.value.as_ref()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_is_one_trace_from_the_edge_to_the_decode_steps() {
    let (endpoint, mut came) = collector().await;
    let host = Host::start(&format!("{SMALL}\ntracing: {{otlp: '{endpoint}', sample: 0.0}}\n"));
    let answer = ask(&host, Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")).await;
    let usage = answer.usage.unwrap();
    // neither those that nobody asked to trace, nor those whose client said no
    ask(&host, None).await;
    ask(&host, Some("00-0000000000000000000000000000beef-00f067aa0ba902b7-00")).await;
    host.signal("TERM");
    let (status, _) = host.wait();
    assert!(status.success());

    let mut spans = Vec::new();
    while let Ok(batch) = came.try_recv() {
        spans.extend(batch);
    }
    let trace = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();
    assert!(spans.iter().all(|span| span.trace_id == trace), "{spans:#?}");
    let by_name: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.name.as_str(), span)).collect();
    assert_eq!(by_name.len(), spans.len(), "one of each: {spans:#?}");
    let parents = [
        ("queue", "llambo.request"),
        ("node", "llambo.request"),
        ("engine", "node"),
        ("prefill", "engine"),
        ("decode", "engine"),
    ];
    for (child, parent) in parents {
        assert_eq!(by_name[child].parent_span_id, by_name[parent].span_id, "{child} of {parent}");
        let [inner, outer] = [by_name[child], by_name[parent]].map(|span| span.start_time_unix_nano..=span.end_time_unix_nano);
        assert!(outer.contains(inner.start()) && inner.end() <= outer.end(), "{child} within {parent}: {spans:#?}");
    }
    assert_eq!(spans.len(), parents.len() + 1);
    let request = by_name["llambo.request"];
    assert_eq!(request.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    let text = |span: &str, name: &str| match attribute(by_name[span], name) {
        Some(Value::StringValue(text)) => text.clone(),
        other => panic!("{name} of {span}: {other:?}"),
    };
    let number = |span: &str, name: &str| match attribute(by_name[span], name) {
        Some(Value::IntValue(number)) => u32::try_from(*number).unwrap(),
        other => panic!("{name} of {span}: {other:?}"),
    };
    assert_eq!(text("llambo.request", "gen_ai.operation.name"), "text_completion");
    assert_eq!(text("llambo.request", "gen_ai.request.model"), "demo-small");
    assert_eq!(text("llambo.request", "rpc.service"), "llambo.v1.Inference");
    assert_eq!(text("llambo.request", "rpc.method"), "Infer");
    assert_eq!(text("llambo.request", "llambo.request.id"), answer.request_id);
    assert!(
        matches!(attribute(request, "gen_ai.response.finish_reasons"), Some(Value::ArrayValue(reasons)) if reasons.values.len() == 1)
    );
    assert_eq!(number("llambo.request", "gen_ai.usage.input_tokens"), usage.input_tokens);
    assert_eq!(number("llambo.request", "gen_ai.usage.output_tokens"), usage.output_tokens);
    assert_eq!(text("node", "llambo.node.id"), answer.node);
    assert_eq!(number("node", "llambo.attempt"), 1);
    assert_eq!(number("engine", "llambo.output_tokens"), usage.output_tokens);
    // the first token is the prefill's, and each of the others a step of its own
    assert_eq!(number("decode", "llambo.n_tokens"), usage.output_tokens - 1);
    assert_eq!(number("decode", "llambo.n_steps"), usage.output_tokens - 1);
    let told = format!("{spans:?}");
    assert!(!told.contains("A trait") && !told.contains(answer.text.trim()), "neither what was asked nor what was said: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_disturbs_nobody() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let host = Host::start(&format!("{SMALL}\ntracing: {{otlp: 'http://{gone}'}}\n"));
    let client = host.client().await;
    for _ in 0..20 {
        crate::is_well(&client).await;
    }
    eventually("the failure is counted", async || page(&host).await.contains("llambo_telemetry_spans_total{outcome=\"failed\"}"))
        .await;
    let began = std::time::Instant::now();
    host.signal("TERM");
    let (status, log) = host.wait();
    assert!(status.success() && began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let complaints = log.iter().filter(|line| line.contains("collector")).count();
    assert!(complaints <= 1, "{log:#?}");
    for line in &log {
        let line: Json = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(["timestamp", "level", "target", "message"].iter().all(|field| line[field].is_string()), "{line}");
    }
}

async fn page(host: &Host) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(host.http()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// Metrics of host/METRICS.md: type and labels by name.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = fs::read_to_string(path("host/METRICS.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `llambo_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[4].split_whitespace().map(|label| label.trim_matches('`').to_owned()).collect();
        (cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), labels))
    })
    .collect()
}

#[test]
fn the_table_of_metrics_is_what_the_program_says() {
    let printed = llambo(&["metrics"]);
    assert!(printed.status.success());
    let text = fs::read_to_string(path("host/METRICS.md")).unwrap();
    let table = String::from_utf8(printed.stdout).unwrap();
    assert!(text.ends_with(&table), "host/METRICS.md is stale: run `cargo xtask metrics`");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_measured_is_in_the_table() {
    let host = Host::start(SMALL);
    let client: Client = host.client().await;
    for _ in 0..3 {
        crate::is_well(&client).await;
    }
    assert!(client.infer(Ask::text("x").model("nobody")).await.is_err());
    let page = page(&host).await;
    let documented = documented();
    let mut seen = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("llambo_")) {
        let name = &line[..line.find(['{', ' ']).unwrap()];
        let of_histogram =
            OF_HISTOGRAM.iter().find_map(|suffix| name.strip_suffix(suffix)).filter(|base| documented.contains_key(*base));
        let name = of_histogram.unwrap_or(name);
        let (_, labels) =
            documented.get(name).unwrap_or_else(|| panic!("{name} is not described: describe it and run `cargo xtask metrics`"));
        let used = line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
        let used: BTreeSet<String> = used
            .split("\",")
            .filter_map(|label| label.split_once('='))
            .map(|(label, _)| label.to_owned())
            .filter(|l| l != "le")
            .collect();
        assert_eq!(&used, labels, "labels of {name}: the description must end with `, by ...`");
        seen.insert(name.to_owned());
    }
    for needed in ["llambo_orchestrator_ttft_seconds", "llambo_llama_decode_step_seconds", "llambo_edge_requests_total"] {
        assert!(seen.contains(needed), "{needed}: {seen:?}");
    }
    assert!(page.contains("llambo_orchestrator_pending_requests{model=\"demo-small\"} 0\n"), "nobody waits any more: {page}");
    for alias in [
        "llamacpp:prompt_tokens_total{model=\"demo-small\"} ",
        "llamacpp:kv_cache_usage_ratio{model=\"demo-small\"} ",
        "vllm:num_requests_running{model_name=\"demo-small\"} 0",
        "vllm:request_success_total{model_name=\"demo-small\",finished_reason=\"length\"} 3",
        "vllm:time_to_first_token_seconds_count{model_name=\"demo-small\"} 3",
        "vllm:generation_tokens_total{model_name=\"demo-small\"} 24",
    ] {
        assert!(page.lines().any(|line| line.starts_with(alias)), "{alias}\n{page}");
    }
    // Prometheus lets names have colons, this parser does not
    let bare = page.replace("llamacpp:", "llamacpp_").replace("vllm:", "vllm_");
    let parsed = openmetrics_parser::prometheus::parse_prometheus(&bare).unwrap_or_else(|error| panic!("{error}\n{page}"));
    assert!(parsed.families.contains_key("vllm_e2e_request_latency_seconds"));
}

#[test]
fn the_dashboard_asks_only_for_what_there_is() {
    let board: Json = serde_json::from_slice(&fs::read(path("host/llambo/grafana/llambo.json")).unwrap()).unwrap();
    assert!(board["schemaVersion"].as_u64().is_some_and(|version| version >= 36));
    assert!(board["uid"].as_str().is_some_and(|uid| (1..=40).contains(&uid.len())));
    assert!(board["id"].is_null(), "an id belongs to one server");
    let names: Vec<_> =
        board["templating"]["list"].as_array().unwrap().iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "instance", "model"]);
    let documented = documented();
    let mut ids = BTreeSet::new();
    let panels = board["panels"].as_array().unwrap();
    let mut n_queries = 0;
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "each id once");
        if panel["type"] == "row" {
            continue;
        }
        assert!(!panel["title"].as_str().unwrap().is_empty() && panel["gridPos"]["w"].as_u64().is_some());
        let targets = panel["targets"].as_array().filter(|targets| !targets.is_empty());
        for target in targets.unwrap_or_else(|| panic!("{} asks nothing", panel["title"])) {
            let expr = target["expr"].as_str().unwrap();
            assert_eq!(expr.matches('(').count(), expr.matches(')').count(), "{expr}");
            for name in expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("llambo_")) {
                let base = OF_HISTOGRAM.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
                let (kind, _) = documented.get(base).unwrap_or_else(|| panic!("`{name}` of `{}` is no metric", panel["title"]));
                assert_eq!(base != name, kind == "histogram", "{expr}");
                n_queries += 1;
            }
        }
    }
    assert!(n_queries > 30, "{n_queries}");
}

use std::{sync::atomic::Ordering, time::Duration};

use futures::{StreamExt, stream};
use llambo_client::{Ask, Code, EventFilter, Happened, Health, NodeFilter};
use llambo_edge::{Bound, EdgeError, Settings};
use metrics_exporter_prometheus::PrometheusBuilder;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::{Running, settings, within};

#[tokio::test]
async fn nodes_are_spawned_listed_scaled_and_drained() {
    let host = Running::start().await;
    let spawned = host.client.spawn("fake", 2).await.unwrap();
    assert_eq!((spawned.spawned, spawned.nodes.len()), (2, 2));
    let filter = NodeFilter { node_type: "fake".into(), state: "ready".into(), limit: None };
    assert_eq!(host.client.nodes(&filter).await.unwrap().len(), 5);
    assert_eq!(host.client.nodes(&NodeFilter { limit: Some(2), ..filter }).await.unwrap().len(), 2);
    let scaled = host.client.scale("fake", 1).await.unwrap();
    assert_eq!((scaled.before, scaled.after), (5, 1));
    assert_eq!(host.client.drain_type("stuck").await.unwrap().draining, 1);
    let error = host.client.drain_nodes(vec!["nobody".into()]).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::NotFound, "UNKNOWN_NODE"));
    let error = host.client.spawn("huge", 1).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::NotFound, "UNKNOWN_TYPE"));
    let error = host.client.nodes(&NodeFilter { state: "asleep".into(), ..NodeFilter::default() }).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, "INVALID_REQUEST"));
    host.stop().await;
}

#[tokio::test]
async fn the_strategy_can_be_switched_by_name() {
    let host = Running::start().await;
    host.client.set_balancer("random").await.unwrap();
    let report = host.client.balancer().await.unwrap();
    assert_eq!(report.strategy, "random");
    assert!(report.available.contains(&"least-loaded".into()), "{report:?}");
    let error = host.client.set_balancer("by-colour").await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, "UNKNOWN_STRATEGY"));
    host.stop().await;
}

#[tokio::test]
async fn the_status_counts_what_was_served_and_can_be_watched() {
    let host = Running::start().await;
    host.client.infer(Ask::text("x").max_tokens(4)).await.unwrap();
    let status = host.client.status().await.unwrap();
    assert_eq!((status.totals.unwrap().finished, status.totals.unwrap().output_tokens), (1, 4));
    assert_eq!(status.nodes_by_type["fake"], 3);
    let mut watch = host.client.watch(Duration::from_millis(100)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(within(watch.next()).await.unwrap().unwrap().version, status.version);
    }
    assert!(host.client.watch(Duration::from_millis(1)).await.is_err());
    // a watch does not keep the edge from ending
    host.stop().await;
    assert!(within(watch.next()).await.is_none_or(|end| end.is_ok()));
}

#[tokio::test]
async fn health_follows_a_drain_and_unknown_services_are_told_by_the_specification() {
    let host = Running::start().await;
    for service in ["", "llambo.v1.Inference", "llambo.v1.Cluster"] {
        assert_eq!(host.client.health(service).await.unwrap(), Health::Serving);
    }
    assert_eq!(host.client.health("nobody").await.unwrap_err().code(), Code::NotFound);

    let mut health = HealthClient::new(host.channel().await);
    let watch = async |health: &mut HealthClient<_>, service: &str| {
        health.watch(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner()
    };
    let mut known = watch(&mut health, "llambo.v1.Inference").await;
    let mut unknown = watch(&mut health, "nobody").await;
    assert_eq!(within(known.next()).await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert_eq!(within(unknown.next()).await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);

    assert_eq!(host.client.drain_host().await.unwrap().draining, 4);
    assert_eq!(host.drains.load(Ordering::Relaxed), 1);
    assert_eq!(host.client.health("").await.unwrap(), Health::NotServing);
    assert_eq!(within(known.next()).await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let error = host.client.infer(Ask::text("x")).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, "DRAINING"));
    assert!(error.retry_after().is_some());
    host.stop().await;
    assert!(within(unknown.next()).await.is_none(), "it stayed open until the end");
}

#[tokio::test]
async fn both_versions_of_reflection_list_the_services() {
    let host = Running::start().await;
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(host.channel().await);
    let mut answers = client.server_reflection_info(stream::iter([request])).await.unwrap().into_inner();
    let answer = within(answers.next()).await.unwrap().unwrap().message_response;
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["llambo.v1.Inference", "llambo.v1.Cluster", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }

    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            "llambo.v1.Inference.Generate".into(),
        )),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(host.channel().await);
    let mut answers = client.server_reflection_info(stream::iter([request])).await.unwrap().into_inner();
    let answer = within(answers.next()).await.unwrap().unwrap().message_response;
    assert!(
        matches!(answer, Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_))),
        "{answer:?}"
    );
    host.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let first = Bound::new(settings()).await.unwrap();
    let error = Bound::new(Settings { grpc: first.grpc_addr(), ..settings() }).await.unwrap_err();
    assert!(matches!(&error, EdgeError::Bind { protocol: "gRPC", .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(&first.grpc_addr().to_string()) && message.contains("set another `network.grpc`"), "{message}");
    let error = Bound::new(Settings { http: first.http_addr(), ..settings() }).await.unwrap_err();
    assert!(matches!(error, EdgeError::Bind { protocol: "HTTP", .. }), "{error:?}");
}

#[tokio::test]
async fn probes_tell_alive_from_ready() {
    let host = Running::start().await;
    assert_eq!(host.get("/livez").await.0, "HTTP/1.1 200 OK");
    let (status, body) = host.get("/readyz").await;
    assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", "ready: 4 of 4 nodes can serve\n"));
    host.client.scale("fake", 0).await.unwrap();
    host.client.scale("stuck", 0).await.unwrap();
    let (status, body) = host.get("/readyz").await;
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert!(body.starts_with("no node can serve"), "{body}");
    host.cluster.start_drain();
    assert!(host.get("/readyz").await.1.starts_with("draining"));
    assert_eq!(host.get("/livez").await.0, "HTTP/1.1 200 OK");
    host.stop().await;
}

// one thread: the recorder of this test must not see the calls of others, nor miss its own
#[tokio::test(flavor = "current_thread")]
async fn calls_are_counted_by_method_and_code() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let host = Running::start_with(recorder.handle()).await;
    host.client.infer(Ask::text("x")).await.unwrap();
    host.client.infer(Ask::text("")).await.unwrap_err();
    let answer: Vec<_> = host.client.generate(Ask::text("x")).await.unwrap().collect().await;
    assert!(answer.iter().all(Result::is_ok));
    let (status, text) = host.get("/metrics").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    for line in [
        r#"llambo_edge_requests_total{method="llambo.v1.Inference/Infer",code="OK"} 1"#,
        r#"llambo_edge_requests_total{method="llambo.v1.Inference/Infer",code="INVALID_ARGUMENT"} 1"#,
        r#"llambo_edge_requests_total{method="llambo.v1.Inference/Generate",code="OK"} 1"#,
        "llambo_edge_in_flight_streams 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    host.stop().await;
}

#[tokio::test]
async fn events_are_told_once_followed_and_filtered() {
    let host = Running::start().await;
    let kinds = async |filter: EventFilter| {
        let told: Vec<_> = within(host.client.events(filter.once()).await.unwrap().collect()).await;
        let kind = |told: Result<Happened, _>| match told.unwrap() {
            Happened::Event(event) => format!("{} {} {}", event.kind, event.subject, event.count),
            Happened::Missed(n) => format!("missed {n}"),
        };
        told.into_iter().map(kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(EventFilter::new()).await, ["nodes.spawned fake 3", "nodes.spawned stuck 1"]);
    assert_eq!(kinds(EventFilter::new().node_type("stuck")).await, ["nodes.spawned stuck 1"]);
    assert_eq!(kinds(EventFilter::new().kind("scale")).await, Vec::<String>::new());
    let mut follow = host.client.events(EventFilter::new().after(2)).await.unwrap();
    host.client.scale("fake", 4).await.unwrap();
    let next = within(follow.next()).await.unwrap().unwrap();
    assert!(matches!(&next, Happened::Event(event) if event.number == 3 && event.reason == "an operator scaled it"), "{next:?}");
    let error = host.client.events(EventFilter::new().kind("weather")).await.err().unwrap();
    assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, "INVALID_REQUEST"));
    assert!(error.to_string().contains("nodes.spawned"), "{error}");
    // a watch does not keep the edge from ending
    host.stop().await;
}

#[tokio::test]
async fn a_tier_that_was_asked_for_is_told_with_the_one_that_served() {
    let host = Running::start_fake().await;
    let answer = host.client.infer(Ask::text("x").max_tokens(4).tier(2)).await.unwrap();
    let tier = answer.tier.unwrap();
    assert_eq!((tier.node == answer.node, tier.tier, tier.wanted, tier.by.as_str()), (true, 0, Some(2), "request"));
    assert!(tier.fell_back && tier.reason.contains("no node of tier 2 was free"), "{tier:?}");
    assert_eq!(host.client.infer(Ask::text("x").max_tokens(4)).await.unwrap().tier, None, "there is one tier only");
    let status = host.client.status().await.unwrap();
    assert_eq!(status.tiers.iter().map(|count| (count.wanted, count.served, count.requests)).collect::<Vec<_>>(), [(2, 0, 1)]);
    host.stop().await;
}

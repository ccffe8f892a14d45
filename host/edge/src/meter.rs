//! Counts calls, whatever serves them, and gives a request that is too large an error that says so.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use http_body::{Frame, SizeHint};
use llambo_proto::status::{Failure, code_name};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Bytes, Service, http},
};
use tower_layer::Layer;

pub(crate) const REQUESTS: &str = "llambo_edge_requests_total";
pub(crate) const IN_FLIGHT: &str = "llambo_edge_in_flight_streams";

/// Every method there is: anything else a caller names is counted as `other`, so that labels stay few.
const METHODS: [&str; 45] = [
    "llambo.v1.Inference/Generate",
    "llambo.v1.Inference/Infer",
    "llambo.v1.Inference/Embed",
    "llambo.v1.Inference/ListModels",
    "llambo.v1.Cluster/Spawn",
    "llambo.v1.Cluster/Scale",
    "llambo.v1.Cluster/Drain",
    "llambo.v1.Cluster/ListNodes",
    "llambo.v1.Cluster/ListHosts",
    "llambo.v1.Cluster/Status",
    "llambo.v1.Cluster/WatchStatus",
    "llambo.v1.Cluster/WatchEvents",
    "llambo.v1.Cluster/GetBalancer",
    "llambo.v1.Cluster/SetBalancer",
    "llambo.v1.Cluster/Hibernate",
    "llambo.v1.Cluster/Wake",
    "llambo.v1.Modules/LoadModule",
    "llambo.v1.Modules/ListModules",
    "llambo.v1.Modules/UnloadModule",
    "llambo.v1.Modules/RollBackModule",
    "llambo.v1.Models/LoadModel",
    "llambo.v1.Models/UnloadModel",
    "llambo.v1.Models/PinModel",
    "llambo.v1.Policies/LoadPolicy",
    "llambo.v1.Policies/ListPolicies",
    "llambo.v1.Policies/PromotePolicy",
    "llambo.v1.Policies/RollBackPolicy",
    "llambo.v1.Policies/UnloadPolicy",
    "llambo.v1.Policies/ResumePolicy",
    "llambo.v1.Policies/RecordRoutes",
    "llambo.v1.Policies/ReplayRoutes",
    "llambo.v1.Faults/InjectFault",
    "llambo.v1.Faults/ListFaults",
    "llambo.v1.Faults/ClearFaults",
    "llambo.v1.Sessions/CreateSession",
    "llambo.v1.Sessions/Ask",
    "llambo.v1.Sessions/AppendMessages",
    "llambo.v1.Sessions/ForkSession",
    "llambo.v1.Sessions/GetSession",
    "llambo.v1.Sessions/ListSessions",
    "llambo.v1.Sessions/DeleteSession",
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Describes them to the recorder.
pub(crate) fn describe_metrics() {
    metrics::describe_counter!(REQUESTS, "gRPC calls and HTTP requests that ended, by method and code");
    metrics::describe_gauge!(IN_FLIGHT, "gRPC calls and HTTP requests that are open");
}

#[derive(Clone)]
pub(crate) struct MeterLayer {
    max_request_bytes: usize,
    counts: Arc<Counts>,
}

#[derive(Clone)]
pub(crate) struct Meter<S> {
    inner: S,
    layer: MeterLayer,
}

/// What is counted, found in the recorder once and not for each call.
struct Counts {
    in_flight: metrics::Gauge,
    /// `[METHODS.len() + 1][CODES]`, the last row for other methods. One appears when it first counts, as in any registry.
    ended: Vec<OnceLock<metrics::Counter>>,
}

/// gRPC's status codes.
const CODES: usize = 17;

/// One call. Counted as it is dropped; CANCELLED unless it came to an end before.
struct Call {
    counts: Arc<Counts>,
    /// Index in [`METHODS`], or its length.
    method: usize,
    code: Code,
}

/// An answer under way; its code is in the trailers.
struct Metered {
    body: Body,
    call: Call,
}

// === impl Counts ===

impl Counts {
    fn new() -> Self {
        let ended = (0..(METHODS.len() + 1) * CODES).map(|_| OnceLock::new()).collect();
        Self { in_flight: metrics::gauge!(IN_FLIGHT), ended }
    }

    fn ended(&self, method: usize, code: Code) {
        let Some(counter) = self.ended.get(method * CODES + code as usize) else { return };
        let found = || metrics::counter!(REQUESTS, "method" => name_of(method), "code" => code_name(code));
        counter.get_or_init(found).increment(1);
    }
}

fn name_of(method: usize) -> &'static str {
    METHODS.get(method).copied().unwrap_or("other")
}

// === impl MeterLayer ===

impl MeterLayer {
    /// Call it once the recorder is installed.
    pub(crate) fn new(max_request_bytes: usize) -> Self {
        Self { max_request_bytes, counts: Arc::new(Counts::new()) }
    }
}

impl<S> Layer<S> for MeterLayer {
    type Service = Meter<S>;

    fn layer(&self, inner: S) -> Meter<S> {
        Meter { inner, layer: self.clone() }
    }
}

// === impl Meter ===

impl<S> Service<http::Request<Body>> for Meter<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut call = Call::new(&self.layer.counts, request.uri().path());
        let answer = self.inner.call(request);
        let limit = self.layer.max_request_bytes;
        Box::pin(async move {
            let response = answer.await?;
            // a status among the headers means that no message and no trailers follow
            let Some(status) = Status::from_header_map(response.headers()) else {
                return Ok(response.map(|body| Body::new(Metered { body, call })));
            };
            // our own services never say OUT_OF_RANGE: it is what the transport says of a message above its limit
            if status.code() == Code::OutOfRange && status.details().is_empty() {
                let refusal = too_large(name_of(call.method), limit);
                call.ended(refusal.code());
                return Ok(refusal.into_http());
            }
            call.ended(status.code());
            Ok(response)
        })
    }
}

/// Modules have limits of their own, far above that of other requests.
fn too_large(method: &str, limit: usize) -> Status {
    let module = match method {
        "llambo.v1.Modules/LoadModule" => Some("modules.max-size"),
        "llambo.v1.Policies/LoadPolicy" | "llambo.v1.Policies/ReplayRoutes" => Some("policies.max-size"),
        _ => None,
    };
    if let Some(key) = module {
        let what = format!("the module is larger than `{key}` of the configuration permits");
        return Failure::new("INVALID_REQUEST", what).into_status();
    }
    let what = format!("the request has more than {limit} bytes; shorten it, or raise `network.max-request-size`");
    Failure::new("INVALID_REQUEST", what).with("max_request_bytes", limit).into_status()
}

// === impl Call ===

impl Call {
    fn new(counts: &Arc<Counts>, path: &str) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path);
        counts.in_flight.increment(1.0);
        let method = METHODS.iter().position(|method| *method == path).unwrap_or(METHODS.len());
        Self { counts: Arc::clone(counts), method, code: Code::Cancelled }
    }

    fn ended(&mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.counts.in_flight.decrement(1.0);
        self.counts.ended(self.method, self.code);
    }
}

// === impl Metered ===

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    self.call.ended(status.code());
                }
            }
            Poll::Ready(Some(Err(status))) => self.call.ended(status.code()),
            Poll::Ready(None) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_method_of_the_protocol_is_counted_by_name() {
        for set in [llambo_proto::FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET] {
            for file in FileDescriptorSet::decode(set).unwrap().file {
                for service in &file.service {
                    for method in &service.method {
                        let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                        // health's List is not part of the service that tonic-health generates
                        assert!(METHODS.contains(&name.as_str()) || name.ends_with("Health/List"), "{name}");
                    }
                }
            }
        }
    }
}

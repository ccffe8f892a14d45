//! Counts calls, whatever serves them, and gives a request that is too large an error that says so.

use std::{
    convert::Infallible,
    pin::Pin,
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

const REQUESTS: &str = "llambo_edge_requests_total";
const IN_FLIGHT: &str = "llambo_edge_in_flight_streams";

/// Every method there is: anything else a caller names is counted as `other`, so that labels stay few.
const METHODS: [&str; 22] = [
    "llambo.v1.Inference/Generate",
    "llambo.v1.Inference/Infer",
    "llambo.v1.Inference/Embed",
    "llambo.v1.Inference/ListModels",
    "llambo.v1.Cluster/Spawn",
    "llambo.v1.Cluster/Scale",
    "llambo.v1.Cluster/Drain",
    "llambo.v1.Cluster/ListNodes",
    "llambo.v1.Cluster/Status",
    "llambo.v1.Cluster/WatchStatus",
    "llambo.v1.Cluster/GetBalancer",
    "llambo.v1.Cluster/SetBalancer",
    "llambo.v1.Cluster/Hibernate",
    "llambo.v1.Cluster/Wake",
    "llambo.v1.Modules/LoadModule",
    "llambo.v1.Modules/ListModules",
    "llambo.v1.Modules/UnloadModule",
    "llambo.v1.Modules/RollBackModule",
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Describes the edge's metrics to the recorder; call once, after it is installed.
pub fn describe_metrics() {
    metrics::describe_counter!(REQUESTS, "gRPC calls that ended, by method and status code");
    metrics::describe_gauge!(IN_FLIGHT, "gRPC calls that are open");
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct MeterLayer {
    pub(crate) max_request_bytes: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Meter<S> {
    inner: S,
    max_request_bytes: usize,
}

/// One call. Counted as it is dropped; CANCELLED unless it came to an end before.
struct Call {
    method: &'static str,
    code: Code,
}

/// An answer under way; its code is in the trailers.
struct Metered {
    body: Body,
    call: Call,
}

// === impl MeterLayer ===

impl<S> Layer<S> for MeterLayer {
    type Service = Meter<S>;

    fn layer(&self, inner: S) -> Meter<S> {
        Meter { inner, max_request_bytes: self.max_request_bytes }
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
        let mut call = Call::new(request.uri().path());
        let answer = self.inner.call(request);
        let limit = self.max_request_bytes;
        Box::pin(async move {
            let response = answer.await?;
            // a status among the headers means that no message and no trailers follow
            let Some(status) = Status::from_header_map(response.headers()) else {
                return Ok(response.map(|body| Body::new(Metered { body, call })));
            };
            // our own services never say OUT_OF_RANGE: it is what the transport says of a message above its limit
            if status.code() == Code::OutOfRange && status.details().is_empty() {
                let refusal = too_large(limit);
                call.ended(refusal.code());
                return Ok(refusal.into_http());
            }
            call.ended(status.code());
            Ok(response)
        })
    }
}

fn too_large(limit: usize) -> Status {
    Failure::new(
        "INVALID_REQUEST",
        format!("the request has more than {limit} bytes; shorten it, or raise `network.max-request-size`"),
    )
    .with("max_request_bytes", limit)
    .into_status()
}

// === impl Call ===

impl Call {
    fn new(path: &str) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path);
        metrics::gauge!(IN_FLIGHT).increment(1.0);
        Self { method: METHODS.into_iter().find(|method| *method == path).unwrap_or("other"), code: Code::Cancelled }
    }

    fn ended(&mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        metrics::gauge!(IN_FLIGHT).decrement(1.0);
        metrics::counter!(REQUESTS, "method" => self.method, "code" => code_name(self.code)).increment(1);
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

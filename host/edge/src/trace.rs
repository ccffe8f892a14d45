//! Which requests are traced, and the part of a trace that is the edge's own: a whole request, from its first byte to its last.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use llambo_inference::{Finished, ModelName, Part, Prompt, RequestId, TraceContext, part};
use tonic::codegen::{Service, http};
use tower_layer::Layer;
use tracing::field::DisplayValue;

use crate::caller::Caller;

const TRACEPARENT: &str = "traceparent";

/// A request that is to be traced. The layer that decides puts one among its extensions; without it there is no trace.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) context: TraceContext,
    /// What was called: `/llambo.v1.Inference/Generate`, `/v1/chat/completions`. Without query.
    path: Arc<str>,
    is_grpc: bool,
}

/// Decides for each request whether it is traced: as its client says, and otherwise by chance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TraceLayer {
    /// The share of requests that are traced though nobody asked for it, 0 to 1; `None`: none at all, whoever asks.
    pub(crate) sample: Option<f64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Traced<S> {
    inner: S,
    sample: Option<f64>,
}

// === impl TraceLayer ===

impl<S> Layer<S> for TraceLayer {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced { inner, sample: self.sample }
    }
}

impl<S, B> Service<http::Request<B>> for Traced<S>
where
    S: Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> S::Future {
        if let Some(incoming) = self.sample.and_then(|sample| Incoming::of(&request, sample)) {
            request.extensions_mut().insert(incoming);
        }
        self.inner.call(request)
    }
}

// === impl Incoming ===

impl Incoming {
    fn of<B>(request: &http::Request<B>, sample: f64) -> Option<Self> {
        let header = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let context = match header.and_then(TraceContext::parse) {
            Some(asked) => asked,
            None => TraceContext::begun(sample > 0.0 && rand::random::<f64>() < sample),
        };
        let is_grpc = request
            .headers()
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        context.is_sampled.then(|| Self { context, path: request.uri().path().into(), is_grpc })
    }
}

/// The part of a trace that is the whole request of a caller.
pub(crate) fn request(caller: &Caller, id: &RequestId, model: &ModelName, prompt: &Prompt) -> Part {
    let Some(Incoming { context, path, is_grpc }) = &caller.trace else { return Part::default() };
    let operation = match prompt {
        Prompt::Chat(_) => "chat",
        Prompt::Text(_) => "text_completion",
    };
    let part = part!(
        Some(*context),
        "llambo.request",
        otel.kind = "server",
        llambo.request.id = id.as_str(),
        gen_ai.operation.name = operation,
        gen_ai.provider.name = "llambo",
        gen_ai.request.model = model.as_str(),
        gen_ai.response.model = model.as_str(),
        gen_ai.response.finish_reasons = Empty,
        gen_ai.usage.input_tokens = Empty,
        gen_ai.usage.output_tokens = Empty,
        llambo.usage.cached_tokens = Empty,
        llambo.ttft_ms = Empty,
        llambo.node.id = Empty,
        rpc.system = Empty,
        rpc.service = Empty,
        rpc.method = Empty,
        url.path = Empty,
    );
    if let (true, Some((service, method))) = (*is_grpc, path.trim_start_matches('/').split_once('/')) {
        part.record("rpc.system", "grpc");
        part.record("rpc.service", service);
        part.record("rpc.method", method);
    } else {
        part.record("url.path", &**path);
    }
    part
}

/// What is told at the end of an answer is noted beside its request.
pub(crate) fn finished(part: &mut Part, finished: &Finished, ttft_ms: f64) {
    part.record("gen_ai.response.finish_reasons", finished.reason.as_str());
    part.record("gen_ai.usage.input_tokens", u64::from(finished.usage.input_tokens));
    part.record("gen_ai.usage.output_tokens", u64::from(finished.usage.output_tokens));
    part.record("llambo.usage.cached_tokens", u64::from(finished.usage.cached_tokens));
    part.record("llambo.ttft_ms", ttft_ms);
    part.end();
}

/// The id of its trace, for log lines.
pub(crate) fn id(part: &Part) -> Option<DisplayValue<String>> {
    part.context().map(|context| tracing::field::display(format!("{:032x}", context.trace_id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(traceparent: Option<&str>) -> http::Request<()> {
        let request = http::Request::builder().uri("/v1/chat/completions?secret=1");
        match traceparent {
            Some(header) => request.header(TRACEPARENT, header),
            None => request,
        }
        .body(())
        .unwrap()
    }

    #[test]
    fn a_client_decides_and_otherwise_chance() {
        let asked = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let incoming = Incoming::of(&request(Some(asked)), 0.0).unwrap();
        assert_eq!(incoming.context.to_string(), asked);
        assert_eq!(&*incoming.path, "/v1/chat/completions", "what follows may be anything");
        assert!(Incoming::of(&request(Some(&asked.replace("-01", "-00"))), 1.0).is_none(), "it said no");
        assert!(Incoming::of(&request(None), 0.0).is_none());
        let begun = Incoming::of(&request(None), 1.0).unwrap().context;
        assert_eq!(begun.span_id, 0, "nobody's child");
        // nonsense is as good as nothing
        assert!(Incoming::of(&request(Some("nonsense")), 0.0).is_none());
        let n_traced = (0..2000).filter(|_| Incoming::of(&request(None), 0.25).is_some()).count();
        assert!((350..650).contains(&n_traced), "{n_traced} of 2000");
    }
}

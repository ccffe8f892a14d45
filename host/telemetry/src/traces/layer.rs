//! Spans of the crate `tracing` become spans of OpenTelemetry, with the ids that they were given.

use std::{fmt::Debug, time::SystemTime};

use opentelemetry::{
    Array, InstrumentationScope, KeyValue, StringValue, Value,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use tokio::sync::mpsc;
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use super::count;

/// Keeps what is known of each part that is open, and hands it over when it ends.
pub(crate) struct Parts {
    ended: mpsc::Sender<SpanData>,
    scope: InstrumentationScope,
}

/// A part that is open.
struct Open {
    name: &'static str,
    began: SystemTime,
    noted: Noted,
}

#[derive(Default)]
struct Noted {
    trace_id: u128,
    span_id: u64,
    parent_id: u64,
    is_server: bool,
    error: Option<String>,
    attributes: Vec<KeyValue>,
}

// === impl Parts ===

impl Parts {
    pub(crate) fn new(ended: mpsc::Sender<SpanData>) -> Self {
        let scope = InstrumentationScope::builder("llambo").with_version(env!("CARGO_PKG_VERSION")).build();
        Self { ended, scope }
    }

    fn span(&self, open: Open, ended: SystemTime) -> SpanData {
        let Open { name, began, noted } = open;
        let (trace_id, span_id) = (TraceId::from(noted.trace_id), SpanId::from(noted.span_id));
        let status = match noted.error {
            Some(reason) => Status::error(reason),
            None => Status::Unset,
        };
        SpanData {
            span_context: SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id: SpanId::from(noted.parent_id),
            // only what a client sent can have begun elsewhere
            parent_span_is_remote: noted.is_server && noted.parent_id != 0,
            span_kind: if noted.is_server { SpanKind::Server } else { SpanKind::Internal },
            name: name.into(),
            start_time: began,
            end_time: ended,
            attributes: noted.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: self.scope.clone(),
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Parts {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut open = Open { name: attributes.metadata().name(), began: SystemTime::now(), noted: Noted::default() };
        attributes.record(&mut open.noted);
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(open) = span.extensions_mut().get_mut::<Open>() {
            values.record(&mut open.noted);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(open) = span.extensions_mut().remove::<Open>() else { return };
        if self.ended.try_send(self.span(open, SystemTime::now())).is_err() {
            count("dropped", 1);
        }
    }
}

// === impl Noted ===

impl Noted {
    fn note(&mut self, field: &Field, value: impl Into<Value>) {
        self.attributes.push(KeyValue::new(field.name(), value));
    }
}

impl Visit for Noted {
    fn record_u128(&mut self, field: &Field, value: u128) {
        match field.name() {
            "trace_id" => self.trace_id = value,
            _ => self.note(field, value.to_string()),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "span_id" => self.span_id = value,
            "parent_id" => self.parent_id = value,
            _ => self.note(field, i64::try_from(value).unwrap_or(i64::MAX)),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.note(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.note(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.note(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "otel.kind" => self.is_server = value == "server",
            "error.type" => {
                self.error = Some(value.to_owned());
                self.note(field, value.to_owned());
            }
            // the convention has one for each choice; a request has one choice here
            "gen_ai.response.finish_reasons" => {
                self.note(field, Value::Array(Array::String(vec![StringValue::from(value.to_owned())])));
            }
            _ => self.note(field, value.to_owned()),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

//! Where traces go, as the configuration and the environment of OpenTelemetry say.

use std::{collections::HashMap, time::Duration};

use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::{Resource, trace::SpanExporter as _};
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};

use crate::TelemetryError;

/// What one batch gets. A collector that is slower is as good as none.
pub(super) const EXPORT_WITHIN: Duration = Duration::from_secs(5);
/// Where traces of OTLP over HTTP go when an endpoint names no path.
const HTTP_PATH: &str = "/v1/traces";

/// A collector of traces.
#[derive(Clone, PartialEq, Eq)]
pub struct Destination {
    /// `http://` and where it listens.
    pub endpoint: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// The name of this host among services.
    pub service_name: String,
    /// Sent with each batch; may be secrets.
    pub headers: Vec<(String, String)>,
}

/// OTLP's two transports. Both carry protobuf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC; collectors listen on port 4317.
    #[default]
    Grpc,
    /// HTTP with protobuf; collectors listen on port 4318.
    Http,
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { endpoint, protocol, service_name, headers } = self;
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Destination")
            .field("endpoint", endpoint)
            .field("protocol", protocol)
            .field("service_name", service_name)
            .field("headers", &names)
            .finish()
    }
}

impl Destination {
    /// What the standard environment says, where anything is switched on by it: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT`, unless
    /// `OTEL_SDK_DISABLED` is `true` or `OTEL_TRACES_EXPORTER` is `none`. What the library behind it reads by itself (headers, compression, resource attributes)
    /// is left to it.
    pub fn from_environment(read: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let read = |name: &str| read(name).filter(|value| !value.is_empty());
        let is = |name: &str, value: &str| read(name).is_some_and(|set| set.eq_ignore_ascii_case(value));
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return None;
        }
        let protocol = read("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| read("OTEL_EXPORTER_OTLP_PROTOCOL"));
        let protocol =
            protocol.map_or(Protocol::Grpc, |name| if name.starts_with("http") { Protocol::Http } else { Protocol::Grpc });
        let endpoint = read("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| {
            let base = read("OTEL_EXPORTER_OTLP_ENDPOINT")?;
            // one for all signals gets the path of this one
            Some(if protocol == Protocol::Http { format!("{}{HTTP_PATH}", base.trim_end_matches('/')) } else { base })
        })?;
        let service_name = read("OTEL_SERVICE_NAME").unwrap_or_else(|| "llambo".into());
        Some(Self { endpoint, protocol, service_name, headers: Vec::new() })
    }

    /// Runs within a tokio runtime; connects when there is something to send.
    pub(super) fn exporter(&self) -> Result<SpanExporter, TelemetryError> {
        let wrong = |cause: String| TelemetryError::Destination { endpoint: self.endpoint.clone(), cause };
        if !self.endpoint.starts_with("http://") {
            return Err(wrong("only `http://` is spoken here: let a collector beside the host send it on over TLS".into()));
        }
        let built = match self.protocol {
            Protocol::Grpc => SpanExporter::builder()
                .with_tonic()
                .with_endpoint(&self.endpoint)
                .with_timeout(EXPORT_WITHIN)
                .with_metadata(self.metadata().ok_or_else(|| wrong("a header cannot be sent over gRPC".into()))?)
                .build(),
            Protocol::Http => SpanExporter::builder()
                .with_http()
                .with_endpoint(self.http_endpoint())
                .with_timeout(EXPORT_WITHIN)
                .with_headers(self.headers.iter().cloned().collect::<HashMap<_, _>>())
                .with_http_client(HyperClient::with_default_connector(EXPORT_WITHIN, None))
                .build(),
        };
        let mut exporter = built.map_err(|e| wrong(e.to_string()))?;
        exporter.set_resource(&Resource::builder().with_service_name(self.service_name.clone()).build());
        Ok(exporter)
    }

    fn http_endpoint(&self) -> String {
        let rest = self.endpoint.strip_prefix("http://").unwrap_or(&self.endpoint);
        match rest.split_once('/') {
            None | Some((_, "")) => format!("{}{HTTP_PATH}", self.endpoint.trim_end_matches('/')),
            Some(_) => self.endpoint.clone(),
        }
    }

    fn metadata(&self) -> Option<MetadataMap> {
        let mut metadata = MetadataMap::new();
        for (name, value) in &self.headers {
            let key = MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes()).ok()?;
            let mut value = MetadataValue::try_from(value.as_str()).ok()?;
            value.set_sensitive(true);
            metadata.insert(key, value);
        }
        Some(metadata)
    }
}

/// Reads a file of headers: `name: value` on each line; empty lines and those that begin with `#` say nothing.
///
/// # Errors
/// [`TelemetryError::Header`] names a line without showing it.
pub fn headers(text: &str) -> Result<Vec<(String, String)>, TelemetryError> {
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(i, line)| {
            let header = line.split_once(':').map(|(name, value)| (name.trim(), value.trim()));
            let sound = header.filter(|(name, value)| {
                let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
                is_name && !name.to_ascii_lowercase().ends_with("-bin") && value.bytes().all(|b| (b' '..=b'~').contains(&b))
            });
            sound.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or(TelemetryError::Header { line: i + 1 })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(set: &'static [(&'static str, &'static str)]) -> Option<Destination> {
        Destination::from_environment(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_standard_environment_switches_traces_on() {
        assert_eq!(environment(&[]), None);
        assert_eq!(environment(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), None);
        let destination = environment(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")]).unwrap();
        assert_eq!((destination.endpoint.as_str(), destination.protocol), ("http://c:4317", Protocol::Grpc));
        assert_eq!(destination.service_name, "llambo");
        let destination = environment(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://d:4318/x"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_SERVICE_NAME", "mine"),
        ])
        .unwrap();
        assert_eq!((destination.endpoint.as_str(), destination.protocol), ("http://d:4318/x", Protocol::Http));
        assert_eq!(destination.service_name, "mine");
        let destination = environment(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/otlp/"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
        ]);
        assert_eq!(destination.unwrap().endpoint, "http://c:4318/otlp/v1/traces");
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            let set = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"), off];
            let read = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(Destination::from_environment(read), None, "{off:?}");
        }
    }

    #[test]
    fn an_endpoint_without_a_path_gets_that_of_traces() {
        let at = |endpoint: &str| {
            let destination =
                Destination { endpoint: endpoint.into(), protocol: Protocol::Http, service_name: String::new(), headers: vec![] };
            destination.http_endpoint()
        };
        assert_eq!(at("http://c:4318"), "http://c:4318/v1/traces");
        assert_eq!(at("http://c:4318/"), "http://c:4318/v1/traces");
        assert_eq!(at("http://c:4318/otlp/v1/traces"), "http://c:4318/otlp/v1/traces");
    }

    #[test]
    fn headers_are_secrets_even_where_they_are_wrong() {
        let read = headers("# to the collector\n\nauthorization: Bearer a:b\n  x-team : one \n").unwrap();
        assert_eq!(read, [("authorization".into(), "Bearer a:b".into()), ("x-team".into(), "one".into())]);
        let error = headers("\nhunter2 without a colon").unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
        assert!(headers("a b: c").is_err() && headers(": c").is_err() && headers("a: \u{e9}").is_err());
        let destination =
            Destination { endpoint: "http://c".into(), protocol: Protocol::Grpc, service_name: "l".into(), headers: read };
        assert!(!format!("{destination:?}").contains("Bearer"));
    }

    #[tokio::test]
    async fn what_cannot_be_spoken_to_is_told_at_once() {
        for protocol in [Protocol::Grpc, Protocol::Http] {
            let destination =
                Destination { endpoint: "https://c:4317".into(), protocol, service_name: "l".into(), headers: vec![] };
            let error = destination.exporter().unwrap_err().to_string();
            assert!(error.contains("https://c:4317") && error.contains("TLS"), "{error}");
        }
    }
}

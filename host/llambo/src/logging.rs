//! What the host tells about itself, as its configuration and the environment say: log lines, traces, the page of metrics.

use std::{fs, sync::Arc};

use llambo_config::{Config, LogFormat, OtlpProtocol, Tracing};
use llambo_edge::Page;
use llambo_telemetry::{Destination, Listing, Logs, Protocol, TelemetryError, Waiting, Writing, span_queue};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::Failure;

/// Labels of metrics. `llambo metrics` prints them below the metrics.
const LABELS: [(&str, &str); 15] = [
    ("by", "who decided: `load`, or a `policy`"),
    ("cause", "why a policy's answer was not used: what it did, or that it could not be asked"),
    ("change", "`load`, `unload`, `roll-back`"),
    (
        "code",
        "the status code of gRPC, `OK`, `RESOURCE_EXHAUSTED`, or of HTTP: `200`, `429`; `CANCELLED` where the client went away",
    ),
    ("direction", "`up`, `down`"),
    ("kind", "the kind of policy, `balancer`, `admission`, ..., or of event: `scale.up`, ..."),
    (
        "method",
        "the method of gRPC, `package.Service/Method`, or the route of HTTP, `/v1/models`; `other` for those that do not exist",
    ),
    ("model", "the model's name, as clients ask for it"),
    ("outcome", "how it ended; a metric's own description names the values"),
    ("protocol", "the port: `grpc` or `http`"),
    ("reason", "a reason of `llambo.proto`, or why an answer was at its end: `stop`, `length`, `failed`, `cancelled`"),
    ("served", "the tier that served them in the end"),
    ("state", "the state of a node: `ready`, `busy`, `hibernated`, ..."),
    ("type", "the node type, as the configuration or a published module names it"),
    ("wanted", "the tier that they should have had"),
];

/// Traces that are to be sent, and where.
pub(crate) struct Traces {
    pub(crate) destination: Destination,
    pub(crate) waiting: Waiting,
}

/// Lines are written from now on, as long as what is answered is there. Traces wait until somebody sends them, where there are any.
pub(crate) fn start(config: &Config) -> Result<(Writing, Option<Traces>), Failure> {
    let format = match config.logging.format {
        LogFormat::Text => llambo_telemetry::LogFormat::Text,
        LogFormat::Json => llambo_telemetry::LogFormat::Json,
    };
    let logs = Logs { level: config.logging.level.clone(), format };
    let queued = destination(&config.tracing)?.map(|destination| {
        let (queue, waiting) = span_queue();
        (queue, Traces { destination, waiting })
    });
    let (queue, traces) = queued.unzip();
    let writing = logs.start(queue.as_ref()).map_err(|e| failure(&e))?;
    Ok((writing, traces))
}

/// What is wrong in telemetry is the configuration's fault, unless somebody was there before.
pub(crate) fn failure(error: &TelemetryError) -> Failure {
    match error {
        TelemetryError::Taken(_) => Failure::machine(error),
        _ => Failure::Config(error.to_string()),
    }
}

/// Where traces go, if anywhere: what is written in the configuration goes before the environment.
fn destination(tracing: &Tracing) -> Result<Option<Destination>, Failure> {
    let of_environment = Destination::from_environment(|name| std::env::var(name).ok());
    let destination = match (&tracing.otlp, of_environment) {
        (None, None) => return Ok(None),
        (None, Some(destination)) => destination,
        (Some(endpoint), of_environment) => {
            let written = Destination {
                endpoint: endpoint.clone(),
                protocol: Protocol::Grpc,
                service_name: "llambo".into(),
                headers: Vec::new(),
            };
            of_environment.map_or(written, |destination| Destination { endpoint: endpoint.clone(), ..destination })
        }
    };
    let protocol = tracing.protocol.map_or(destination.protocol, |protocol| match protocol {
        OtlpProtocol::Grpc => Protocol::Grpc,
        OtlpProtocol::Http => Protocol::Http,
    });
    let headers = match &tracing.headers_file {
        None => Vec::new(),
        Some(path) => {
            let text = fs::read_to_string(&path.resolved)
                .map_err(|e| Failure::Config(format!("tracing.headers-file `{path}` cannot be read: {e}")))?;
            llambo_telemetry::headers(&text).map_err(|e| failure(&e))?
        }
    };
    let service_name = tracing.service_name.clone().unwrap_or(destination.service_name);
    Ok(Some(Destination { endpoint: destination.endpoint, protocol, service_name, headers }))
}

/// Counts and measures from now on.
pub(crate) fn record() -> Result<PrometheusHandle, Failure> {
    let handle = llambo_telemetry::record().map_err(|e| Failure::Machine(e.to_string()))?;
    describe();
    Ok(handle)
}

/// The page of metrics. `refresh` brings gauges up to date before it is written.
pub(crate) fn page(handle: PrometheusHandle, with_aliases: bool, refresh: impl Fn() + Send + Sync + 'static) -> Page {
    Arc::new(move || {
        refresh();
        handle.run_upkeep();
        let mut page = handle.render();
        if with_aliases {
            page.push_str(&llambo_telemetry::aliases(&page));
        }
        page
    })
}

/// All metrics there are, as a table.
pub(crate) fn table() -> String {
    let listing: Listing = llambo_telemetry::describe(describe);
    listing.markdown(&LABELS)
}

fn describe() {
    llambo_edge::describe_metrics();
    llambo_orchestrator::describe_metrics();
    llambo_llama::describe_metrics();
    llambo_isolate::describe_metrics();
    llambo_policy::describe_metrics();
    llambo_sessions::describe_metrics();
    llambo_shelf::describe_metrics();
    llambo_tasks::describe_metrics();
    llambo_telemetry::describe_metrics();
    metrics::describe_counter!(
        "llambo_module_changes_total",
        "Modules loaded, unloaded and rolled back by clients, by change and outcome: DONE, or why not"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_label_that_a_metric_has_is_explained() {
        let listing = llambo_telemetry::describe(describe);
        let mut used: Vec<String> =
            listing.iter().flat_map(|metric| llambo_telemetry::labels_of(&metric.meaning)).map(str::to_owned).collect();
        used.sort_unstable();
        used.dedup();
        assert_eq!(used, LABELS.map(|(label, _)| label));
    }
}

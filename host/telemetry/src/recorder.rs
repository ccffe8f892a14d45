//! Where measurements are kept until somebody asks for the page of metrics.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::TelemetryError;

/// From 0.1 us to a minute: a choice of node is far below, a long answer at the upper end.
const SECONDS_BUCKETS: [f64; 18] =
    [1e-7, 1e-6, 1e-5, 1e-4, 5e-4, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];
const SEQUENCES_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Counts and measures from now on, in this whole process. Call [`PrometheusHandle::run_upkeep`] now and then: until then each measurement takes memory.
///
/// # Errors
/// [`TelemetryError::Recorder`]: there is a recorder already.
pub fn record() -> Result<PrometheusHandle, TelemetryError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_sequences".into()), &SEQUENCES_BUCKETS))
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|e| TelemetryError::Recorder(e.to_string()))
}

//! What is counted.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::{counts::Counts, task::TaskState};

/// Registers the names, units and meanings of this room's metrics with the recorder. To be called once it is installed.
pub fn describe_metrics() {
    describe_gauge!("llambo_tasks_queued", "Tasks that wait to run");
    describe_gauge!("llambo_tasks_running", "Tasks that run");
    describe_gauge!("llambo_tasks_bytes", Unit::Bytes, "Requests and texts of tasks that are kept");
    describe_counter!("llambo_tasks_total", "Tasks ended, by outcome: finished, failed, cancelled, expired");
    describe_histogram!(
        "llambo_tasks_commit_seconds",
        Unit::Seconds,
        "Time to write what waited to the disk, in one transaction"
    );
}

pub(crate) fn counts(counts: &Counts) {
    gauge!("llambo_tasks_queued").set(counts.queued as f64);
    gauge!("llambo_tasks_running").set(counts.running as f64);
    gauge!("llambo_tasks_bytes").set(counts.bytes as f64);
}

pub(crate) fn ended(states: impl Iterator<Item = TaskState>) {
    for state in states {
        counter!("llambo_tasks_total", "outcome" => state.as_str()).increment(1);
    }
}

pub(crate) fn committed(took: Duration) {
    histogram!("llambo_tasks_commit_seconds").record(took.as_secs_f64());
}

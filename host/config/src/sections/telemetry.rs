//! What a host tells others about itself: metrics and traces.

use std::path::Path;

use super::file_path;
use crate::{Metrics, OtlpProtocol, Tracing, decode::Map};

pub(super) const METRICS: &[&str] = &["aliases"];
pub(super) const TRACING: &[&str] = &["otlp", "protocol", "sample", "headers-file", "service-name"];

pub(super) fn metrics(root: &Map<'_>) -> Metrics {
    Metrics { aliases: root.section("metrics", METRICS).switch("aliases").unwrap_or(true) }
}

pub(super) fn tracing(root: &Map<'_>, folder: &Path) -> Tracing {
    let map = root.section("tracing", TRACING);
    let otlp = map.get("otlp").and_then(|value| {
        let text = value.text()?;
        let place = text.strip_prefix("http://").filter(|place| !place.is_empty() && !place.starts_with(['/', ':']));
        let is_sound = place.is_some_and(|place| place.bytes().all(|b| b.is_ascii_graphic() && b != b'@'));
        if !is_sound {
            let advice = "write it like `http://127.0.0.1:4317`; a collector beside the host can send on over TLS";
            value.wrong("must be `http://` and where a collector listens, without credentials", advice);
            return None;
        }
        Some(text.to_owned())
    });
    let service_name = map.get("service-name").and_then(|value| {
        let text = value.text()?;
        if text.chars().count() > 128 || text.contains(char::is_control) {
            value.wrong("must be at most 128 printable characters", "choose another name");
            return None;
        }
        Some(text.to_owned())
    });
    Tracing {
        otlp,
        protocol: map.choice("protocol", OtlpProtocol::NAMES),
        sample: map.number("sample", 0.0..=1.0).unwrap_or(1.0),
        headers_file: map.get("headers-file").and_then(|value| file_path(&value, value.text()?, folder)),
        service_name,
    }
}

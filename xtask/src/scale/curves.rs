//! Scale runs as a picture: what an isolate and a request cost, over the number of isolates.

use serde_json::Value;

use crate::picture::{self, Axis, BLUE, GREEN, RED};

/// One measured figure over the number of isolates.
struct Curve {
    name: &'static str,
    colour: &'static str,
    /// Where it is in a report.
    path: &'static str,
}

struct Panel {
    title: &'static str,
    curves: &'static [Curve],
}

const PANELS: [Panel; 6] = [
    Panel {
        title: "spawning one isolate, \u{b5}s",
        curves: &[
            Curve { name: "median", colour: GREEN, path: "/spawn/answer/spawn_p50_us" },
            Curve { name: "99th percentile", colour: BLUE, path: "/spawn/answer/spawn_p99_us" },
        ],
    },
    Panel {
        title: "spawning all of them, s",
        curves: &[Curve { name: "wall clock", colour: GREEN, path: "/spawn/wall_seconds" }],
    },
    Panel {
        title: "resident memory of an idle isolate, bytes",
        curves: &[Curve { name: "bytes", colour: GREEN, path: "/memory/bytes_per_idle_isolate" }],
    },
    Panel {
        title: "requests a second",
        curves: &[
            Curve { name: "alone", colour: GREEN, path: "/load/requests_per_second" },
            Curve { name: "under attack", colour: RED, path: "/load_under_attack/requests_per_second" },
        ],
    },
    Panel {
        title: "time to first token, ms",
        curves: &[
            Curve { name: "median", colour: GREEN, path: "/load/ttft_ms/p50" },
            Curve { name: "99th percentile", colour: BLUE, path: "/load/ttft_ms/p99" },
            Curve { name: "99th, under attack", colour: RED, path: "/load_under_attack/ttft_ms/p99" },
        ],
    },
    Panel {
        title: "time of a request, ms",
        curves: &[
            Curve { name: "median", colour: GREEN, path: "/load/total_ms/p50" },
            Curve { name: "99th percentile", colour: BLUE, path: "/load/total_ms/p99" },
            Curve { name: "99th, under attack", colour: RED, path: "/load_under_attack/total_ms/p99" },
        ],
    },
];

/// All panels. `runs` are reports as they are kept, in order of their isolates.
pub(super) fn to_svg(runs: &[Value]) -> String {
    let drawn = |panel: &Panel| picture::Panel {
        title: panel.title.to_owned(),
        curves: panel.curves.iter().map(|curve| curve.drawn(runs)).collect(),
        axis: Axis::Logarithmic,
    };
    picture::to_svg(&PANELS.iter().map(drawn).collect::<Vec<_>>(), &caption(runs))
}

/// What was run where.
fn caption(runs: &[Value]) -> String {
    let Some(run) = runs.first() else { return String::new() };
    let setting = |name: &str| run["settings"][name].to_string().trim_matches('"').to_owned();
    let machine = &run["machine"];
    format!(
        "over the number of isolates: {} requests of {} tokens, {} at a time, model {}; {} cores of {}",
        setting("requests"),
        setting("max_tokens"),
        setting("concurrency"),
        setting("model"),
        machine["cores"],
        machine["processor"].as_str().unwrap_or("an unknown processor"),
    )
}

impl Curve {
    fn drawn(&self, runs: &[Value]) -> picture::Curve {
        let point = |run: &Value| Some((run.pointer("/settings/isolates")?.as_f64()?, run.pointer(self.path)?.as_f64()?));
        picture::Curve { name: self.name, colour: self.colour, points: runs.iter().filter_map(point).collect() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(isolates: u32, p50: f64, attacked: &Value) -> Value {
        json!({
            "settings": { "isolates": isolates, "requests": 10, "max_tokens": 4, "concurrency": 2, "model": "m" },
            "machine": { "cores": 2, "processor": "P" },
            "spawn": { "wall_seconds": 1.5, "answer": { "spawn_p50_us": p50, "spawn_p99_us": 4.0 * p50 } },
            "load": { "requests_per_second": 100.0, "ttft_ms": { "p50": 1.0, "p99": 2.0 }, "total_ms": { "p50": 3.0, "p99": 4.0 } },
            "load_under_attack": attacked,
        })
    }

    #[test]
    fn a_picture_has_a_curve_for_each_figure_that_was_measured() {
        let runs = [run(1000, 10.0, &Value::Null), run(100_000, 20.0, &Value::Null)];
        let svg = to_svg(&runs);
        assert_eq!(svg.matches("<polyline").count(), 2 + 1 + 1 + 2 + 2, "{svg}");
        assert!(svg.contains(">100k<") && svg.contains("10 requests of 4 tokens") && !svg.contains("attack"), "{svg}");
        let attacked = json!({ "requests_per_second": 50.0, "ttft_ms": { "p99": 3.0 }, "total_ms": { "p99": 9.0 } });
        let svg = to_svg(&[run(1000, 10.0, &attacked)]);
        assert!(svg.contains("under attack") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(to_svg(&[]).ends_with("</svg>\n"));
    }
}

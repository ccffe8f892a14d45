//! Scale runs as a picture: what an isolate and a request cost, over the number of isolates.

use std::fmt::Write;

use serde_json::Value;

const PANEL_WIDTH: f64 = 300.0;
const PANEL_HEIGHT: f64 = 190.0;
const PANELS_IN_A_ROW: usize = 3;
/// Around the plot of a panel: left, right, above, below.
const ROOM: [f64; 4] = [52.0, 16.0, 40.0, 26.0];

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

const BLUE: &str = "#2f6f9f";
const GREEN: &str = "#2a7f62";
const RED: &str = "#b4583a";
const GREY: &str = "#8a8a8a";

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
    let width = PANEL_WIDTH * PANELS_IN_A_ROW as f64;
    let height = PANEL_HEIGHT * PANELS.len().div_ceil(PANELS_IN_A_ROW) as f64 + 24.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (n, panel) in PANELS.iter().enumerate() {
        let (x, y) = ((n % PANELS_IN_A_ROW) as f64 * PANEL_WIDTH, (n / PANELS_IN_A_ROW) as f64 * PANEL_HEIGHT);
        panel.draw(&mut svg, x, y, runs);
    }
    let _ = writeln!(svg, "<text x=\"8\" y=\"{:.1}\" fill=\"{GREY}\">{}</text>\n</svg>", height - 8.0, caption(runs));
    svg
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
    fn points(&self, runs: &[Value]) -> Vec<(f64, f64)> {
        let point = |run: &Value| Some((run.pointer("/settings/isolates")?.as_f64()?, run.pointer(self.path)?.as_f64()?));
        runs.iter().filter_map(point).collect()
    }
}

impl Panel {
    fn draw(&self, svg: &mut String, left: f64, top: f64, runs: &[Value]) {
        let curves: Vec<_> =
            self.curves.iter().map(|curve| (curve, curve.points(runs))).filter(|(_, points)| !points.is_empty()).collect();
        let all = || curves.iter().flat_map(|(_, points)| points.iter().copied());
        let highest = round_up(all().map(|(_, y)| y).fold(0.0, f64::max));
        let (least, most) = all().fold((f64::INFINITY, 0.0f64), |(least, most), (x, _)| (least.min(x), most.max(x)));
        let [room_left, room_right, above, below] = ROOM;
        let (width, height) = (PANEL_WIDTH - room_left - room_right, PANEL_HEIGHT - above - below);
        // logarithmic; a single run stands in the middle
        let x = |n: f64| {
            let part = if most > least { (n / least).ln() / (most / least).ln() } else { 0.5 };
            left + room_left + part * width
        };
        let y = |value: f64| top + above + height * (1.0 - value / highest);
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" font-weight=\"bold\">{}</text>", left + 8.0, top + 16.0, self.title);
        for part in [0.0, 0.5, 1.0] {
            let (value, at) = (highest * part, y(highest * part));
            let _ = writeln!(
                svg,
                "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left + room_left,
                left + room_left + width,
                left + room_left - 5.0,
                at + 4.0,
                figure(value)
            );
        }
        let mut numbers: Vec<f64> = all().map(|(n, _)| n).collect();
        numbers.sort_by(f64::total_cmp);
        numbers.dedup();
        for n in numbers {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x(n),
                top + PANEL_HEIGHT - 10.0,
                figure(n)
            );
        }
        let mut beside = left + 8.0;
        for (curve, points) in &curves {
            let path: Vec<String> = points.iter().map(|(n, value)| format!("{:.1},{:.1}", x(*n), y(*value))).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>",
                path.join(" "),
                curve.colour
            );
            for (n, value) in points {
                let _ =
                    writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{}\"/>", x(*n), y(*value), curve.colour);
            }
            let _ = writeln!(
                svg,
                "<text x=\"{beside:.1}\" y=\"{:.1}\" fill=\"{}\" font-size=\"10\">{}</text>",
                top + 30.0,
                curve.colour,
                curve.name
            );
            beside += 12.0 + 5.2 * curve.name.len() as f64;
        }
    }
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(10.0 * power)
}

fn figure(value: f64) -> String {
    match value {
        1e6.. => format!("{}M", value / 1e6),
        1e3.. => format!("{}k", value / 1e3),
        _ => format!("{value}"),
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

    #[test]
    fn axes_end_at_round_figures() {
        assert_eq!([0.0, 1.0, 3.0, 120.0, 51_000.0].map(|value| figure(round_up(value))), ["1", "1", "5", "200", "100k"]);
        assert_eq!([50.0, 1500.0, 2e6].map(figure), ["50", "1.5k", "2M"]);
    }
}

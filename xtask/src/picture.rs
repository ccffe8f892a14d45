//! Figures as pictures: panels with curves, in rows, as SVG.

use std::fmt::Write;

const PANEL_WIDTH: f64 = 300.0;
const PANEL_HEIGHT: f64 = 190.0;
const PANELS_IN_A_ROW: usize = 3;
/// Around the plot of a panel: left, right, above, below.
const ROOM: [f64; 4] = [52.0, 20.0, 40.0, 26.0];

pub(crate) const BLUE: &str = "#2f6f9f";
pub(crate) const GREEN: &str = "#2a7f62";
pub(crate) const RED: &str = "#b4583a";
const GREY: &str = "#8a8a8a";

/// One figure over another.
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    pub(crate) colour: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Curves over one axis.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) curves: Vec<Curve>,
    pub(crate) axis: Axis,
}

/// What lies below the curves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    /// Few measured points, each marked, over numbers of any size. A single one stands in the middle.
    Logarithmic,
    /// Many points over seconds, from 0 on, named in minutes.
    Minutes,
}

/// All panels, with a line below them.
pub(crate) fn to_svg(panels: &[Panel], caption: &str) -> String {
    let width = PANEL_WIDTH * PANELS_IN_A_ROW as f64;
    let height = PANEL_HEIGHT * panels.len().div_ceil(PANELS_IN_A_ROW) as f64 + 24.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (n, panel) in panels.iter().enumerate() {
        let (x, y) = ((n % PANELS_IN_A_ROW) as f64 * PANEL_WIDTH, (n / PANELS_IN_A_ROW) as f64 * PANEL_HEIGHT);
        panel.draw(&mut svg, x, y);
    }
    let _ = writeln!(svg, "<text x=\"8\" y=\"{:.1}\" fill=\"{GREY}\">{caption}</text>\n</svg>", height - 8.0);
    svg
}

impl Panel {
    fn draw(&self, svg: &mut String, left: f64, top: f64) {
        let curves: Vec<_> = self.curves.iter().filter(|curve| !curve.points.is_empty()).collect();
        let all = || curves.iter().flat_map(|curve| curve.points.iter().copied());
        let highest = round_up(all().map(|(_, y)| y).fold(0.0, f64::max));
        let (least, most) = all().fold((f64::INFINITY, 0.0f64), |(least, most), (x, _)| (least.min(x), most.max(x)));
        let [room_left, room_right, above, below] = ROOM;
        let (width, height) = (PANEL_WIDTH - room_left - room_right, PANEL_HEIGHT - above - below);
        let x = |n: f64| {
            let part = match self.axis {
                Axis::Logarithmic if most > least => (n / least).ln() / (most / least).ln(),
                Axis::Logarithmic => 0.5,
                Axis::Minutes => n / most.max(1.0),
            };
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
        let mut numbers: Vec<f64> = match self.axis {
            Axis::Logarithmic => all().map(|(n, _)| n).collect(),
            Axis::Minutes => [0.0, 1.0, 2.0, 3.0].map(|part| (most / 180.0).round() * 60.0 * part).to_vec(),
        };
        numbers.sort_by(f64::total_cmp);
        numbers.dedup();
        for n in numbers {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x(n),
                top + PANEL_HEIGHT - 10.0,
                if self.axis == Axis::Minutes { format!("{} min", n / 60.0) } else { figure(n) }
            );
        }
        let mut beside = left + 8.0;
        for curve in curves {
            let path: Vec<String> = curve.points.iter().map(|(n, value)| format!("{:.1},{:.1}", x(*n), y(*value))).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>",
                path.join(" "),
                curve.colour
            );
            let marked = curve.points.iter().filter(|_| self.axis == Axis::Logarithmic);
            for (n, value) in marked {
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
    use super::*;

    #[test]
    fn axes_end_at_round_figures() {
        assert_eq!([0.0, 1.0, 3.0, 120.0, 51_000.0].map(|value| figure(round_up(value))), ["1", "1", "5", "200", "100k"]);
        assert_eq!([50.0, 1500.0, 2e6].map(figure), ["50", "1.5k", "2M"]);
    }

    #[test]
    fn time_begins_at_the_left_and_is_not_marked() {
        let curve = Curve { name: "nodes", colour: GREEN, points: vec![(0.0, 1.0), (900.0, 2.0), (1800.0, 1.0)] };
        let svg = to_svg(&[Panel { title: "t".into(), curves: vec![curve], axis: Axis::Minutes }], "c");
        assert!(svg.contains(">20 min<") && !svg.contains("<circle") && !svg.contains("NaN"), "{svg}");
    }
}

//! What came out: a table, JSON, a picture.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::scenarios::{Pair, Scenario, Setting};

pub(crate) struct Report {
    model: String,
    n_threads: u32,
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    about: &'static str,
    unit: &'static str,
    pairs: Vec<Pair>,
}

// === impl Report ===

impl Report {
    pub(crate) fn new(setting: &Setting) -> Self {
        Self { model: setting.model.clone(), n_threads: setting.n_threads, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, scenario: &Scenario, pairs: Vec<Pair>) {
        let row = Row { name: scenario.name, about: scenario.about, unit: scenario.unit, pairs };
        eprintln!("{:<24} {:.2} ({:.2} to {:.2})", row.name, row.median(|p| p.ratio), row.lowest(), row.highest());
        self.rows.push(row);
    }

    pub(crate) fn print(&self) {
        println!("\n{} on {} threads, medians of pairs\n", self.model, self.n_threads);
        println!("{:<24} {:>10} {:>10} {:>8} {:>16}  unit", "", "llambo", "other", "ratio", "lowest, highest");
        for row in &self.rows {
            println!(
                "{:<24} {:>10} {:>10} {:>8.2} {:>16}  {}",
                row.name,
                short(row.median(|p| p.ours)),
                short(row.median(|p| p.theirs)),
                row.median(|p| p.ratio),
                format!("{:.2}, {:.2}", row.lowest(), row.highest()),
                row.unit
            );
        }
    }

    pub(crate) fn to_json(&self) -> String {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let pairs: Vec<Value> =
                    row.pairs.iter().map(|p| json!({ "ours": p.ours, "theirs": p.theirs, "ratio": p.ratio })).collect();
                json!({ "name": row.name, "about": row.about, "unit": row.unit, "ratio": row.median(|p| p.ratio), "pairs": pairs })
            })
            .collect();
        format!("{:#}\n", json!({ "model": self.model, "threads": self.n_threads, "scenarios": rows }))
    }

    /// Bars on a logarithmic scale: to the right of the line is better than the other.
    pub(crate) fn to_svg(&self) -> String {
        const LEFT: f64 = 210.0;
        const RIGHT: f64 = 700.0;
        const ROW: f64 = 28.0;
        let height = 40.0 + ROW * self.rows.len() as f64;
        let ratios = || self.rows.iter().flat_map(|row| [row.lowest(), row.highest()]);
        let (low, high) = (ratios().fold(0.5, f64::min).ln(), ratios().fold(2.0, f64::max).ln());
        let x = |ratio: f64| LEFT + (ratio.ln() - low) / (high - low) * (RIGHT - LEFT - 60.0);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {RIGHT} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        for (i, row) in self.rows.iter().enumerate() {
            let (y, ratio) = (20.0 + ROW * i as f64, row.median(|p| p.ratio));
            let (from, to) = (x(ratio.min(1.0)), x(ratio.max(1.0)));
            let colour = if ratio >= 1.0 { "#2a7f62" } else { "#b4583a" };
            let _ = writeln!(
                svg,
                "<text x=\"8\" y=\"{:.1}\" fill=\"#222\">{}</text>\
                 <rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"16\" fill=\"{colour}\"/>\
                 <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#222\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#222\">{ratio:.2}</text>",
                y + 12.0,
                row.name,
                to - from,
                x(row.lowest()),
                x(row.highest()),
                y + 8.0,
                y + 8.0,
                x(row.highest()).max(to) + 6.0,
                y + 12.0
            );
        }
        let one = x(1.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"10\" y2=\"{:.1}\" stroke=\"#222\"/>\n</svg>",
            height - 14.0
        );
        svg
    }
}

// === impl Row ===

impl Row {
    fn median(&self, of: impl Fn(&Pair) -> f64) -> f64 {
        let mut values: Vec<f64> = self.pairs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let n = values.len();
        if n % 2 == 1 { values[n / 2] } else { f64::midpoint(values[n / 2 - 1], values[n / 2]) }
    }

    fn lowest(&self) -> f64 {
        self.pairs.iter().map(|p| p.ratio).fold(f64::INFINITY, f64::min)
    }

    fn highest(&self) -> f64 {
        self.pairs.iter().map(|p| p.ratio).fold(0.0, f64::max)
    }
}

/// Three digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        1.0..100.0 => format!("{value:.2}"),
        _ => format!("{value:.5}"),
    }
}

//! How answers look: tables and units for people, one line of JSON for programs.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use serde_json::Value;

/// Which side of its column a cell leans on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Writes one JSON value as one line.
pub(crate) fn json(out: &mut impl Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{value}")
}

/// Writes rows under headings, columns aligned. No rows: the headings alone.
pub(crate) fn table<const N: usize>(out: &mut impl Write, columns: [(&str, Align); N], rows: &[[String; N]]) -> io::Result<()> {
    let mut widths = columns.map(|(heading, _)| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let headings = columns.map(|(heading, _)| heading.to_owned());
    for row in std::iter::once(&headings).chain(rows) {
        let mut line = String::new();
        for (i, ((cell, width), (_, align))) in row.iter().zip(widths).zip(columns).enumerate() {
            line.push_str(if i == 0 { "" } else { "  " });
            let padding = width - cell.chars().count();
            let (before, after) = if align == Align::Left { (0, padding) } else { (padding, 0) };
            line.extend(std::iter::repeat_n(' ', before).chain(cell.chars()).chain(std::iter::repeat_n(' ', after)));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// `1536` as `1.5 KiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `1234567` as `1.2M`.
pub(crate) fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..1_000_000 => format!("{:.1}k", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}M", n as f64 / 1e6),
        _ => format!("{:.1}G", n as f64 / 1e9),
    }
}

/// Nanoseconds as `850 ns`, `1.2 µs`, `25.0 ms` or `3.1 s`.
pub(crate) fn nanos(ns: f64) -> String {
    match ns {
        0.0..1e3 => format!("{ns:.0} ns"),
        1e3..1e6 => format!("{:.1} µs", ns / 1e3),
        1e6..1e9 => format!("{:.1} ms", ns / 1e6),
        1e9.. => format!("{:.1} s", ns / 1e9),
        // negative, or no number
        _ => "-".to_owned(),
    }
}

/// `0.125` as `12.5%`; whole percents without a fraction.
pub(crate) fn percent(share: f64) -> String {
    let tenths = (share * 1e3).round() / 10.0;
    if tenths.is_finite() { format!("{tenths}%") } else { "-".to_owned() }
}

/// Seconds as `3d 4h`, `5m 12s` or `7s`.
pub(crate) fn age(seconds: f64) -> String {
    let s = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    let (d, h, m) = (s / 86_400, s / 3600 % 24, s / 60 % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => format!("{m}m {}s", s % 60),
        (0, _, _) => format!("{h}h {m}m"),
        _ => format!("{d}d {h}h"),
    }
}

/// Text that a terminal only shows: a model's answer must not move the cursor, recolour or retitle it.
pub(crate) fn for_terminal(text: &str) -> Cow<'_, str> {
    let is_harmful = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(is_harmful) { Cow::Owned(text.replace(is_harmful, "")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut out = Vec::new();
        let rows = [["a".to_owned(), "1000".to_owned()], ["longer".to_owned(), "1".to_owned()]];
        table(&mut out, [("NAME", Align::Left), ("N", Align::Right)], &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME       N\na       1000\nlonger     1\n");
    }

    #[test]
    fn units_read_well() {
        assert_eq!((bytes(0), bytes(1536), bytes(3 << 30)), ("0 B".into(), "1.5 KiB".into(), "3.0 GiB".into()));
        assert_eq!((count(9999), count(1_234_567)), ("9999".into(), "1.2M".into()));
        assert_eq!((age(7.9), age(312.0), age(273_600.0)), ("7s".into(), "5m 12s".into(), "3d 4h".into()));
        assert_eq!(age(f64::NAN), "0s");
        assert_eq!(
            [0.0, 850.4, 1_250.0, 2.5e7, 3.14e9, f64::NAN].map(nanos),
            ["0 ns", "850 ns", "1.2 µs", "25.0 ms", "3.1 s", "-"]
        );
        assert_eq!([0.0, 0.125, 0.1, 0.333_33, 1.0, f64::NAN].map(percent), ["0%", "12.5%", "10%", "33.3%", "100%", "-"]);
    }

    #[test]
    fn escapes_do_not_reach_the_terminal() {
        assert_eq!(for_terminal("a\x1b[31m\tb\r\n"), "a[31m\tb\n");
        assert!(matches!(for_terminal("plain\n"), Cow::Borrowed(_)));
    }
}

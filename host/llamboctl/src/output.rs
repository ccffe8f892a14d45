//! How answers look: tables, units and colours for people, one line of JSON for programs.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use crate::args::Color;

/// Which side of its column a cell leans on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
    /// Left, and coloured by what it says: `ready`, `failed` and their like.
    State,
}

/// Work that is done sooner shows no bar.
const BAR_EVERY: Duration = Duration::from_millis(100);

/// Decides about colours, once at the start. Without a word from the user, terminals have them, unless `NO_COLOR` is set.
pub(crate) fn set_color(color: Color) {
    match color {
        Color::Auto => ColorChoice::Auto,
        Color::Always => ColorChoice::AlwaysAnsi,
        Color::Never => ColorChoice::Never,
    }
    .write_global();
}

/// Standard output, without colours where it has none.
pub(crate) fn stdout() -> AutoStream<io::StdoutLock<'static>> {
    anstream::stdout().lock()
}

/// Whether what goes to standard output may be coloured.
fn is_coloured() -> bool {
    // tests say themselves whether there are colours, wherever they are run
    !cfg!(test) && AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

/// How a state is shown; nothing for what is none.
fn style_of(state: &str) -> Style {
    let color = match state {
        "ready" | "running" | "serving" | "ok" | "live" | "finished" => AnsiColor::Green,
        "busy" | "starting" | "queued" | "shadow" | "canary" => AnsiColor::Cyan,
        "draining" | "hibernated" | "cancelled" | "expired" | "stopped" => AnsiColor::Yellow,
        "failed" | "suspended" => AnsiColor::Red,
        _ => return Style::new(),
    };
    Style::new().fg_color(Some(color.into()))
}

/// A state, in its colour where there are colours.
pub(crate) fn state(text: &str) -> String {
    if is_coloured() { painted(text, style_of(text)) } else { text.to_owned() }
}

fn painted(text: &str, style: Style) -> String {
    format!("{style}{text}{style:#}")
}

/// Writes one JSON value as one line.
pub(crate) fn json(out: &mut impl Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{value}")
}

/// Writes rows under headings, columns aligned. No rows: the headings alone. For standard output, whose colours it takes.
pub(crate) fn table<const N: usize>(out: &mut impl Write, columns: [(&str, Align); N], rows: &[[String; N]]) -> io::Result<()> {
    table_with(out, columns, rows, is_coloured())
}

fn table_with<const N: usize>(
    out: &mut impl Write,
    columns: [(&str, Align); N],
    rows: &[[String; N]],
    is_coloured: bool,
) -> io::Result<()> {
    let mut widths = columns.map(|(heading, _)| heading.width());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(in_one_line(cell).width());
        }
    }
    let headings = columns.map(|(heading, _)| heading.to_owned());
    for (n_row, row) in std::iter::once(&headings).chain(rows).enumerate() {
        let mut line = String::new();
        // spaces that nothing follows are not written
        let mut owed = 0;
        for (i, ((cell, width), (_, align))) in row.iter().zip(widths).zip(columns).enumerate() {
            let cell = in_one_line(cell);
            let padding = width - cell.width();
            let (before, after) = if align == Align::Right { (padding, 0) } else { (0, padding) };
            owed += before + if i == 0 { 0 } else { 2 };
            if !cell.is_empty() {
                line.extend(std::iter::repeat_n(' ', std::mem::take(&mut owed)));
                let style = match (n_row, align) {
                    (0, _) => Style::new().bold(),
                    (_, Align::State) => style_of(&cell),
                    _ => Style::new(),
                };
                if is_coloured && style != Style::new() { line += &painted(&cell, style) } else { line += &cell }
            }
            owed += after;
        }
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// What a name or a message may be in a table: it moves no cursor and breaks no line.
fn in_one_line(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) { Cow::Owned(text.replace(char::is_control, " ")) } else { Cow::Borrowed(text) }
}

/// A bar on standard error, where that is a terminal and a person reads.
pub(crate) fn progress(n_all: Option<u64>, what: &'static str, json: bool) -> ProgressBar {
    if json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(n_all, ProgressDrawTarget::stderr_with_hz(10));
    let known = n_all.map_or("{msg} {pos}, {elapsed} so far", |_| "{msg} [{bar:30}] {pos} of {len}, {elapsed} so far");
    let style = ProgressStyle::with_template(known);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.set_message(what);
    bar.enable_steady_tick(BAR_EVERY);
    bar
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
    fn a_wide_letter_takes_two_columns_and_an_odd_one_none() {
        let mut out = Vec::new();
        let rows = [["\u{6c34}".to_owned(), "x\u{1b}[2J\ny".to_owned()], ["ab".to_owned(), String::new()]];
        table(&mut out, [("N", Align::Left), ("M", Align::Left)], &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "N   M\n\u{6c34}  x [2J y\nab\n");
    }

    #[test]
    fn states_have_colours_and_their_columns_still_line_up() {
        let rows =
            [["failed".to_owned(), "1".to_owned()], ["ready".to_owned(), "2".to_owned()], ["odd".to_owned(), "3".to_owned()]];
        let columns = [("STATE", Align::State), ("N", Align::Right)];
        let shown = |is_coloured| {
            let mut out = Vec::new();
            table_with(&mut out, columns, &rows, is_coloured).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(false), "STATE   N\nfailed  1\nready   2\nodd     3\n");
        let coloured = shown(true);
        assert!(
            coloured.contains("\u{1b}[31mfailed\u{1b}[0m  1") && coloured.contains("\u{1b}[32mready\u{1b}[0m   2"),
            "{coloured:?}"
        );
        assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), shown(false));
    }

    proptest::proptest! {
        #[test]
        fn every_row_of_a_table_is_one_line_with_its_cells_in_their_columns(
            rows in proptest::collection::vec(["\\PC{0,8}|[\u{0}-\u{1f}]{1,3}", "[a-z]{1,9}", "[0-9]{1,6}"], 0..8),
        ) {
            let mut out = Vec::new();
            table_with(&mut out, [("A", Align::Left), ("B", Align::State), ("C", Align::Right)], &rows, false).unwrap();
            let text = String::from_utf8(out).unwrap();
            let lines: Vec<&str> = text.split_terminator('\n').collect();
            proptest::prop_assert_eq!(lines.len(), rows.len() + 1);
            // the last column leans right: every line is as wide as the first
            for line in &lines {
                proptest::prop_assert_eq!(line.width(), lines[0].width(), "{}", text);
            }
        }
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

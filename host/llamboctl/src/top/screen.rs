//! Draws the board. Knows no host and no clock but the board's.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Paragraph, Row, Sparkline, Table},
};

use super::{
    board::{Board, Page},
    feed::MAX_NODES,
};
use crate::output;

/// From this height on there is room for the picture of tokens over time.
const HEIGHT_OF_PICTURE: u16 = 18;
const PICTURE: u16 = 4;
/// Every state a node can be in, in the order in which they are told.
const STATES: [&str; 7] = ["ready", "busy", "starting", "hibernated", "draining", "stopped", "failed"];
const KEYS: &str = " q quit  n nodes  t types  m models  s/S sort  r reverse  \u{2191}\u{2193} scroll  p pause";
/// The same where there is no room.
const FEW_KEYS: &str = " q quit  tab page  s sort  p pause";

pub(super) fn draw(frame: &mut Frame<'_>, board: &mut Board) {
    let area = frame.area();
    let head = head(board);
    let n_head = u16::try_from(head.len()).unwrap_or(u16::MAX);
    let n_picture = if area.height >= HEIGHT_OF_PICTURE { PICTURE } else { 0 };
    let parts = [Constraint::Length(n_head), Constraint::Length(n_picture), Constraint::Min(0), Constraint::Length(1)];
    let [top, picture, table, keys] = Layout::vertical(parts).areas(area);
    frame.render_widget(Paragraph::new(head), top);
    if n_picture > 0 {
        draw_picture(frame, board, picture);
    }
    draw_table(frame, board, table);
    let text = if usize::from(area.width) > KEYS.chars().count() { KEYS } else { FEW_KEYS };
    frame.render_widget(Paragraph::new(text).style(Style::new().add_modifier(Modifier::REVERSED)), keys);
}

fn head(board: &Board) -> Vec<Line<'static>> {
    let (status, rates) = (&board.status, &board.rates);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let draining = if status.draining { ", draining" } else { "" };
    let age = output::age(status.uptime_seconds);
    let mut title = vec![
        Span::styled(format!("llambo {}", status.version), bold),
        Span::raw(format!("  {}  up {age}{draining}  {}", clean(&board.address), clean(&status.strategy))),
    ];
    if board.is_paused {
        title.push(Span::styled("  paused", Style::new().fg(Color::Yellow)));
    }
    let mut lines = vec![Line::from(title)];
    if let Some((why, since)) = &board.lost {
        let text =
            format!("the host is gone since {}: {}; looking for it", output::age(since.elapsed().as_secs_f64()), clean(why));
        lines.push(Line::styled(text, Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)));
    }
    let (n_nodes, _) = board.n_nodes();
    let mut nodes = vec![Span::raw(format!("nodes     {n_nodes}"))];
    for state in STATES {
        if let Some(n) = status.nodes_by_state.get(state) {
            nodes.push(Span::raw("  "));
            nodes.push(Span::styled(format!("{n} {state}"), of_state(state)));
        }
    }
    lines.push(nodes.into());
    let queue = status.queue.unwrap_or_default();
    lines.push(
        format!(
            "queue     {} in flight, {} waiting, memory {}",
            queue.in_flight,
            queue.waiting,
            output::bytes(status.resident_bytes)
        )
        .into(),
    );
    let totals = status.totals.unwrap_or_default();
    let bad = |n: f64| if n > 0.0 { Style::new().fg(Color::Red) } else { Style::new() };
    lines.push(Line::from(vec![
        Span::raw(format!("requests  {:.1}/s, ", rates.requests)),
        Span::styled(format!("{:.1}/s failed", rates.failed), bad(rates.failed)),
        Span::raw(", "),
        Span::styled(format!("{:.1}/s rejected", rates.rejected), bad(rates.rejected)),
        Span::raw(format!(
            " (in all {}, {}, {})",
            output::count(totals.finished),
            output::count(totals.failed),
            output::count(totals.rejected)
        )),
    ]));
    let ttft = board.ttft_us();
    let ttft = if ttft > 0.0 { format!(", first after {}", output::nanos(ttft * 1e3)) } else { String::new() };
    lines.push(format!("tokens    {:.0}/s out, {:.0}/s in{ttft}", rates.output_tokens, rates.input_tokens).into());
    lines
}

fn draw_picture(frame: &mut Frame<'_>, board: &Board, area: Rect) {
    let n_fit = usize::from(area.width);
    let skipped = board.history.len().saturating_sub(n_fit);
    let shown: Vec<u64> = board.history.iter().skip(skipped).copied().collect();
    frame.render_widget(Sparkline::default().data(shown).style(Style::new().fg(Color::Green)), area);
}

fn draw_table(frame: &mut Frame<'_>, board: &mut Board, area: Rect) {
    if area.height == 0 || area.width == 0 {
        return;
    }
    let rows = board.rows();
    let n_fit = usize::from(area.height.saturating_sub(1));
    board.first_row = board.first_row.min(rows.len().saturating_sub(n_fit));
    let shown: Vec<_> = rows.iter().skip(board.first_row).take(n_fit).collect();
    let (sorts, reversed) = board.sorting();
    let columns = board.page().columns();
    let headings: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(i, name)| match (i == sorts, reversed) {
            (true, false) => format!("{name}\u{25bc}"),
            (true, true) => format!("{name}\u{25b2}"),
            _ => (*name).to_owned(),
        })
        .collect();
    let width_of = |i: usize| {
        let widest = shown.iter().map(|row| row[i].text().chars().count()).max().unwrap_or(0);
        widest.max(headings[i].chars().count())
    };
    let widths: Vec<usize> = (0..columns.len()).map(width_of).collect();
    let (spacing, n_columns) = fitting(&widths, usize::from(area.width));
    let widths = widths[..n_columns].iter().map(|width| Constraint::Length(u16::try_from(*width).unwrap_or(u16::MAX)));
    let state = columns.iter().position(|name| *name == "STATE");
    let body = shown.iter().map(|row| {
        let cells = row.iter().take(n_columns).enumerate().map(|(i, cell)| {
            let text = clean(cell.text());
            if Some(i) == state { Span::styled(text, of_state(cell.text())) } else { Span::raw(text) }
        });
        Row::new(cells)
    });
    let heading = Row::new(headings[..n_columns].to_vec()).style(Style::new().add_modifier(Modifier::BOLD));
    frame.render_widget(Table::new(body, widths.collect::<Vec<_>>()).header(heading).column_spacing(spacing), area);
    let (n_nodes, n_known) = board.n_nodes();
    if board.page() != Page::Models && n_nodes > MAX_NODES && area.height > 2 {
        let note = format!("of {n_nodes} nodes, the first {n_known} by id are looked at");
        let last = Rect { y: area.bottom() - 1, height: 1, ..area };
        frame.render_widget(Paragraph::new(format!("{note:<width$}", width = usize::from(area.width))), last);
    }
}

/// The space between columns, and how many of them are shown whole: half a number is worse than none.
fn fitting(widths: &[usize], width: usize) -> (u16, usize) {
    let needed = |n: usize, spacing: usize| widths[..n].iter().sum::<usize>() + spacing * n.saturating_sub(1);
    if needed(widths.len(), 2) <= width {
        return (2, widths.len());
    }
    let n_fit = (1..=widths.len()).rev().find(|n| needed(*n, 1) <= width);
    (1, n_fit.unwrap_or(1).min(widths.len()))
}

fn of_state(state: &str) -> Style {
    match state {
        "ready" => Style::new().fg(Color::Green),
        "busy" | "starting" => Style::new().fg(Color::Cyan),
        "failed" => Style::new().fg(Color::Red),
        _ => Style::new().fg(Color::Yellow),
    }
}

/// Names of a host move no cursor.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use llambo_client::{Node, StatusResponse};
    use proptest::prelude::*;
    use ratatui::{Terminal, backend::TestBackend};

    use super::{super::feed::News, *};

    fn board(n_nodes: u32) -> Board {
        let status = StatusResponse {
            version: "0.1.0".into(),
            strategy: "least-loaded".into(),
            uptime_seconds: 312.0,
            nodes_by_state: [("ready".into(), n_nodes), ("busy".into(), 1)].into(),
            nodes_by_type: [("tiny".into(), n_nodes)].into(),
            ..StatusResponse::default()
        };
        let mut board = Board::new("http://127.0.0.1:7400".into(), status);
        let node = |i: u32| Node {
            id: format!("tiny-{i}"),
            r#type: "tiny".into(),
            state: "ready".into(),
            capacity: 4,
            in_flight: u32::from(i == 3),
            served: 100 - u64::from(i.min(100)),
            memory_bytes: 65_536,
            ..Node::default()
        };
        board.hear(News::Nodes((0..n_nodes.min(50)).map(node).collect()));
        board
    }

    fn drawn(board: &mut Board, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, board)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    #[test]
    fn a_usual_terminal_shows_everything() {
        let lines = drawn(&mut board(50), 80, 24);
        let expected = [
            "llambo 0.1.0  http://127.0.0.1:7400  up 5m 12s  least-loaded",
            "nodes     51  50 ready  1 busy",
            "queue     0 in flight, 0 waiting, memory 0 B",
            "requests  0.0/s, 0.0/s failed, 0.0/s rejected (in all 0, 0, 0)",
            "tokens    0/s out, 0/s in",
        ];
        assert_eq!(lines[..5], expected);
        assert_eq!(lines[9], "ID       TYPE  STATE  LOAD\u{25bc}  SERVED  TTFT  TIME  FAILED  MEMORY    REPLACED");
        assert_eq!(lines[10], "tiny-3   tiny  ready  1/4    97      -     -     0%      64.0 KiB  0");
        assert_eq!(lines[11], "tiny-0   tiny  ready  0/4    100     -     -     0%      64.0 KiB  0");
        assert!(lines[23].starts_with(" q quit  n nodes"), "{lines:?}");
    }

    #[test]
    fn scrolling_ends_at_the_last_row() {
        let mut board = board(50);
        board.scroll(isize::MAX);
        let lines = drawn(&mut board, 80, 24);
        assert!(lines[22].starts_with("tiny-49 "), "{lines:?}");
        board.scroll(-1);
        assert!(drawn(&mut board, 80, 24)[22].starts_with("tiny-48 "));
    }

    #[test]
    fn a_host_that_is_gone_is_told_of() {
        let mut board = board(1);
        board.hear(News::Lost("connection refused".into()));
        assert_eq!(drawn(&mut board, 80, 24)[1], "the host is gone since 0s: connection refused; looking for it");
    }

    #[test]
    fn more_nodes_than_are_looked_at_are_told_of() {
        let lines = drawn(&mut board(20_000), 80, 24);
        assert_eq!(lines[22], "of 20001 nodes, the first 50 by id are looked at");
    }

    proptest! {
        #[test]
        fn no_terminal_is_too_small_or_too_large(width in 1_u16..300, height in 1_u16..100, n in 0_u32..60, page in 0..3, down: bool) {
            let mut board = board(n);
            (0..page).for_each(|_| board.show(board.page().next()));
            if down {
                board.scroll(isize::MAX);
            }
            let lines = drawn(&mut board, width, height);
            prop_assert_eq!(lines.len(), usize::from(height));
        }
    }
}

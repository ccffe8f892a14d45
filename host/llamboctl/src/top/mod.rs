//! `llamboctl top`: the host on the whole screen, live.
//!
//! `feed` asks the host and begins again when it was lost; `board` is what is known and how it is sorted, without a terminal;
//! `screen` draws it. Here they meet the terminal, which is put back as it was at every end: by a key, a signal, an error, or a
//! panic (ratatui's hook).

mod board;
mod feed;
mod screen;

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures::StreamExt;
use ratatui::DefaultTerminal;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use self::board::{Board, Page};
use crate::{
    commands::Session,
    exit::{Failure, INTERRUPTED, OK},
};

/// How long ago things were said is drawn anew this often, also when nothing is said.
const REDRAW: Duration = Duration::from_millis(500);
/// Rows that a page key goes.
const PAGE_ROWS: isize = 10;

/// Puts the terminal back when it is dropped.
struct Restored(DefaultTerminal);

/// Why it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The key for it.
    Asked,
    /// Ctrl-C or a signal.
    Interrupted,
}

pub(crate) async fn run(session: &Session, every: Duration) -> Result<u8, Failure> {
    if session.json {
        return Err(Failure::wrong_usage("`top` is for people; for programs there is `llamboctl status --watch --json`"));
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::wrong_usage("`top` needs a terminal; elsewhere there is `llamboctl status --watch`"));
    }
    // an address that is wrong, or a token, is better told in a line than on a screen
    let status = session.client.status().await?;
    let mut board = Board::new(session.client.address().to_owned(), status);

    let signals = |kind| signal(kind).map_err(|e| Failure::io("watch for signals", &e));
    let (mut term, mut hangup) = (signals(SignalKind::terminate())?, signals(SignalKind::hangup())?);
    // Ctrl-C is a key here; this is for those that others send
    let mut interrupt = signals(SignalKind::interrupt())?;
    let mut feeding = JoinSet::new();
    let mut fed = feed::start(&mut feeding, session.client.clone(), every);
    let mut keys = EventStream::new();
    let mut ticks = interval(REDRAW);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let mut terminal = Restored::new()?;
    let end = loop {
        let drawn = terminal.0.draw(|frame| screen::draw(frame, &mut board));
        drawn.map_err(|e| Failure::io("draw on the terminal", &e))?;
        tokio::select! {
            biased;
            _ = term.recv() => break End::Interrupted,
            _ = hangup.recv() => break End::Interrupted,
            _ = interrupt.recv() => break End::Interrupted,
            event = keys.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    if let Some(end) = pressed(&mut board, key) {
                        break end;
                    }
                }
                // a resize is drawn anew, as everything else that happens
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(Failure::io("read from the terminal", &e)),
                None => break End::Interrupted,
            },
            Some(news) = fed.recv() => board.hear(news),
            _ = ticks.tick() => {}
        }
    };
    drop(terminal);
    Ok(match end {
        End::Asked => OK,
        End::Interrupted => INTERRUPTED,
    })
}

fn pressed(board: &mut Board, key: KeyEvent) -> Option<End> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(End::Interrupted);
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return Some(End::Asked),
        KeyCode::Char('n' | '1') => board.show(Page::Nodes),
        KeyCode::Char('t' | '2') => board.show(Page::Types),
        KeyCode::Char('m' | '3') => board.show(Page::Models),
        KeyCode::Tab => board.show(board.page().next()),
        KeyCode::Char('s' | '>') | KeyCode::Right => board.sort_by_next(1),
        KeyCode::Char('S' | '<') | KeyCode::Left => board.sort_by_next(-1),
        KeyCode::Char('r') => board.reverse(),
        KeyCode::Char('p' | ' ') => board.pause(),
        KeyCode::Up | KeyCode::Char('k') => board.scroll(-1),
        KeyCode::Down | KeyCode::Char('j') => board.scroll(1),
        KeyCode::PageUp => board.scroll(-PAGE_ROWS),
        KeyCode::PageDown => board.scroll(PAGE_ROWS),
        KeyCode::Home | KeyCode::Char('g') => board.scroll(isize::MIN),
        KeyCode::End | KeyCode::Char('G') => board.scroll(isize::MAX),
        _ => {}
    }
    None
}

// === impl Restored ===

impl Restored {
    fn new() -> Result<Self, Failure> {
        ratatui::try_init().map(Self).map_err(|e| {
            // it may have come half of the way
            ratatui::restore();
            Failure::io("use the whole terminal", &e)
        })
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_it_or_change_what_is_seen() {
        let mut board = Board::new("http://h".into(), llambo_client::StatusResponse::default());
        let key = |code| KeyEvent::new(code, KeyModifiers::NONE);
        assert_eq!(pressed(&mut board, key(KeyCode::Char('q'))), Some(End::Asked));
        assert_eq!(pressed(&mut board, KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Some(End::Interrupted));
        assert_eq!(pressed(&mut board, KeyEvent::new(KeyCode::Char('q'), KeyModifiers::CONTROL)), None);
        assert_eq!((pressed(&mut board, key(KeyCode::Tab)), board.page()), (None, Page::Types));
        assert_eq!((pressed(&mut board, key(KeyCode::Char('m'))), board.page()), (None, Page::Models));
        assert_eq!((pressed(&mut board, key(KeyCode::Tab)), board.page()), (None, Page::Nodes));
    }
}

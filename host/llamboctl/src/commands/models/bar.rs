//! How a download gets on, on standard error: one line that changes on a terminal, a line now and then elsewhere.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use llambo_download::{Event, Progress};
use tokio::time::Instant;

use crate::output;

/// Between two pictures on a terminal, and between two lines in a log.
const TERMINAL: Duration = Duration::from_millis(200);
const LOG: Duration = Duration::from_secs(15);

pub(crate) struct Bar {
    name: String,
    is_terminal: bool,
    /// Programs get one answer and no more.
    is_silent: bool,
    drawn: Option<Instant>,
    /// Characters on the present line.
    width: usize,
}

impl Bar {
    pub(crate) fn new(name: &str, is_silent: bool) -> Self {
        Self { name: name.into(), is_terminal: io::stderr().is_terminal(), is_silent, drawn: None, width: 0 }
    }

    pub(crate) fn tell(&mut self, event: Event) {
        if self.is_silent {
            return;
        }
        match event {
            Event::Progress(progress) => {
                let every = if self.is_terminal { TERMINAL } else { LOG };
                if progress.total != Some(progress.done) && self.drawn.is_some_and(|at| at.elapsed() < every) {
                    return;
                }
                if !self.is_terminal && self.drawn.is_none() {
                    // what begins has been said already
                    self.drawn = Some(Instant::now());
                    return;
                }
                self.drawn = Some(Instant::now());
                let text = line(&progress);
                if self.is_terminal { self.draw(&text) } else { self.say(&text) }
            }
            Event::Begins { url, done: 0, .. } => self.say(&format!("fetching {url}")),
            Event::Begins { url, done, .. } => self.say(&format!("going on from {} with {url}", output::bytes(done))),
            Event::Waiting => self.say("another download of the same file is under way; waiting for it"),
            Event::BeginsAnew => self.say("the file there is another one by now, or cannot be gone on with: from the beginning"),
            Event::Retries { why, wait } => self.say(&format!("{why}; trying again in {:.1} s", wait.as_secs_f64())),
            Event::Checks if self.is_terminal => self.draw("checking"),
            Event::Checks => {}
        }
    }

    /// The present line is over.
    pub(crate) fn end(&mut self) {
        if self.width > 0 {
            self.draw("");
            let _ = write!(io::stderr(), "\r");
            self.width = 0;
        }
    }

    fn draw(&mut self, text: &str) {
        let text = if text.is_empty() { String::new() } else { format!("{}: {}", self.name, output::for_terminal(text)) };
        // a line that wraps could not be drawn over
        let room = crossterm::terminal::size().map_or(80, |(columns, _)| usize::from(columns)).saturating_sub(1);
        let text: String = text.chars().take(room).collect();
        let width = text.chars().count();
        let padding = self.width.min(room).saturating_sub(width);
        // nobody can be told that standard error is gone
        let _ = write!(io::stderr(), "\r{text}{:padding$}", "");
        self.width = width;
    }

    fn say(&mut self, text: &str) {
        self.end();
        let _ = writeln!(io::stderr(), "{}: {}", self.name, output::for_terminal(text));
    }
}

fn line(progress: &Progress) -> String {
    let Progress { done, total, rate, left } = progress;
    let mut text = output::bytes(*done);
    if let Some(total) = total {
        let share = *done as f64 / (*total).max(1) as f64;
        text = format!("{text} of {} ({:.1}%)", output::bytes(*total), share * 100.0);
    }
    if let Some(rate) = rate {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive and small")]
        let rate = *rate as u64;
        text = format!("{text}, {}/s", output::bytes(rate));
    }
    match left {
        Some(left) if done < &total.unwrap_or(0) => format!("{text}, {} left", output::age(left.as_secs_f64())),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        let progress =
            Progress { done: 1 << 30, total: Some(4 << 30), rate: Some(1_048_576.0), left: Some(Duration::from_secs(3072)) };
        assert_eq!(line(&progress), "1.0 GiB of 4.0 GiB (25.0%), 1.0 MiB/s, 51m 12s left");
        assert_eq!(line(&Progress { done: 5, total: None, rate: None, left: None }), "5 B");
    }
}

//! An answer as it comes.

use std::io::{self, IsTerminal, Write};

use futures::StreamExt;
use llambo_client::{Ask, Client, Error, Event, Finished, Started};

use super::markdown::Markdown;
use crate::{exit::Failure, output, terminal};

/// What became of a question.
#[derive(Debug)]
pub(super) struct Answer {
    /// What was shown of it.
    pub(super) text: String,
    pub(super) started: Started,
    pub(super) end: End,
}

#[derive(Debug)]
pub(super) enum End {
    Finished(Finished),
    /// Ctrl-C: the host was told, and stopped.
    Stopped,
    Failed(Error),
}

/// How text is shown.
pub(super) enum Shown {
    /// To a program: as it is. With nothing at all where the whole is told at the end.
    Raw,
    Nothing,
    /// To people, without styles.
    Plain,
    Styled(Markdown),
}

/// Asks, and shows the answer while it comes.
///
/// # Errors
/// Only what standard output refuses; what the host says is in the answer.
pub(super) async fn answer(client: &Client, ask: Ask, mut shown: Shown) -> Result<Answer, Failure> {
    let mut answer = Answer { text: String::new(), started: Started::default(), end: End::Stopped };
    {
        let streaming = stream(client, ask, &mut shown, &mut answer);
        tokio::select! {
            biased;
            interrupt = tokio::signal::ctrl_c() => interrupt.map_err(|e| Failure::io("listen for Ctrl-C", &e))?,
            // what it wrote into the answer stays when it is dropped, which cancels the request on the host
            done = streaming => done?,
        }
    }
    let mut out = io::stdout();
    let rest = shown.rest();
    out.write_all(rest.as_bytes())?;
    if !rest.is_empty() || shown_something(&shown, &answer.text) {
        writeln!(out)?;
    }
    out.flush()?;
    Ok(answer)
}

/// Whether the terminal's line is begun.
fn shown_something(shown: &Shown, text: &str) -> bool {
    !matches!(shown, Shown::Nothing) && !text.is_empty() && !text.ends_with('\n')
}

async fn stream(client: &Client, ask: Ask, shown: &mut Shown, answer: &mut Answer) -> Result<(), Failure> {
    let mut events = match client.generate(ask).await {
        Ok(events) => events,
        Err(e) => {
            answer.end = End::Failed(e);
            return Ok(());
        }
    };
    let mut out = io::stdout();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Started(started)) => answer.started = started,
            Ok(Event::Piece(piece)) => {
                answer.text.push_str(&piece.text);
                let text = shown.piece(&piece.text);
                out.write_all(text.as_bytes())?;
                out.flush()?;
            }
            Ok(Event::Finished(finished)) => answer.end = End::Finished(finished),
            Err(e) => answer.end = End::Failed(e),
        }
    }
    Ok(())
}

// === impl Shown ===

impl Shown {
    /// As standard output can show it.
    pub(super) fn here() -> Self {
        match (io::stdout().is_terminal(), terminal::may_style()) {
            (false, _) => Self::Raw,
            (true, false) => Self::Plain,
            (true, true) => Self::Styled(Markdown::wide(terminal::columns())),
        }
    }

    fn piece(&mut self, text: &str) -> String {
        match self {
            Self::Raw => text.to_owned(),
            Self::Nothing => String::new(),
            Self::Plain => output::for_terminal(text).into_owned(),
            Self::Styled(markdown) => markdown.push(text),
        }
    }

    /// What was held back.
    fn rest(&mut self) -> String {
        match std::mem::replace(self, Self::Plain) {
            Self::Styled(markdown) => markdown.finish(),
            other => {
                *self = other;
                String::new()
            }
        }
    }
}

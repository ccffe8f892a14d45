use std::io;

use rustyline::{Cmd, CompletionType, Config, Helper, KeyCode, KeyEvent, Modifiers, error::ReadlineError, history::MemHistory};
use serde_json::Value;

use super::{Log, may_style};
use crate::exit::Failure;

/// Lines that can be called back by the arrow keys.
const MAX_LINES: usize = 1000;

/// Reads lines from a terminal; those that were typed before come back, also from earlier runs.
pub(crate) struct Editor<H: Helper> {
    /// None while a line is read.
    editor: Option<rustyline::Editor<H, MemHistory>>,
    log: Option<Log>,
}

/// What came from the terminal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    Line(String),
    /// Ctrl-C: what was begun is not meant.
    Interrupted,
    /// Ctrl-D, or the terminal is gone.
    End,
}

impl<H: Helper + Send + 'static> Editor<H> {
    /// An editor that completes and continues lines as `helper` says. `log` has the lines from before; one that cannot be read is as good as empty.
    pub(crate) fn new(helper: H, log: Option<Log>) -> Result<Self, Failure> {
        let config = Config::builder().completion_type(CompletionType::List).history_ignore_space(true);
        let config = config.max_history_size(MAX_LINES).and_then(|config| config.history_ignore_dups(true)).map_err(unusable)?;
        let config = config.build();
        let history = MemHistory::with_config(&config);
        let mut editor = rustyline::Editor::with_history(config, history).map_err(unusable)?;
        editor.set_helper(Some(helper));
        editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), Cmd::Newline);
        for line in log.iter().filter_map(|log| log.read().ok()).flatten() {
            if let Value::String(line) = line {
                editor.add_history_entry(line).map_err(unusable)?;
            }
        }
        Ok(Self { editor: Some(editor), log })
    }

    /// The next line, which may hold line breaks. Whatever else the runtime has to do goes on meanwhile.
    pub(crate) async fn read(&mut self, prompt: &str) -> Result<Typed, Failure> {
        let mut editor = self.editor.take().expect("it is put back after each line");
        let styled = if may_style() { format!("\x1b[1m{prompt}\x1b[0m") } else { prompt.to_owned() };
        let prompt = (prompt.to_owned(), styled);
        // typing takes as long as it takes, and the connection must be served
        let reading = tokio::task::spawn_blocking(move || (editor.readline(&prompt), editor));
        let (line, editor) = reading.await.map_err(|e| Failure::io("read from the terminal", &io::Error::other(e)))?;
        self.editor = Some(editor);
        match line {
            Ok(line) => Ok(Typed::Line(line)),
            Err(ReadlineError::Interrupted) => Ok(Typed::Interrupted),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(e) => Err(unusable(e)),
        }
    }

    /// Lets a line come back by the arrow keys, here and in later runs.
    pub(crate) fn keep(&mut self, line: &str) {
        let editor = self.editor.as_mut().expect("no line is read now");
        // those that begin with a space, or repeat the last one, are not taken
        let is_new = editor.add_history_entry(line).unwrap_or(false);
        // history is a comfort: where it cannot be written, all else still works
        if is_new
            && let Some(log) = &self.log
            && log.append(&line.into()).is_err()
        {
            self.log = None;
        }
    }

    pub(crate) fn helper(&mut self) -> &mut H {
        self.editor.as_mut().and_then(rustyline::Editor::helper_mut).expect("it has one, and no line is read now")
    }
}

fn unusable(e: ReadlineError) -> Failure {
    Failure::io("use the terminal", &io::Error::other(e))
}

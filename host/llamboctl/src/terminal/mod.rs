//! What `limbot` and `dish` share: a line editor, what was typed and said before on disk, and how a terminal is treated. Knows nothing of hosts.

mod editor;
mod hush;
mod log;

use std::{
    env,
    io::{self, IsTerminal},
};

use rustix::termios;

pub(crate) use editor::{Editor, Typed};
pub(crate) use hush::Hush;
pub(crate) use log::Log;

/// Columns of a terminal in which breaking lines between words makes them too short.
const NARROW: usize = 20;

/// Whether somebody types and looks.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Whether what goes to standard output may have colours and weights.
pub(crate) fn may_style() -> bool {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !is_set("NO_COLOR") && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Columns of the terminal that standard output is; 0 where it does not say, or is too narrow for more than a word.
pub(crate) fn columns() -> usize {
    let columns = termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
    if columns < NARROW { 0 } else { columns }
}

/// `text` as a remark beside what matters, where the terminal can show that.
pub(crate) fn aside(text: &str) -> String {
    if may_style() { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
}

use std::io;

use rustix::termios::{self, LocalModes, OptionalActions, Termios};

/// While it lives, what is typed does not show between the lines that are printed; the next prompt has it. Ctrl-C stays what it is.
#[must_use = "dropping it shows again what is typed"]
pub(crate) struct Hush(Option<Termios>);

impl Hush {
    pub(crate) fn new() -> Self {
        // without a terminal there is nothing to hush
        let Ok(before) = termios::tcgetattr(io::stdin()) else { return Self(None) };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let is_done = termios::tcsetattr(io::stdin(), OptionalActions::Now, &quiet).is_ok();
        Self(is_done.then_some(before))
    }
}

impl Drop for Hush {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // a terminal that is gone needs nothing put back
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

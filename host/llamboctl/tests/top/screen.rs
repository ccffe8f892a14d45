//! The program on a terminal that is made up, and what is to be seen on it.

use std::{
    io::{Read, Write},
    num::NonZero,
    sync::{Arc, Condvar, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

/// What nothing takes unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Screen {
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    seen: Arc<Seen>,
    reading: Option<JoinHandle<()>>,
}

struct Seen {
    terminal: Mutex<Terminal>,
    changed: Condvar,
}

struct Terminal {
    parser: vt100::Parser,
    is_over: bool,
}

/// How the program ended, and how it left its terminal.
pub(crate) struct End {
    pub(crate) code: u32,
    /// What is on the screen that was there before.
    pub(crate) left: String,
    /// It shows the screen that was there before, with its cursor.
    pub(crate) is_as_before: bool,
}

/// A terminal has some.
fn lines(n: u16) -> NonZero<u16> {
    NonZero::new(n).expect("a terminal has at least one")
}

impl Screen {
    /// Starts the program with these words.
    pub(crate) fn start(words: &[&str], rows: u16, cols: u16) -> Self {
        let pair = native_pty_system().openpty(PtySize { rows, cols, ..PtySize::default() }).expect("there is a terminal");
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_llamboctl"));
        command.args(words);
        command.env_clear();
        command.env("TERM", "xterm-256color");
        let child = pair.slave.spawn_command(command).expect("the program starts");
        drop(pair.slave);
        let mut from = pair.master.try_clone_reader().expect("it can be read");
        let keys = pair.master.take_writer().expect("it can be typed on");
        let terminal = Mutex::new(Terminal { parser: vt100::Parser::new(lines(rows), lines(cols), 0), is_over: false });
        let seen = Arc::new(Seen { terminal, changed: Condvar::new() });
        let reading = thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                let mut bytes = [0; 4096];
                loop {
                    // the end of the program is told as an error of the terminal
                    let n = from.read(&mut bytes).unwrap_or(0);
                    let mut terminal = seen.terminal.lock().expect("nobody panics with it");
                    terminal.parser.process(&bytes[..n]);
                    terminal.is_over = n == 0;
                    drop(terminal);
                    seen.changed.notify_all();
                    if n == 0 {
                        return;
                    }
                }
            }
        });
        Self { master: pair.master, keys, child, seen, reading: Some(reading) }
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).expect("it is there to be typed on");
    }

    pub(crate) fn resize(&mut self, rows: u16, cols: u16) {
        self.seen.terminal.lock().expect("nobody panics with it").parser.screen_mut().set_size(lines(rows), lines(cols));
        self.master.resize(PtySize { rows, cols, ..PtySize::default() }).expect("it can be resized");
    }

    /// Waits until the screen is so, and gives it.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        let mut terminal = self.seen.terminal.lock().expect("nobody panics with it");
        loop {
            let text = terminal.parser.screen().contents();
            if is_so(&text) {
                return text;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !terminal.is_over, "{what} was not to be seen:\n{text}");
            terminal = self.seen.changed.wait_timeout(terminal, left).expect("nobody panics with it").0;
        }
    }

    pub(crate) fn until_shows(&self, part: &str) -> String {
        self.until(part, |text| text.contains(part))
    }

    /// Whether keys come one by one and are not shown, as programs on the whole screen have them.
    pub(crate) fn is_raw(&self) -> bool {
        let modes = self.master.get_termios().expect("it is a terminal");
        // the flags' own words, without naming the crate that they are from
        !format!("{:?}", modes.local_flags).contains("ICANON")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.process_id().expect("it runs")
    }

    /// Waits until the program ended.
    pub(crate) fn end(mut self) -> End {
        let code = self.child.wait().expect("it can be waited for").exit_code();
        if let Some(reading) = self.reading.take() {
            reading.join().expect("reading ends with the program");
        }
        let terminal = self.seen.terminal.lock().expect("nobody panics with it");
        let screen = terminal.parser.screen();
        End { code, left: screen.contents(), is_as_before: !screen.alternate_screen() && !screen.hide_cursor() }
    }
}

//! From bytes of tokens to text that may be shown: whole UTF-8, and nothing that may yet turn out to be a stop string.

/// Holds back what is not certain.
#[derive(Debug)]
pub(crate) struct TextAssembler {
    stops: Vec<String>,
    /// Bytes of an unfinished character.
    bytes: Vec<u8>,
    /// Text that may be the beginning of a stop string.
    held: String,
}

/// What a token added.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// Text that may be shown; may be empty.
    Text(String),
    /// A stop string was completed; the text before it.
    Stopped(String),
}

impl TextAssembler {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, bytes: Vec::new(), held: String::new() }
    }

    /// Adds the bytes of one token.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Added {
        self.bytes.extend_from_slice(piece);
        self.take_whole_characters();
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return Added::Stopped(std::mem::take(&mut self.held));
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Added::Text(std::mem::replace(&mut self.held, rest))
    }

    /// What was held back when generation ended; an unfinished character becomes U+FFFD.
    pub(crate) fn finish(&mut self) -> String {
        self.held.push_str(&String::from_utf8_lossy(&std::mem::take(&mut self.bytes)));
        std::mem::take(&mut self.held)
    }

    fn take_whole_characters(&mut self) {
        let mut start = 0;
        loop {
            match std::str::from_utf8(&self.bytes[start..]) {
                Ok(text) => {
                    self.held.push_str(text);
                    self.bytes.clear();
                    return;
                }
                Err(error) => {
                    let valid = start + error.valid_up_to();
                    self.held.push_str(&String::from_utf8_lossy(&self.bytes[start..valid]));
                    let Some(n) = error.error_len() else {
                        self.bytes.drain(..valid);
                        return;
                    };
                    self.held.push(char::REPLACEMENT_CHARACTER);
                    start = valid + n;
                }
            }
        }
    }
}

/// Bytes at the end of `text` that begin `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|&n| text.as_bytes()[text.len() - n..] == stop.as_bytes()[..n]).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `text` in pieces of `n` bytes and returns all that was shown, and whether a stop ended it.
    fn run(text: &[u8], n: usize, stops: &[&str]) -> (String, bool) {
        let mut assembler = TextAssembler::new(stops.iter().map(ToString::to_string).collect());
        let mut shown = String::new();
        for piece in text.chunks(n) {
            match assembler.push(piece) {
                Added::Text(text) => shown.push_str(&text),
                Added::Stopped(text) => return (shown + &text, true),
            }
        }
        (shown + &assembler.finish(), false)
    }

    #[test]
    fn characters_are_held_back_until_whole() {
        let mut assembler = TextAssembler::new(Vec::new());
        let crab = "🦀".as_bytes();
        assert_eq!(assembler.push(&crab[..2]), Added::Text(String::new()));
        assert_eq!(assembler.push(&crab[2..]), Added::Text("🦀".into()));
    }

    #[test]
    fn a_stop_string_across_pieces_never_shows() {
        for n in 1..8 {
            assert_eq!(run("one\nUser: two".as_bytes(), n, &["\nUser:", "never"]), ("one".into(), true));
        }
    }

    #[test]
    fn what_only_began_a_stop_string_is_shown_at_the_end() {
        assert_eq!(run(b"one\nUs", 1, &["\nUser:"]), ("one\nUs".into(), false));
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        assert_eq!(run(&[b'a', 0xff, b'b', 0xe2, 0x82], 1, &[]).0, "a\u{fffd}b\u{fffd}");
    }

    proptest! {
        #[test]
        fn pieces_add_up_to_the_text_before_the_first_stop(text in "[ab🦀é ]{0,40}", n in 1usize..6, stop in "[ab🦀]{1,4}") {
            let (shown, stopped) = run(text.as_bytes(), n, &[&stop]);
            prop_assert_eq!(stopped, text.contains(&stop));
            prop_assert_eq!(shown, text.split(&stop).next().unwrap_or(""));
        }
    }
}

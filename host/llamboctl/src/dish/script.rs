//! From lines to statements: quotes as in sh, comments, and lines that go on.

/// A command with its words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// The line it begins on, from 1.
    pub(super) line: usize,
    pub(super) words: Vec<String>,
}

/// Takes lines, and gives statements as they are whole.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The beginning of a statement that is not whole.
    begun: String,
    first: usize,
    n_lines: usize,
}

/// A quote that is not closed, and the line of the statement that it is in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unclosed {
    pub(super) line: usize,
}

impl Reader {
    /// Takes one line, without its end. None for one that says nothing yet, and for one that says nothing at all.
    pub(super) fn push(&mut self, line: &str) -> Option<Statement> {
        self.n_lines += 1;
        if self.begun.is_empty() {
            self.first = self.n_lines;
        } else {
            self.begun.push('\n');
        }
        self.begun.push_str(line.strip_suffix('\r').unwrap_or(line));
        if goes_on(&self.begun) { None } else { self.take().ok().flatten() }
    }

    /// What is left when no line follows.
    pub(super) fn end(mut self) -> Result<Option<Statement>, Unclosed> {
        self.take()
    }

    fn take(&mut self) -> Result<Option<Statement>, Unclosed> {
        let line = self.first;
        let words = shell_words::split(&std::mem::take(&mut self.begun)).map_err(|_| Unclosed { line })?;
        Ok((!words.is_empty()).then_some(Statement { line, words }))
    }
}

/// Whether text is not whole yet: a quote is open, or a backslash stands at its end.
pub(super) fn goes_on(text: &str) -> bool {
    let backslashes = text.len() - text.trim_end_matches('\\').len();
    match shell_words::split(text) {
        Err(_) => true,
        // within a comment it says nothing, and neither would a letter behind it
        Ok(words) => backslashes % 2 == 1 && shell_words::split(&format!("{text}x")).is_ok_and(|longer| longer != words),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn statements(text: &str) -> Vec<(usize, String)> {
        let mut reader = Reader::default();
        let mut found: Vec<_> = text.lines().filter_map(|line| reader.push(line)).collect();
        found.extend(reader.end().unwrap());
        found.into_iter().map(|statement| (statement.line, statement.words.join("|"))).collect()
    }

    #[test]
    fn a_script_is_read_as_sh_would_read_it() {
        let script = "\
#!/usr/bin/env -S llamboctl dish
# a comment, that isn't closed \\
status

spawn --type tiny \\
    --count 5   # five of them
infer 'two
lines' \"and \\\"quotes\\\"\"
echo a#b\\ c\r
echo end\\";
        let expected = [
            (3, "status"),
            (5, "spawn|--type|tiny|--count|5"),
            (7, "infer|two\nlines|and \"quotes\""),
            (9, "echo|a#b c"),
            (10, "echo|end\\"),
        ];
        assert_eq!(statements(script), expected.map(|(line, words)| (line, words.to_owned())));
    }

    #[test]
    fn a_quote_that_stays_open_is_told_with_its_line() {
        let mut reader = Reader::default();
        assert_eq!(reader.push("status").map(|statement| statement.line), Some(1));
        assert_eq!((reader.push("infer 'What"), reader.push("status")), (None, None));
        assert_eq!(reader.end(), Err(Unclosed { line: 2 }));
    }

    proptest! {
        #[test]
        fn every_command_survives_being_written_and_read(words in prop::collection::vec("[a-c '\"\\\\#\n$é]{0,8}", 1..6), before in 0_usize..4) {
            let script = "\n".repeat(before) + &shell_words::join(&words);
            let mut reader = Reader::default();
            let mut found: Vec<_> = script.split('\n').filter_map(|line| reader.push(line)).collect();
            found.extend(reader.end().unwrap());
            prop_assert_eq!(found, [Statement { line: before + 1, words }]);
        }

        #[test]
        fn nothing_makes_it_panic(lines in prop::collection::vec("\\PC{0,20}", 0..10)) {
            let mut reader = Reader::default();
            for line in &lines {
                reader.push(line);
            }
            let _ = reader.end();
        }
    }
}

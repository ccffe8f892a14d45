//! Styled text, in lines that end between words.

use unicode_width::UnicodeWidthChar;

use super::Style;

/// What goes to a terminal. Text that flows is told word by word: where a word ends decides on which line it stands.
#[derive(Debug, Default)]
pub(super) struct Out {
    text: String,
    /// What the terminal was told last.
    style: Style,
    /// Columns of the terminal; with 0 lines are as long as they are.
    columns: usize,
    /// Of the present line, columns that are taken.
    taken: usize,
    /// Where lines begin that this one goes on in.
    indent: usize,
    /// A space before the word, and the word, which may go on.
    gap: Option<Style>,
    word: Vec<(Style, char)>,
}

impl Out {
    pub(super) fn wide(columns: usize) -> Self {
        Self { columns, ..Self::default() }
    }

    /// What can be shown now.
    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// Text that stands as it is.
    pub(super) fn put(&mut self, style: Style, text: &str) {
        self.end_word();
        if text == "\n" {
            (self.taken, self.indent, self.gap) = (0, 0, None);
        } else if let Some(style) = self.gap.take() {
            self.write(style, ' ');
        }
        self.become_style(style);
        self.text.push_str(text);
        self.taken += text.chars().map(width).sum::<usize>();
    }

    /// Text that may go on in the next line.
    pub(super) fn flow(&mut self, style: Style, text: &str) {
        for c in text.chars() {
            match c {
                c if self.columns == 0 => self.write(style, c),
                ' ' => {
                    self.end_word();
                    if let Some(before) = self.gap.replace(style) {
                        self.write(before, ' ');
                    }
                }
                c => self.word.push((style, c)),
            }
        }
    }

    /// Lines that this one goes on in begin here.
    pub(super) fn indent(&mut self) {
        self.indent = self.taken;
    }

    fn end_word(&mut self) {
        let word = std::mem::take(&mut self.word);
        if word.is_empty() {
            return;
        }
        let columns: usize = word.iter().map(|(_, c)| width(*c)).sum();
        let gap = self.gap.take();
        if self.taken + usize::from(gap.is_some()) + columns > self.columns && self.taken > self.indent {
            self.become_style(Style::PLAIN);
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(' ', self.indent));
            self.taken = self.indent;
        } else if let Some(style) = gap {
            self.write(style, ' ');
        }
        for (style, c) in word {
            self.write(style, c);
        }
        // one that is longer than a line goes on where the terminal breaks it
        if self.taken > self.columns {
            self.taken %= self.columns;
        }
    }

    fn write(&mut self, style: Style, c: char) {
        self.become_style(style);
        self.text.push(c);
        self.taken += width(c);
    }

    fn become_style(&mut self, style: Style) {
        if style == self.style {
            return;
        }
        let Style { is_bold, is_italic, is_underlined, is_code, is_dim } = style;
        let codes = [(is_bold, "1"), (is_dim, "2"), (is_italic, "3"), (is_underlined, "4"), (is_code, "36")];
        self.text.push_str("\x1b[0");
        for (_, code) in codes.iter().filter(|(is_on, _)| *is_on) {
            self.text.push(';');
            self.text.push_str(code);
        }
        self.text.push('m');
        self.style = style;
    }
}

/// Columns of a character. Tabs are few in text that flows.
fn width(c: char) -> usize {
    if c == '\t' { 4 } else { c.width().unwrap_or(0) }
}

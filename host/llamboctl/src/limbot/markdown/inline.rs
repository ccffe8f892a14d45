//! Markup within a line: emphasis and code.

use super::{MAX_HELD, Out, Style};

/// Shows the text of a line.
#[derive(Debug)]
pub(super) struct Inline {
    style: Style,
    /// The character before, if the line has one.
    before: Option<char>,
}

/// What a piece of text begins with.
enum Part {
    /// More has to be known.
    Open,
    /// So many bytes that stand for themselves.
    Plain(usize),
    /// A backslash and a character that stands for itself.
    Escaped(char),
    /// Something between two runs of so many marks, and its bytes.
    Code {
        marks: usize,
        inside: usize,
    },
    Emphasis {
        marks: usize,
        inside: usize,
    },
}

impl Inline {
    pub(super) fn new(style: Style) -> Self {
        Self { style, before: None }
    }

    /// Shows what is decided of `text`, and says how many bytes that was. At the end of the line all is.
    pub(super) fn show(&mut self, text: &str, is_end: bool, out: &mut Out) -> usize {
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            at += match part(rest, self.before, is_end) {
                Part::Open => return at,
                Part::Plain(bytes) => {
                    self.put(&rest[..bytes], out);
                    bytes
                }
                Part::Escaped(c) => {
                    self.put(c.encode_utf8(&mut [0; 4]), out);
                    1 + c.len_utf8()
                }
                Part::Code { marks, inside } => {
                    let code = &rest[marks..marks + inside];
                    // one space on both sides is for code that begins or ends with a mark
                    let trimmed = code.strip_prefix(' ').and_then(|code| code.strip_suffix(' '));
                    let code = trimmed.filter(|code| !code.trim().is_empty()).unwrap_or(code);
                    out.flow(Style { is_code: true, ..self.style }, code);
                    self.before = Some('`');
                    2 * marks + inside
                }
                Part::Emphasis { marks, inside } => {
                    let mut style = self.style;
                    style.is_italic |= marks != 2;
                    style.is_bold |= marks >= 2;
                    Self { style, before: None }.show(&rest[marks..marks + inside], true, out);
                    self.before = rest[marks + inside..].chars().next();
                    2 * marks + inside
                }
            };
        }
        at
    }

    fn put(&mut self, text: &str, out: &mut Out) {
        out.flow(self.style, text);
        self.before = text.chars().next_back();
    }
}

fn part(text: &str, before: Option<char>, is_end: bool) -> Part {
    let Some(first) = text.chars().next() else { return Part::Open };
    match first {
        '\\' => match text[1..].chars().next() {
            None if !is_end => Part::Open,
            Some(c) if c.is_ascii_punctuation() => Part::Escaped(c),
            _ => Part::Plain(1),
        },
        '`' | '*' | '_' => marked(text, first, before, is_end),
        first => Part::Plain(first.len_utf8()),
    }
}

/// What begins with a run of marks.
fn marked(text: &str, mark: char, before: Option<char>, is_end: bool) -> Part {
    let marks = run(text, mark);
    let Some(next) = text[marks..].chars().next() else {
        return if is_end || text.len() >= MAX_HELD { Part::Plain(marks) } else { Part::Open };
    };
    let opens = match mark {
        '`' => true,
        mark => marks <= 3 && opens(mark, before, next),
    };
    if !opens {
        return Part::Plain(marks);
    }
    let inside =
        if mark == '`' { closing_code(&text[marks..], marks, is_end) } else { closing(&text[marks..], mark, marks, is_end) };
    match inside {
        Some(inside) if mark == '`' => Part::Code { marks, inside },
        Some(inside) => Part::Emphasis { marks, inside },
        None if is_end || text.len() >= MAX_HELD => Part::Plain(marks),
        None => Part::Open,
    }
}

/// How many of `mark` the text begins with. Marks have one byte.
fn run(text: &str, mark: char) -> usize {
    text.len() - text.trim_start_matches(mark).len()
}

/// Whether marks between these two open emphasis: what `CommonMark` calls a left-flanking run.
fn opens(mark: char, before: Option<char>, next: char) -> bool {
    let is_outside = before.is_none_or(|c| c.is_whitespace() || is_punctuation(c));
    !next.is_whitespace() && (is_outside || (mark == '*' && !is_punctuation(next)))
}

fn is_punctuation(c: char) -> bool {
    !c.is_alphanumeric() && !c.is_whitespace()
}

/// Where the run of marks begins that ends code.
fn closing_code(text: &str, marks: usize, is_end: bool) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = text[at..].find('`') {
        at += found;
        let length = run(&text[at..], '`');
        let is_whole = is_end || at + length < text.len();
        if length == marks && is_whole {
            return Some(at);
        }
        at += length;
    }
    None
}

/// Where the run of marks begins that ends emphasis. Code and escaped characters are passed over.
fn closing(text: &str, mark: char, marks: usize, is_end: bool) -> Option<usize> {
    let mut at = 0;
    let mut before = None;
    while let Some(c) = text[at..].chars().next() {
        let mut bytes = c.len_utf8();
        if c == '\\' {
            bytes += text[at + 1..].chars().next().map_or(0, char::len_utf8);
        } else if c == '`' {
            bytes = run(&text[at..], '`');
            if let Some(inside) = closing_code(&text[at + bytes..], bytes, is_end) {
                bytes = 2 * bytes + inside;
            }
        } else if c == mark {
            bytes = run(&text[at..], mark);
            let next = text[at + bytes..].chars().next();
            let is_whole = is_end || next.is_some();
            let is_right = before.is_some_and(|c: char| !c.is_whitespace());
            let is_outside = mark == '*' || next.is_none_or(|c| !c.is_alphanumeric());
            if bytes == marks && is_whole && is_right && is_outside {
                return Some(at);
            }
        }
        before = text[at..at + bytes].chars().next_back();
        at += bytes;
    }
    None
}

//! Markdown for a terminal, while it comes.
//!
//! Text is shown as soon as nothing that may follow can change how it looks. What is held back is short: the beginning of a line that may become a heading, a list
//! or a fence, and from an opening `*` or `` ` `` to where it closes, at most [`MAX_HELD`] bytes and never beyond the line. Markup that never closes is shown as it
//! stands: no character is lost. Characters are taken one by one, so that the result does not depend on how the text was cut.

mod inline;
mod out;

use self::{inline::Inline, out::Out};

/// Bytes that are held back at most for markup that is not closed yet; about three lines.
const MAX_HELD: usize = 240;
const RULE: &str = "────────────────────";
const DIM: Style = Style { is_dim: true, ..Style::PLAIN };
const CODE: Style = Style { is_code: true, ..Style::PLAIN };

/// How characters look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a property of its own")]
struct Style {
    is_bold: bool,
    is_italic: bool,
    is_underlined: bool,
    is_code: bool,
    is_dim: bool,
}

/// Turns Markdown into text with a terminal's colours and weights.
#[derive(Debug, Default)]
pub(super) struct Markdown {
    /// Of the present line, what is not shown yet.
    held: String,
    place: Place,
    fence: Option<Fence>,
    /// What is shown and not taken yet.
    out: Out,
}

/// Where in its line the next character stands.
#[derive(Debug, Default)]
enum Place {
    /// Before what kind of line it is has been decided.
    #[default]
    Start,
    /// Like `Start`, within a quotation.
    Quoted,
    /// Within text that may have markup.
    Text(Inline),
    /// Within text that has none.
    Verbatim(Style),
}

/// An open block of code.
#[derive(Clone, Copy, Debug)]
struct Fence {
    mark: char,
    length: usize,
}

/// What the beginning of a line makes of it.
enum Line {
    /// More has to be known.
    Open,
    Text(Style),
    /// Bytes that give way to a mark.
    Item(usize),
    Quote(usize),
    Heading(usize),
    Rule,
    Fence(Fence),
    FenceEnd,
    Code,
}

// === impl Markdown ===

impl Markdown {
    /// For a terminal so many columns wide: lines end between words.
    pub(super) fn wide(columns: usize) -> Self {
        Self { out: Out::wide(columns), ..Self::default() }
    }

    /// Takes more text, and gives what can be shown.
    pub(super) fn push(&mut self, text: &str) -> String {
        for c in text.chars() {
            match c {
                '\n' => self.end_line(),
                // it must not move the cursor, recolour or retitle the terminal
                c if c.is_control() && c != '\t' => {}
                c => self.take(c),
            }
        }
        self.out.take()
    }

    /// The rest, at the end of the text. The terminal looks then as before.
    pub(super) fn finish(mut self) -> String {
        self.resolve(true);
        self.out.put(Style::PLAIN, "");
        self.out.take()
    }

    fn take(&mut self, c: char) {
        if let Place::Verbatim(style) = self.place {
            self.out.put(style, c.encode_utf8(&mut [0; 4]));
        } else {
            self.held.push(c);
            self.resolve(false);
        }
    }

    fn end_line(&mut self) {
        self.resolve(true);
        self.out.put(Style::PLAIN, "\n");
        self.place = Place::Start;
    }

    /// Shows what is decided of the line. At its end all is.
    fn resolve(&mut self, is_end: bool) {
        while matches!(self.place, Place::Start | Place::Quoted) {
            let line = match self.fence {
                Some(fence) => fence.line(&self.held, is_end),
                None => line(&self.held, is_end),
            };
            let is_quoted = matches!(self.place, Place::Quoted);
            let base = Style { is_italic: is_quoted, ..Style::PLAIN };
            match line {
                Line::Open => return,
                Line::Text(style) => self.place = Place::Text(Inline::new(base.and(style))),
                Line::Heading(marks) => {
                    let style = Style { is_bold: true, is_underlined: marks == 1, ..base };
                    self.held.drain(..=marks);
                    self.place = Place::Text(Inline::new(style));
                }
                Line::Item(indent) => {
                    self.out.put(base, &" ".repeat(indent));
                    self.out.put(base, "• ");
                    self.out.indent();
                    self.held.drain(..indent + 2);
                    self.place = Place::Text(Inline::new(base));
                }
                Line::Quote(bytes) => {
                    self.out.put(DIM, "│ ");
                    self.out.indent();
                    self.held.drain(..bytes);
                    self.place = Place::Quoted;
                    if self.held.is_empty() {
                        return;
                    }
                }
                Line::Rule => {
                    self.held.clear();
                    self.out.put(DIM, RULE);
                    return;
                }
                Line::Fence(fence) => {
                    self.fence = Some(fence);
                    self.show_held(DIM);
                }
                Line::FenceEnd => {
                    self.fence = None;
                    self.show_held(DIM);
                }
                Line::Code => self.show_held(CODE),
            }
        }
        if let Place::Text(inline) = &mut self.place {
            let shown = inline.show(&self.held, is_end, &mut self.out);
            self.held.drain(..shown);
        }
    }

    /// All of the line looks the same, what is still to come too.
    fn show_held(&mut self, style: Style) {
        self.out.put(style, &std::mem::take(&mut self.held));
        self.place = Place::Verbatim(style);
    }
}

/// What a line outside of code is.
fn line(text: &str, is_end: bool) -> Line {
    let rest = text.trim_start_matches([' ', '\t']);
    let indent = text.len() - rest.len();
    let open_or = |line: Line| if is_end { line } else { Line::Open };
    let plain = Line::Text(Style::PLAIN);
    let Some(first) = rest.chars().next() else { return open_or(plain) };
    let after = rest.trim_start_matches(first);
    let marks = (rest.len() - after.len()) / first.len_utf8();
    match first {
        '#' if indent < 4 && marks <= 6 => match after.chars().next() {
            None => open_or(plain),
            Some(' ') if indent == 0 => Line::Heading(marks),
            Some(_) => plain,
        },
        '`' | '~' if after.is_empty() => match is_end {
            true if marks >= 3 => Line::Fence(Fence { mark: first, length: marks }),
            true => plain,
            false => Line::Open,
        },
        // what follows the marks is the name of a language, and has no marks itself
        '`' | '~' if marks >= 3 && !(first == '`' && after.contains('`')) => {
            if is_end || text.len() < MAX_HELD {
                open_or(Line::Fence(Fence { mark: first, length: marks }))
            } else {
                plain
            }
        }
        '>' => match rest[1..].chars().next() {
            None if is_end => Line::Quote(indent + 1),
            None => Line::Open,
            Some(' ') => Line::Quote(indent + 2),
            Some(_) => Line::Quote(indent + 1),
        },
        '-' | '*' | '+' | '_' => match rest[1..].chars().next() {
            // a rule has nothing but marks and spaces
            _ if first != '+' && rest.chars().all(|c| c == first || c == ' ') && text.len() < MAX_HELD => match is_end {
                true if rest.matches(first).count() >= 3 => Line::Rule,
                true if first != '_' && rest[1..].starts_with(' ') => Line::Item(indent),
                true => plain,
                false => Line::Open,
            },
            None => open_or(plain),
            Some(' ') if first != '_' => Line::Item(indent),
            Some(_) => plain,
        },
        _ => plain,
    }
}

// === impl Fence ===

impl Fence {
    /// What a line within code is.
    fn line(self, text: &str, is_end: bool) -> Line {
        let rest = text.trim_start_matches(' ');
        let after = rest.trim_start_matches(self.mark);
        let marks = (rest.len() - after.len()) / self.mark.len_utf8();
        let is_only_marks = text.len() - rest.len() < 4 && after.chars().all(|c| c == ' ') && text.len() < MAX_HELD;
        match is_end {
            true if is_only_marks && marks >= self.length => Line::FenceEnd,
            false if is_only_marks && (after.is_empty() || marks >= self.length) => Line::Open,
            _ => Line::Code,
        }
    }
}

// === impl Style ===

impl Style {
    const PLAIN: Self = Self { is_bold: false, is_italic: false, is_underlined: false, is_code: false, is_dim: false };

    /// Both together.
    fn and(self, other: Self) -> Self {
        Self {
            is_bold: self.is_bold || other.is_bold,
            is_italic: self.is_italic || other.is_italic,
            is_underlined: self.is_underlined || other.is_underlined,
            is_code: self.is_code || other.is_code,
            is_dim: self.is_dim || other.is_dim,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        let mut markdown = Markdown::default();
        let mut out = markdown.push(text);
        out.push_str(&markdown.finish());
        out
    }

    /// With names in the place of codes, to be read by people.
    fn named(text: &str) -> String {
        let names = [
            ("0", ""),
            ("0;1", "b"),
            ("0;1;4", "h1"),
            ("0;3", "i"),
            ("0;1;3", "bi"),
            ("0;36", "c"),
            ("0;2", "dim"),
            ("0;1;36", "bc"),
        ];
        names.iter().fold(shown(text), |out, (code, name)| out.replace(&format!("\x1b[{code}m"), &format!("<{name}>")))
    }

    #[test]
    fn text_has_its_weights() {
        for (text, expected) in [
            ("plain text", "plain text"),
            ("a **bold** word", "a <b>bold<> word"),
            ("an *italic*, an _italic_ word", "an <i>italic<>, an <i>italic<> word"),
            ("***both***", "<bi>both<>"),
            ("**bold with `code` in it**", "<b>bold with <bc>code<b> in it<>"),
            ("`a * b` and ``x ` y``", "<c>a * b<> and <c>x ` y<>"),
            ("# One\n## Two\nthree", "<h1>One<>\n<b>Two<>\nthree"),
            ("- a\n  * b\n1. c", "• a\n  • b\n1. c"),
            ("> said *so*\nnot", "<dim>│ <i>said so<>\nnot"),
            ("a\n\n---\nb", "a\n\n<dim>────────────────────<>\nb"),
            ("```rust\nlet **x** = 1;\n```\nend", "<dim>```rust<>\n<c>let **x** = 1;<>\n<dim>```<>\nend"),
        ] {
            assert_eq!(named(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_markup_stays() {
        for text in [
            "2 * 3 * 4", "a ** b", "snake_case_name and __init", "*never closed", "**never closed", "`never closed", "#hashtag",
            "#!", "-1", "--flag", "a*", "\t- ", "C:\\dir", "x\\", "1.5", "|a|b|", "*", "**", "``", "* *", "***a** b*",
            "a\n*\nb*",
        ] {
            let plain = if text == "\t- " || text == "* *" { continue } else { shown(text) };
            assert_eq!(plain, text);
        }
        assert_eq!(shown(r"\*a\* \_b"), "*a* _b");
        assert_eq!(
            shown("```not a fence``` x"),
            named("```not a fence``` x").replace("<c>", "\x1b[0;36m").replace("<>", "\x1b[0m")
        );
    }

    #[test]
    fn a_long_stretch_that_never_closes_is_not_held_back() {
        let mut markdown = Markdown::default();
        let out = markdown.push(&format!("**{}", "word ".repeat(100)));
        assert!(out.starts_with("**word word"), "{out}");
        let mut markdown = Markdown::default();
        assert_eq!(markdown.push("Ownership is a"), "Ownership is a");
        assert_eq!(markdown.push(" **se"), " ");
        assert_eq!(markdown.push("t**"), "");
        assert_eq!(markdown.push(" of"), "\x1b[0;1mset\x1b[0m of");
    }

    #[test]
    fn lines_end_between_words() {
        let wrapped = |text: &str| {
            let mut markdown = Markdown::wide(12);
            let mut out: String = text.chars().map(|c| markdown.push(c.encode_utf8(&mut [0; 4]))).collect();
            out.push_str(&markdown.finish());
            out
        };
        for (text, expected) in [
            ("Ownership is a set of rules", "Ownership is\na set of\nrules"),
            ("exactly ten.", "exactly ten."),
            ("one two three\nfour", "one two\nthree\nfour"),
            ("- one two three\n- four", "• one two\n  three\n• four"),
            ("a-word-that-is-too-long for it", "a-word-that-is-too-long\nfor it"),
            ("a  b", "a  b"),
            ("grün größer süß", "grün größer\nsüß"),
        ] {
            assert_eq!(wrapped(text), expected, "{text:?}");
        }
        assert_eq!(wrapped("words **bold words** on"), "words \x1b[0;1mbold\x1b[0m\n\x1b[0;1mwords\x1b[0m on");
        let code = "```\nlet a = something(long, longer);\n```";
        assert_eq!(wrapped(code), shown(code), "code stays as it is");
    }

    #[test]
    fn the_terminal_is_not_commanded() {
        assert_eq!(shown("a\x1b[31mb\r\n\x07c"), "a[31mb\nc");
        assert!(shown("**a").ends_with("**a") && shown("```\na").ends_with("\x1b[0m"));
    }

    proptest! {
        #[test]
        fn it_looks_the_same_however_it_was_cut(
            pieces in prop::collection::vec("[ab1 *_`#>~\n\\\\|é.-]{0,7}", 0..30),
        ) {
            let whole = shown(&pieces.concat());
            let mut markdown = Markdown::default();
            let mut cut: String = pieces.iter().map(|piece| markdown.push(piece)).collect();
            cut.push_str(&markdown.finish());
            prop_assert_eq!(cut, whole);
        }

        #[test]
        fn no_word_is_lost(text in "[abc1 *_`#>~\n\\\\|é.-]{0,120}") {
            let mut wide = Markdown::wide(9);
            let wrapped = wide.push(&text) + &wide.finish();
            let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic() || *c == '.').collect::<String>();
            let bare = |mut out: String| {
                while let Some(at) = out.find("\x1b[") {
                    let end = out[at..].find('m').expect("codes end") + at;
                    out.replace_range(at..=end, "");
                }
                out
            };
            let out = bare(shown(&text));
            prop_assert_eq!(letters(&out), letters(&text));
            prop_assert_eq!(out.matches('\n').count(), text.matches('\n').count());
            prop_assert_eq!(letters(&bare(wrapped)), letters(&text));
        }
    }
}

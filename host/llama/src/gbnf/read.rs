//! Reads the text of a grammar. Knows what can be written, and nothing of what it means.

use super::{Alternatives, Item, MAX_DEPTH, What, characters};

pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    pub(super) fn wrong<T>(&self, what: &str) -> Result<T, String> {
        let before = &self.text[..self.at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Err(format!("{what} at {line}:{column}"))
    }

    pub(super) fn expect(&mut self, wanted: &str) -> Result<(), String> {
        if !self.rest().starts_with(wanted) {
            return self.wrong(&format!("`{wanted}` is missing"));
        }
        self.at += wanted.len();
        Ok(())
    }

    /// White space and comments, and with `lines` also what ends a line.
    pub(super) fn space(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => self.at += 1,
                '\r' | '\n' if lines => self.at += 1,
                '#' => self.at += self.rest().find(['\r', '\n']).unwrap_or(self.rest().len()),
                _ => return,
            }
        }
    }

    pub(super) fn end_of_rule(&mut self) -> Result<(), String> {
        self.space(false);
        if !matches!(self.peek(), None | Some('\r' | '\n')) {
            return self.wrong("the rule does not end");
        }
        self.space(true);
        Ok(())
    }

    pub(super) fn name(&mut self) -> Result<String, String> {
        let rest = self.rest();
        let len = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(rest.len());
        if len == 0 {
            return self.wrong("the name of a rule is missing");
        }
        let name = rest[..len].to_owned();
        self.at += len;
        Ok(name)
    }

    pub(super) fn alternatives(&mut self, depth: usize) -> Result<Alternatives, String> {
        if depth > MAX_DEPTH {
            return self.wrong(&format!("there are more than {MAX_DEPTH} parentheses within each other"));
        }
        let mut all = vec![self.sequence(depth)?];
        while self.peek() == Some('|') {
            self.at += 1;
            self.space(true);
            all.push(self.sequence(depth)?);
        }
        Ok(all)
    }

    fn sequence(&mut self, depth: usize) -> Result<Vec<Item>, String> {
        let mut items: Vec<Item> = Vec::new();
        while let Some(c) = self.peek() {
            let what = match c {
                '"' => self.literal()?,
                '[' => self.class()?,
                '.' => {
                    self.at += 1;
                    What::Text(vec![characters::any()])
                }
                '(' => {
                    self.at += 1;
                    self.space(true);
                    let inner = self.alternatives(depth + 1)?;
                    self.expect(")")?;
                    What::Group(inner)
                }
                c if c.is_ascii_alphanumeric() || c == '-' => What::Rule(self.name()?),
                '*' | '+' | '?' | '{' => {
                    let (min, max) = self.repetition()?;
                    match items.last_mut() {
                        Some(item) if (item.min, item.max) == (1, Some(1)) => (item.min, item.max) = (min, max),
                        _ => return self.wrong("nothing that could be repeated stands before this"),
                    }
                    self.space(depth > 0);
                    continue;
                }
                _ => break,
            };
            items.push(Item { what, min: 1, max: Some(1) });
            self.space(depth > 0);
        }
        Ok(items)
    }

    fn literal(&mut self) -> Result<What, String> {
        self.at += 1;
        let mut text = Vec::new();
        loop {
            match self.peek() {
                Some('"') => {
                    self.at += 1;
                    return Ok(What::Text(text));
                }
                Some(_) => {
                    let c = self.character()?;
                    text.push(characters::among(vec![(c, c)], false));
                }
                None => return self.wrong("a text is not closed"),
            }
        }
    }

    fn class(&mut self) -> Result<What, String> {
        self.at += 1;
        let is_negated = self.peek() == Some('^');
        self.at += usize::from(is_negated);
        let mut ranges = Vec::new();
        loop {
            match self.peek() {
                Some(']') => break,
                Some(_) => {}
                None => return self.wrong("a set of characters is not closed"),
            }
            let first = self.character()?;
            let is_range = self.rest().starts_with('-') && !self.rest().starts_with("-]");
            let last = if is_range {
                self.at += 1;
                self.character()?
            } else {
                first
            };
            ranges.push((first, last));
        }
        self.at += 1;
        // to llama.cpp, a set without characters is no part at all, with `^` and without it
        Ok(What::Text(if ranges.is_empty() { Vec::new() } else { vec![characters::among(ranges, is_negated)] }))
    }

    /// One character of a text or a set, or what is written for it.
    fn character(&mut self) -> Result<u32, String> {
        let n_digits = match self.next() {
            Some('\\') => match self.next() {
                Some('x') => 2,
                Some('u') => 4,
                Some('U') => 8,
                Some('t') => return Ok(u32::from('\t')),
                Some('r') => return Ok(u32::from('\r')),
                Some('n') => return Ok(u32::from('\n')),
                Some(c @ ('\\' | '"' | '[' | ']' | '-')) => return Ok(u32::from(c)),
                _ => return self.wrong("there is no such escape before this"),
            },
            Some(c) => return Ok(u32::from(c)),
            None => return self.wrong("a character is missing"),
        };
        let digits = self.rest().get(..n_digits).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(Ok(c)) = digits.map(|d| u32::from_str_radix(d, 16)) else {
            return self.wrong(&format!("{n_digits} hexadecimal digits are missing"));
        };
        self.at += n_digits;
        Ok(c)
    }

    fn repetition(&mut self) -> Result<(u64, Option<u64>), String> {
        match self.next() {
            Some('*') => return Ok((0, None)),
            Some('+') => return Ok((1, None)),
            Some('?') => return Ok((0, Some(1))),
            _ => {}
        }
        self.space(false);
        let min = self.number()?;
        self.space(false);
        let max = if self.peek() == Some(',') {
            self.at += 1;
            self.space(false);
            if self.peek() == Some('}') { None } else { Some(self.number()?) }
        } else {
            Some(min)
        };
        self.space(false);
        self.expect("}")?;
        if max.is_some_and(|max| max < min) {
            return self.wrong("a repetition has a larger first number than its second");
        }
        Ok((min, max))
    }

    fn number(&mut self) -> Result<u64, String> {
        let rest = self.rest();
        let len = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let Ok(number) = rest[..len].parse() else { return self.wrong("a number is missing or too large") };
        self.at += len;
        Ok(number)
    }
}

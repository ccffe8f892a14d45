//! How demanding a request is, by what can be seen of it in some microseconds: the built-in classifier.
//!
//! Signals are counted in the text that says what is wanted, each gives points, and the points give a tier. Nothing of the text is
//! kept. What it gets right and wrong is measured on labelled prompts (`complexity/`): host/COMPLEXITY.md.

use std::fmt;

use self::words::Meaning;
use crate::TextFeatures;

mod words;

/// What a request asks for stands at its beginning or its end; what is between them is counted, and not read word by word.
const HEAD_BYTES: usize = 6 << 10;
const TAIL_BYTES: usize = 2 << 10;
/// Points from which on a request is for tier 1, and for tier 2.
const TIERS: [u32; 2] = [3, 8];

/// What is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct ToJudge<'a> {
    /// What is wanted: a text, or what the user said last.
    pub text: &'a str,
    /// UTF-8 bytes of all that is said.
    pub n_bytes: usize,
    /// Messages of the conversation; 0 for text.
    pub n_messages: usize,
    /// Whether the answer must follow a schema or a grammar.
    pub is_constrained: bool,
    /// What stands above the conversation.
    pub instructions: &'a str,
}

/// How demanding a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complexity {
    /// 0 for what is simple, 2 for what is demanding.
    pub tier: u8,
    /// Points.
    pub points: u32,
    /// What they were given for.
    pub signals: Signals,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Words; of scripts without spaces, characters by twos.
    pub words: u32,
    /// Sentences and listed points.
    pub parts: u32,
    /// Lines of code.
    pub code_lines: u32,
    /// Signs of mathematics.
    pub maths: u32,
    /// Words that ask for a proof or a derivation.
    pub proofs: u32,
    /// Words that ask for reasoning: design, analyse, evaluate...
    pub reasoning: u32,
    /// Words that ask for a text or an explanation: explain, write, compare...
    pub composing: u32,
    /// Conditions that the answer must fulfil: must, at least, without...
    pub conditions: u32,
    /// Words of subjects that are hard: algorithm, concurrency, theorem...
    pub subjects: u32,
    /// Messages before.
    pub turns: u32,
    /// UTF-8 bytes of all that is said.
    pub bytes: u32,
    /// The answer must follow a schema or a grammar, or may call tools.
    pub is_structured: bool,
}

// === impl Complexity ===

impl Complexity {
    /// Judges a request. Some microseconds for a question, 200 for a book.
    pub fn of(request: &ToJudge<'_>) -> Self {
        let signals = Signals::of(request);
        let points = signals.points();
        let tier = TIERS.iter().map(|from| u8::from(points >= *from)).sum();
        Self { tier, points, signals }
    }
}

impl fmt::Display for Complexity {
    /// What gave points: counts and no words of the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Signals {
            words, code_lines, maths, proofs, reasoning, composing, conditions, subjects, turns, is_structured, ..
        } = self.signals;
        let level = ["simple", "medium", "demanding"][usize::from(self.tier.min(2))];
        write!(f, "{level}, {} points: {words} words", self.points)?;
        let counted = [
            (proofs, "that ask for a proof"),
            (reasoning, "that ask for reasoning"),
            (composing, "that ask for a text"),
            (subjects, "of hard subjects"),
            (conditions, "conditions"),
            (maths, "signs of mathematics"),
            (code_lines, "lines of code"),
            (turns, "messages before"),
        ];
        for (n, what) in counted.into_iter().filter(|(n, _)| *n > 0) {
            write!(f, ", {n} {what}")?;
        }
        if is_structured { f.write_str(", a structured answer") } else { Ok(()) }
    }
}

// === impl Signals ===

impl Signals {
    fn of(request: &ToJudge<'_>) -> Self {
        let features = TextFeatures::of(request.text);
        let n = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut signals = Self {
            words: features.words,
            code_lines: features.code_lines,
            turns: n(request.n_messages.saturating_sub(1)),
            bytes: n(request.n_bytes.max(request.text.len())),
            is_structured: request.is_constrained || head(request.instructions, HEAD_BYTES).contains("<tools>"),
            ..Self::default()
        };
        let begin = head(request.text, HEAD_BYTES);
        let rest = &request.text[begin.len()..];
        let end = &rest[rest.ceil_char_boundary(rest.len().saturating_sub(TAIL_BYTES))..];
        signals.read(begin);
        signals.read(end);
        signals
    }

    fn read(&mut self, text: &str) {
        let mut is_code = false;
        for line in text.lines() {
            let line = line.trim();
            if line.starts_with("```") {
                is_code = !is_code;
            } else if !is_code && !line.is_empty() {
                self.line(line);
            }
        }
    }

    fn line(&mut self, line: &str) {
        let is_listed =
            line.starts_with(['-', '*', '•']) || line.split_once(['.', ')']).is_some_and(|(n, _)| n.parse::<u8>().is_ok());
        self.parts += u32::from(is_listed);
        self.conditions += u32::from(is_listed);
        self.parts += count(line.matches(['.', '?', '!', ';', ':', '。', '？', '！']).count());
        let wide = count(line.chars().filter(|c| is_wide(*c)).count());
        self.words += wide / 2;
        self.maths += count(line.matches(['∫', '∑', '√', '≤', '≥', '∞', '∂', '≠', '→', '∈']).count());
        if wide > 0 {
            self.meanings(words::IN_WIDE.iter().filter(|(word, _)| line.contains(word)).map(|(_, meaning)| *meaning));
        }
        let (mut lower, mut before) = (String::new(), String::new());
        for word in line.split_whitespace() {
            // 4k, x^2, n = 5
            self.maths += u32::from(word.contains('^') || matches!(word, "=" | "<" | ">" | ">=" | "<="));
            for part in word.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()) {
                lower.clear();
                lower.extend(part.chars().flat_map(char::to_lowercase));
                let how = words::asks_how(&before, &lower).then_some(Meaning::Composing);
                self.meanings(how.or_else(|| words::meaning(&lower)));
                std::mem::swap(&mut lower, &mut before);
            }
        }
    }

    fn meanings(&mut self, meanings: impl IntoIterator<Item = Meaning>) {
        for meaning in meanings {
            let counted = match meaning {
                Meaning::Proof => &mut self.proofs,
                Meaning::Reasoning => &mut self.reasoning,
                Meaning::Composing => &mut self.composing,
                Meaning::Condition => &mut self.conditions,
                Meaning::Subject => &mut self.subjects,
            };
            *counted += 1;
        }
    }

    /// Each signal is bounded, so that none decides alone what several should.
    fn points(&self) -> u32 {
        let length = [(25, 1), (45, 1), (90, 1), (200, 1), (600, 1)];
        let context = [(8 << 10, 1), (24 << 10, 2)];
        let above = |value: u32, steps: &[(u32, u32)]| -> u32 {
            steps.iter().filter(|(from, _)| value >= *from).map(|(_, points)| points).sum()
        };
        above(self.words, &length)
            + above(self.bytes, &context)
            + (self.parts.saturating_sub(1) / 2).min(2)
            + above(self.code_lines, &[(1, 3), (5, 2), (40, 1)])
            + self.maths.min(3)
            + (self.proofs * 8).min(8)
            + (self.reasoning * 4).min(10)
            + (self.composing * 3).min(4)
            + self.conditions.min(4)
            + (self.subjects * 2).min(4)
            + above(self.turns, &[(6, 1), (16, 1)])
            + u32::from(self.is_structured)
    }
}

fn head(text: &str, n_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(n_bytes)]
}

/// Chinese, Japanese and Korean, where spaces part no words.
fn is_wide(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}')
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;

//! What is counted in a text, for those who judge how demanding it is.

use crate::TextFeatures;

/// Bytes that are looked at: about 100 us of counting. What is longer is told by its length.
const MAX_BYTES: usize = 64 << 10;
const FENCE: &str = "```";

impl TextFeatures {
    /// Counts in the first 64 KiB of a text.
    ///
    /// A fence is a line that begins with three backticks, white space apart; what is behind them, such as a language, opens one and does not close one, as in
    /// `CommonMark` 0.31. Fences themselves are no lines of code. One that is never closed lasts to the end.
    pub fn of(text: &str) -> Self {
        let mut seen = Self::default();
        let mut is_in_code = false;
        for line in text[..text.floor_char_boundary(MAX_BYTES)].lines() {
            seen.lines += 1;
            match (line.trim().strip_prefix(FENCE).map(|rest| rest.trim_start_matches('`')), is_in_code) {
                (Some(language), false) if !language.contains('`') => is_in_code = true,
                (Some(""), true) => is_in_code = false,
                (_, true) => seen.code_lines += 1,
                (_, false) => {}
            }
            for word in line.split_whitespace() {
                seen.word(word);
            }
        }
        seen
    }

    fn word(&mut self, word: &str) {
        self.words += 1;
        let mut length = 0;
        for c in word.chars() {
            length += 1;
            self.digits += u32::from(c.is_ascii_digit());
            // of Arabic and of Chinese and Japanese too
            self.question_marks += u32::from(matches!(c, '?' | '؟' | '？'));
        }
        self.longest_word = self.longest_word.max(length);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn everything_is_counted() {
        let text = "What is 12 + 30?\nSay it twice: why? なぜ？\n\nThe end.";
        let expected = TextFeatures { words: 12, lines: 4, code_lines: 0, question_marks: 3, digits: 4, longest_word: 6 };
        assert_eq!(TextFeatures::of(text), expected);
        assert_eq!(TextFeatures::of(""), TextFeatures::default());
    }

    #[test]
    fn lines_within_fences_are_code() {
        let code = |text: &str| TextFeatures::of(text).code_lines;
        assert_eq!(code("Fix this:\n```rust\nfn main() {\n\n}\n```\nplease"), 3);
        assert_eq!(code("  ```\na\n  ```\nb\n````\nc\n````"), 2);
        assert_eq!(code("```\na\n```rust\nb\n```"), 3);
        assert_eq!(code("```\nit never ends\n"), 1);
        assert_eq!(code("```let x = 1;``` in a line\nis no fence\nand ``none`` is this"), 0);
    }

    #[test]
    fn a_long_text_is_counted_up_to_64_kib_and_never_cut_within_a_character() {
        let words = "é ".repeat(1 << 20);
        assert_eq!(TextFeatures::of(&words).words, 21_845);
        let word = "éa".repeat(1 << 20);
        assert_eq!(TextFeatures::of(&word).longest_word, 43_690);
    }

    proptest! {
        #[test]
        fn counts_agree_with_those_that_look_once_for_each(text in "[a-z0-9?？é \n`]{0,300}") {
            let seen = TextFeatures::of(&text);
            let n = |count: usize| u32::try_from(count).unwrap();
            prop_assert_eq!(seen.words, n(text.split_whitespace().count()));
            prop_assert_eq!(seen.lines, n(text.lines().count()));
            prop_assert_eq!(seen.digits, n(text.chars().filter(char::is_ascii_digit).count()));
            prop_assert_eq!(seen.question_marks, n(text.matches(['?', '？']).count()));
            prop_assert_eq!(seen.longest_word, text.split_whitespace().map(|word| n(word.chars().count())).max().unwrap_or(0));
            prop_assert!(seen.code_lines <= seen.lines);
        }
    }
}

//! Example token hook: keeps words out of answers.
//!
//! `--parameters "stop: unsafe, panic"` names what to do and the words; without, it is `avoid: unsafe, panic`.
//!
//! | mode | a token that would complete a word |
//! |---|---|
//! | `avoid` | is not chosen; the model says it differently |
//! | `replace` | becomes `***` |
//! | `stop` | ends the answer |
//!
//! Models write most words in one token and some in several, and a token is decided on before its text goes out, but what went out before cannot be taken
//! back. So the one to look for is the token that *completes* a word, together with the end of what is there already. Case does not
//! matter, and neither does where tokens end, also within a character.
//!
//! What follows from this, and is better known than discovered:
//!
//! - Of a word that is written in several tokens, the beginning goes out: `uns` and `afe` become `uns***`. No hook can help it, as
//!   `uns` may as well become `unsound`.
//! - For the same reason a word is banned with all its endings, `panicked` with `panic`: whether it goes on is decided after it is out. How
//!   it begins is known: `hispanic` stays.
//! - In place of a token goes `***`, with a space before it if the token had one; what else the token said is lost.
//! - It looks at letters: `p a n i c`, other languages and what is meant by it get by.
//!
//! In mode `avoid` the likeliest tokens are looked at before one is chosen, which costs nothing but the look. A token that still comes,
//! because it was not among them, is refused and chosen anew.

#[allow(unsafe_code, missing_docs, clippy::pedantic, reason = "generated; `wit/policy.wit` holds the documentation")]
mod bindings {
    use super::BannedWords;

    wit_bindgen::generate!({ path: "../../../wit", world: "llambo:policy/token-hook@0.1.0" });
    export!(BannedWords);
}

use std::cell::RefCell;

use bindings::exports::llambo::policy::hooking::{Choice, Guest, Request, Token, Verdict};
use bindings::llambo::policy::host;

const DEFAULT: &str = "avoid: unsafe, panic";
const REPLACEMENT: &str = "***";
/// Tokens looked at before each choice: beyond them hardly any is ever chosen.
const LIKELIEST: u32 = 32;
/// Then the model insists, and the answer ends; the host gives up after 16.
const MAX_REFUSED: u32 = 8;

#[derive(Clone, Copy, Default, PartialEq)]
enum Mode {
    #[default]
    Avoid,
    Replace,
    Stop,
}

/// Of one generation: each has its own instance.
#[derive(Default)]
struct Answer {
    mode: Mode,
    /// In lower case.
    words: Vec<String>,
    /// As many bytes of the answer's end as a word can begin in.
    end: Vec<u8>,
    /// Tokens refused in a row.
    refused: u32,
}

thread_local! {
    static ANSWER: RefCell<Answer> = RefCell::default();
}

struct BannedWords;

impl Guest for BannedWords {
    fn begin(_request: Request) -> u32 {
        let parameters = host::parameters();
        let text = if parameters.trim().is_empty() { DEFAULT } else { &parameters };
        let Some(answer) = Answer::of(text) else {
            // when it is loaded, so that it is refused with this line in the log
            host::log(&format!("`{text}` is not `avoid:`, `replace:` or `stop:` with words and commas between them"));
            panic!();
        };
        let likeliest = if answer.mode == Mode::Avoid { LIKELIEST } else { 0 };
        ANSWER.set(answer);
        likeliest
    }

    fn mask(likeliest: Vec<Choice>) -> Vec<u32> {
        let banned = |answer: &Answer| {
            likeliest.iter().filter(|choice| answer.is_completed_by(&choice.text)).map(|choice| choice.id).collect()
        };
        ANSWER.with_borrow(banned)
    }

    fn on_token(token: Token) -> Verdict {
        ANSWER.with_borrow_mut(|answer| {
            if !answer.is_completed_by(&token.text) {
                answer.refused = 0;
                answer.push(&token.text);
                return Verdict::Proceed;
            }
            match answer.mode {
                Mode::Avoid if answer.refused < MAX_REFUSED => {
                    answer.refused += 1;
                    Verdict::Splice(String::new())
                }
                Mode::Avoid | Mode::Stop => Verdict::Stop,
                Mode::Replace => {
                    let space = if token.text.starts_with(b" ") { " " } else { "" };
                    let text = [space, REPLACEMENT].concat();
                    answer.push(text.as_bytes());
                    Verdict::Splice(text)
                }
            }
        })
    }
}

// === impl Answer ===

impl Answer {
    /// None if `parameters` make no sense.
    fn of(parameters: &str) -> Option<Self> {
        let (mode, words) = parameters.split_once(':')?;
        let mode = match mode.trim() {
            "avoid" => Mode::Avoid,
            "replace" => Mode::Replace,
            "stop" => Mode::Stop,
            _ => return None,
        };
        let words = words.split(',').map(|word| word.trim().to_lowercase());
        let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
        (!words.is_empty()).then(|| Self { mode, words, ..Self::default() })
    }

    /// Whether a banned word is there with this text that was not without it.
    fn is_completed_by(&self, text: &[u8]) -> bool {
        // decoded together, so that a character in two tokens is one
        let together = [&self.end, text].concat();
        let together = String::from_utf8_lossy(&together).to_lowercase();
        self.words.iter().any(|word| {
            let mut found = together.match_indices(word.as_str());
            found.any(|(at, _)| !together[..at].ends_with(char::is_alphanumeric))
        })
    }

    fn push(&mut self, text: &[u8]) {
        self.end.extend_from_slice(text);
        // the longest word, the character before it, and what lower case may take away from their bytes
        let longest = self.words.iter().map(String::len).max().unwrap_or(0);
        let surplus = self.end.len().saturating_sub(2 * longest + 8);
        self.end.drain(..surplus);
    }
}

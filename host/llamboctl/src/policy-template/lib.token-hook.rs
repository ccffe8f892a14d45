//! Decides on each token of an answer: here the answer ends after its first paragraph.

wit_bindgen::generate!({ path: "wit", generate_all });

use std::cell::Cell;

use exports::llambo::policy::hooking::{Choice, Guest, Request, Token, Verdict};

thread_local! {
    /// Line feeds at the end of the answer; none before it says something. Each generation has its own instance, so this is of one answer.
    static LINE_FEEDS: Cell<Option<usize>> = const { Cell::new(None) };
}

struct Policy;

export!(Policy);

impl Guest for Policy {
    /// How many of the likeliest tokens `mask` is to see before each choice; 0: it is not called.
    fn begin(_request: Request) -> u32 {
        LINE_FEEDS.set(None);
        0
    }

    /// The ids of those that must not be chosen.
    fn mask(_likeliest: Vec<Choice>) -> Vec<u32> {
        Vec::new()
    }

    /// Called before the token's text goes out. The text may be part of a character.
    fn on_token(token: Token) -> Verdict {
        let at_end = token.text.iter().rev().take_while(|byte| **byte == b'\n').count();
        let before = LINE_FEEDS.get();
        let is_blank = at_end == token.text.len();
        LINE_FEEDS.set(if is_blank { before.map(|n| n + at_end) } else { Some(at_end) });
        // the others: `Verdict::Splice(text)` goes on with another text, and with none chooses another token
        if before >= Some(2) && !is_blank { Verdict::Stop } else { Verdict::Proceed }
    }
}

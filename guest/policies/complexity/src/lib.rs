//! Example classifier: which tier a request needs, by what it looks like.
//!
//! Nobody can tell from the outside how hard a question is, but much that is easy looks easy: short, one question, no code, a
//! short answer asked for. Each sign of more counts a point, and points make the tier: 0 for none or one, 1 up to three,
//! 2 beyond. The thresholds below are the ones to change; to find good ones, load this with `--shadow` and compare what it says with the requests whose
//! answers were not good enough.
//!
//! Where the client asked for a tier, that is what it gets. The text itself is never looked at: this needs no grant.

#[allow(unsafe_code, missing_docs, clippy::pedantic, reason = "generated; `wit/policy.wit` holds the documentation")]
mod bindings {
    use super::Complexity;

    wit_bindgen::generate!({ path: "../../../wit", world: "llambo:policy/classifier@0.1.0" });
    export!(Complexity);
}

use bindings::exports::llambo::policy::classifying::{Features, Guest, Request};

/// More than a paragraph, and more than a page.
const LONG_WORDS: [u32; 2] = [80, 400];
/// A line or two to explain, and a function to work on.
const CODE_LINES: [u32; 2] = [1, 15];
/// Several questions in one.
const MANY_QUESTIONS: u32 = 3;
/// Figures to work with, rather than a year or a price.
const MANY_DIGITS: u32 = 24;
/// A list of things to observe.
const MANY_LINES: u32 = 12;
/// A conversation, or documents, to keep in mind.
const LONG_HISTORY: u32 = 12;
const LONG_PROMPT_BYTES: u32 = 16 << 10;
/// A word, a number, yes or no: what a small model is good at.
const SHORT_ANSWER_TOKENS: u32 = 16;
/// A text that has to hold together.
const LONG_ANSWER_TOKENS: u32 = 1024;

struct Complexity;

impl Guest for Complexity {
    fn classify(request: Request, features: Features) -> u8 {
        if let Some(tier) = request.tier {
            return tier;
        }
        match points(&request, &features) {
            0 | 1 => 0,
            2 | 3 => 1,
            _ => 2,
        }
    }
}

fn points(request: &Request, features: &Features) -> usize {
    let steps = |value: u32, thresholds: &[u32]| thresholds.iter().filter(|threshold| value >= **threshold).count();
    let signs = [
        features.question_marks >= MANY_QUESTIONS,
        features.digits >= MANY_DIGITS,
        features.lines >= MANY_LINES,
        request.n_messages >= LONG_HISTORY || request.prompt_bytes >= LONG_PROMPT_BYTES,
        // the form is enforced by the host; to put the right things into it is the model's work
        request.constrained,
        request.max_tokens.is_some_and(|tokens| tokens >= LONG_ANSWER_TOKENS),
    ];
    let points =
        steps(features.words, &LONG_WORDS) + steps(features.code_lines, &CODE_LINES) + signs.iter().filter(|sign| **sign).count();
    let is_brief = request.max_tokens.is_some_and(|tokens| tokens <= SHORT_ANSWER_TOKENS);
    points.saturating_sub(if is_brief { 2 } else { 0 })
}

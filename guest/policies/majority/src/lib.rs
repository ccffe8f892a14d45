//! Example fusion: of several answers, the one that most agree on.
//!
//! Answers agree if the same words remain after case, spacing, punctuation and emphasis are taken away: `**Paris**` and `paris.` do, `Paris` and
//! `It is Paris` do not. So this is for requests with short answers (labels, numbers, names), best with a prompt or a schema that asks
//! for nothing else.
//!
//! - As soon as no other group can draw level any more, whatever comes in, the answer is certain and the rest is not waited for: two of three, three
//!   of five.
//! - When all are in, the largest group wins. Of groups of one size, the one whose answer is complete and longest: a model
//!   that was cut off, or gave up early, has the weaker case.
//! - Of a group, the client gets the longest complete answer as it was written.

#[allow(unsafe_code, missing_docs, clippy::pedantic, reason = "generated; `wit/policy.wit` holds the documentation")]
mod bindings {
    use super::Majority;

    wit_bindgen::generate!({ path: "../../../wit", world: "llambo:policy/fusion@0.1.0" });
    export!(Majority);
}

use std::{cmp::Reverse, collections::BTreeMap};

use bindings::exports::llambo::policy::fusing::{Answer, Fused, Guest, Request};

/// What may stand around a word without changing what it says. Not signs: 5 is not -5.
const AROUND_WORDS: &[char] =
    &['.', ',', ';', ':', '!', '?', '"', '\'', '`', '*', '_', '(', ')', '[', ']', '{', '}', '“', '”', '„', '‘', '’'];

struct Majority;

impl Guest for Majority {
    fn fuse(_request: Request, answers: Vec<Answer>, outstanding: u32) -> Option<Fused> {
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, answer) in answers.iter().enumerate() {
            groups.entry(normalised(&answer.text)).or_default().push(place);
        }
        let strength = |place: &usize| (answers[*place].complete, answers[*place].text.len());
        // each with its best answer first; of equal ones the earliest
        let mut groups: Vec<Vec<usize>> = groups.into_values().collect();
        for group in &mut groups {
            group.sort_by_key(|place| Reverse(strength(place)));
        }
        groups.sort_by_key(|group| Reverse((group.len(), strength(&group[0]))));

        let largest = groups.first()?;
        let next = groups.get(1).map_or(0, Vec::len);
        let outstanding = usize::try_from(outstanding).ok()?;
        let is_certain = largest.len() > next + outstanding;
        let place = u32::try_from(largest[0]).ok()?;
        (is_certain || outstanding == 0).then_some(Fused::Pick(place))
    }
}

/// The words of a text, without what is around them.
fn normalised(text: &str) -> String {
    let words = text.split_whitespace().map(|word| word.trim_matches(AROUND_WORDS));
    // a dash or a bullet alone says nothing
    let words = words.filter(|word| word.chars().any(char::is_alphanumeric));
    words.collect::<Vec<_>>().join(" ").to_lowercase()
}

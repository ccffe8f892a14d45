//! What was said, and how much of it a model can still hold.

use std::fmt::Write;

use serde_json::{Value, json};

/// Tokens that a byte is counted as before a host has counted: text of most languages has fewer.
const FIRST_GUESS: f64 = 0.4;
/// Bytes that a message is counted for beyond its text: what the chat template puts around it.
const AROUND: usize = 12;
/// Share of the room that is filled again after turns were left out. Room for several turns, so that the beginning of the prompt stays the same for a
/// while and what the host computed of it is found again.
const REFILL: f64 = 0.6;

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) question: String,
    pub(super) answer: String,
}

/// A conversation. Its oldest turns may be left out of what is sent.
#[derive(Debug)]
pub(super) struct Talk {
    /// Its name on disk.
    pub(super) id: String,
    pub(super) system: Option<String>,
    turns: Vec<Turn>,
    /// How many of the oldest are not sent any more.
    n_left_out: usize,
    tokens_per_byte: f64,
}

impl Talk {
    pub(super) fn new(id: String, system: Option<String>) -> Self {
        Self { id, system, turns: Vec::new(), n_left_out: 0, tokens_per_byte: FIRST_GUESS }
    }

    pub(super) fn turns(&self) -> &[Turn] {
        &self.turns
    }

    pub(super) fn n_left_out(&self) -> usize {
        self.n_left_out
    }

    pub(super) fn add(&mut self, turn: Turn) {
        self.turns.push(turn);
    }

    /// Takes the last turn back, if this was its question.
    pub(super) fn take_back(&mut self, question: &str) -> Option<Turn> {
        let turn = self.turns.pop_if(|turn| turn.question == question)?;
        self.n_left_out = self.n_left_out.min(self.turns.len());
        Some(turn)
    }

    /// Everything counts again, for example for another model.
    pub(super) fn send_all_again(&mut self) {
        self.n_left_out = 0;
    }

    /// What is sent with a question: role and content.
    pub(super) fn messages(&self, question: &str) -> Vec<(&'static str, String)> {
        let mut messages: Vec<_> = self.system.iter().map(|text| ("system", text.clone())).collect();
        for Turn { question, answer } in &self.turns[self.n_left_out..] {
            messages.extend([("user", question.clone()), ("assistant", answer.clone())]);
        }
        messages.push(("user", question.to_owned()));
        messages
    }

    /// Learns from what the host counted for [`Talk::messages`] of this question.
    pub(super) fn counted(&mut self, question: &str, input_tokens: u32) {
        let bytes = self.bytes(self.n_left_out, question);
        if input_tokens > 0 && bytes > 0 {
            self.tokens_per_byte = f64::from(input_tokens) / bytes as f64;
        }
    }

    /// About how many tokens a question has, with everything that is sent with it.
    pub(super) fn tokens(&self, question: &str) -> u64 {
        self.tokens_from(self.n_left_out, question)
    }

    /// Leaves out the oldest turns as far as needed for a question to fit into a context and leave room for its answer. Says how many more it left out.
    pub(super) fn trim(&mut self, question: &str, n_context: u32, max_tokens: Option<u32>) -> usize {
        // an answer may be longer than that; then it ends with the context, and this is asked again
        let answer = max_tokens.unwrap_or(u32::MAX).min(n_context / 4);
        let room = n_context - answer;
        let before = self.n_left_out;
        if self.tokens_from(before, question) > u64::from(room) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a number of 32 bits")]
            let wanted = (f64::from(room) * REFILL) as u64;
            while self.n_left_out < self.turns.len() && self.tokens_from(self.n_left_out, question) > wanted {
                self.n_left_out += 1;
            }
        }
        self.n_left_out - before
    }

    /// Leaves out half of what is sent, since the host said that it is too long. Says how many turns; with 0, nothing is left to leave out.
    pub(super) fn trim_harder(&mut self) -> usize {
        let more = (self.turns.len() - self.n_left_out).div_ceil(2);
        self.n_left_out += more;
        more
    }

    /// As a document for people.
    pub(super) fn to_markdown(&self) -> String {
        let mut text = "# Conversation\n".to_owned();
        if let Some(system) = &self.system {
            let _ = write!(text, "\n> {}\n", system.trim().replace('\n', "\n> "));
        }
        for Turn { question, answer } in &self.turns {
            let _ = write!(text, "\n## {}\n\n{}\n", question.trim().replace('\n', "\n\n"), answer.trim());
        }
        text
    }

    fn tokens_from(&self, first: usize, question: &str) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both factors are positive")]
        let tokens = (self.bytes(first, question) as f64 * self.tokens_per_byte).ceil() as u64;
        tokens
    }

    fn bytes(&self, first: usize, question: &str) -> usize {
        let turns: usize = self.turns[first..].iter().map(|turn| turn.question.len() + turn.answer.len() + 2 * AROUND).sum();
        turns + self.system.as_ref().map_or(0, |text| text.len() + AROUND) + question.len() + AROUND
    }
}

/// A turn on disk. With `again` it takes the place of the one before.
pub(super) fn record(id: &str, at_ms: u64, model: &str, turn: &Turn, again: bool) -> Value {
    json!({ "conversation": id, "at_ms": at_ms, "model": model, "question": turn.question, "answer": turn.answer, "again": again })
}

/// The turns of records, each with its conversation. What is no record of a turn is passed over.
pub(super) fn of_records(records: &[Value]) -> Vec<(&str, Turn)> {
    let mut turns: Vec<(&str, Turn)> = Vec::new();
    for record in records {
        let text = |key: &str| record.get(key).and_then(Value::as_str);
        let (Some(id), Some(question), Some(answer)) = (text("conversation"), text("question"), text("answer")) else { continue };
        if record.get("again") == Some(&Value::Bool(true))
            && let Some(at) = turns.iter().rposition(|(other, turn)| *other == id && turn.question == question)
        {
            turns.remove(at);
        }
        turns.push((id, Turn { question: question.to_owned(), answer: answer.to_owned() }));
    }
    turns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turn(n: usize, bytes: usize) -> Turn {
        Turn { question: format!("question {n}"), answer: "x".repeat(bytes) }
    }

    fn talk(turns: usize, bytes: usize) -> Talk {
        let mut talk = Talk::new("c".into(), Some("Be brief.".into()));
        (0..turns).for_each(|n| talk.add(turn(n, bytes)));
        talk
    }

    #[test]
    fn everything_is_sent_as_long_as_it_fits() {
        let mut talk = talk(3, 10);
        assert_eq!(talk.trim("next", 4096, None), 0);
        let messages = talk.messages("next");
        assert_eq!(messages.len(), 8);
        assert_eq!((messages[0].0, messages[1].1.as_str(), messages[7].1.as_str()), ("system", "question 0", "next"));
    }

    #[test]
    fn the_oldest_turns_go_first_and_instructions_stay() {
        let mut talk = talk(10, 1000);
        talk.counted("next", 5000);
        let n = talk.trim("next", 4096, Some(100));
        assert!((1..10).contains(&n), "{n}");
        let messages = talk.messages("next");
        assert_eq!((messages[0].0, messages[1].1.clone()), ("system", format!("question {n}")));
        assert_eq!(talk.trim("next", 4096, Some(100)), 0, "it fits now, and for some turns");
        assert_eq!(talk.turns().len(), 10, "nothing is forgotten here");
        talk.send_all_again();
        assert_eq!(talk.messages("next").len(), 22);
    }

    #[test]
    fn a_host_that_counts_otherwise_is_believed() {
        let mut talk = talk(4, 100);
        talk.counted("next", 40);
        assert_eq!(talk.tokens("next"), 40);
        assert_eq!([talk.trim_harder(), talk.trim_harder(), talk.trim_harder(), talk.trim_harder()], [2, 1, 1, 0]);
    }

    #[test]
    fn a_document_has_everything_that_was_said() {
        let mut talk = Talk::new("c".into(), Some("Be\nbrief.".into()));
        talk.add(Turn { question: "Why?".into(), answer: "So.\n".into() });
        assert_eq!(talk.to_markdown(), "# Conversation\n\n> Be\n> brief.\n\n## Why?\n\nSo.\n");
    }

    #[test]
    fn a_turn_comes_back_from_disk() {
        let records = [
            record("c", 1, "m", &turn(1, 3), false),
            record("d", 2, "m", &turn(1, 3), false),
            json!({ "conversation": "c", "question": 1 }),
            json!("a line"),
            record("c", 3, "m", &turn(1, 5), true),
        ];
        assert_eq!(of_records(&records), [("d", turn(1, 3)), ("c", turn(1, 5))]);
    }

    #[test]
    fn the_last_turn_is_taken_back_to_be_asked_again() {
        let mut talk = talk(2, 10);
        assert_eq!((talk.take_back("question 0"), talk.take_back("question 1")), (None, Some(turn(1, 10))));
        assert_eq!(talk.turns().len(), 1);
    }

    proptest! {
        #[test]
        fn what_is_sent_fits_unless_the_question_alone_does_not(
            sizes in prop::collection::vec(0_usize..5000, 0..40),
            question in 0_usize..2000,
            n_context in 16_u32..20_000,
            max_tokens in prop::option::of(1_u32..30_000),
        ) {
            let mut talk = Talk::new("c".into(), None);
            for (n, size) in sizes.into_iter().enumerate() {
                talk.add(turn(n, size));
                let question = "q".repeat(question);
                talk.trim(&question, n_context, max_tokens);
                let is_alone = talk.n_left_out() == talk.turns().len();
                let room = n_context - max_tokens.unwrap_or(u32::MAX).min(n_context / 4);
                prop_assert!(is_alone || talk.tokens(&question) <= u64::from(room));
                prop_assert_eq!(talk.messages(&question).last().map(|(_, text)| text.len()), Some(question.len()));
            }
        }
    }
}

//! How likely the tokens of an answer were.

use std::sync::Arc;

use llambo_inference::{InferenceEngine, Journal, Logged, TokenId};
use serde::Serialize;
use utoipa::ToSchema;

/// What is told of a token that is hardly possible: JSON has no infinity.
const IMPOSSIBLE: f32 = -9999.0;

/// A token as it was chosen.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TokenLogprob {
    chosen: Likely,
    top: Vec<Likely>,
}

#[derive(Clone, Debug, PartialEq)]
struct Likely {
    /// May be a part of a character.
    bytes: Vec<u8>,
    logprob: f32,
}

/// Reads what the engine wrote down about an answer.
pub(super) struct Logs {
    journal: Journal,
    engine: Arc<dyn InferenceEngine>,
    n_read: usize,
}

/// As chat completions tell it.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct ChatLogprobs {
    content: Vec<ChatLogprob>,
    #[schema(value_type = Option<Vec<Object>>)]
    refusal: Option<()>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ChatLogprob {
    #[serde(flatten)]
    chosen: ChatToken,
    top_logprobs: Vec<ChatToken>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ChatToken {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

/// As completions tell it.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct TextLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    #[schema(value_type = Vec<Object>)]
    top_logprobs: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Where each token begins, in characters from the beginning of the text.
    text_offset: Vec<usize>,
}

impl Logs {
    pub(super) fn new(journal: Journal, engine: Arc<dyn InferenceEngine>) -> Self {
        Self { journal, engine, n_read: 0 }
    }

    /// The next `n_tokens`. None where a guest generated several texts: which of them it passes on only it knows.
    pub(super) fn of_piece(&mut self, n_tokens: u32) -> Vec<TokenLogprob> {
        let entries = self.journal.entries();
        let [entry] = entries.as_slice() else { return Vec::new() };
        let logged = entry.log.from(self.n_read, usize::try_from(n_tokens).unwrap_or(usize::MAX));
        self.n_read += logged.len();
        logged.into_iter().map(|logged| self.token(&logged)).collect()
    }

    fn token(&self, Logged { token, logprob, top }: &Logged) -> TokenLogprob {
        let likely =
            |token: TokenId, logprob: f32| Likely { bytes: self.engine.bytes_of(&[token]), logprob: logprob.max(IMPOSSIBLE) };
        TokenLogprob {
            chosen: likely(*token, *logprob),
            top: top.iter().map(|(token, logprob)| likely(*token, *logprob)).collect(),
        }
    }
}

impl ChatLogprobs {
    /// `None` where nothing is known, or was not asked for.
    pub(super) fn of(tokens: Vec<TokenLogprob>) -> Option<Self> {
        let mut told = Self::default();
        told.extend(tokens);
        (!told.content.is_empty()).then_some(told)
    }

    pub(super) fn extend(&mut self, tokens: Vec<TokenLogprob>) {
        self.content.extend(tokens.into_iter().map(|TokenLogprob { chosen, top }| ChatLogprob {
            chosen: chosen.for_chat(),
            top_logprobs: top.into_iter().map(Likely::for_chat).collect(),
        }));
    }
}

impl TextLogprobs {
    /// Adds tokens whose text begins `offset` characters into the whole. Returns how many characters they have.
    pub(super) fn extend(&mut self, tokens: Vec<TokenLogprob>, offset: usize) -> usize {
        let mut n_chars = 0;
        for TokenLogprob { chosen, top } in tokens {
            self.text_offset.push(offset + n_chars);
            // a character counts with its first byte
            n_chars += chosen.bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
            self.token_logprobs.push(chosen.logprob);
            self.tokens.push(chosen.name());
            self.top_logprobs.push(top.iter().map(|likely| (likely.name(), likely.logprob.into())).collect());
        }
        n_chars
    }
}

impl Likely {
    fn for_chat(self) -> ChatToken {
        ChatToken { token: String::from_utf8_lossy(&self.bytes).into_owned(), logprob: self.logprob, bytes: self.bytes }
    }

    /// A part of a character in the way of OpenAI's older interface.
    fn name(&self) -> String {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => self.bytes.iter().fold("bytes:".to_owned(), |name, byte| format!("{name}\\x{byte:02x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use llambo_inference::fake::FakeEngine;

    use super::*;

    fn logs(journal: &Journal) -> Logs {
        Logs::new(journal.clone(), Arc::new(FakeEngine::new("m", 1)))
    }

    fn logged(token: TokenId) -> Logged {
        Logged { token, logprob: f32::NEG_INFINITY, top: [(65, -0.5)].into() }
    }

    #[test]
    fn a_piece_has_its_tokens_and_the_next_goes_on_behind_them() {
        let journal = Journal::with_logprobs(1);
        let log = journal.begin(0, 0, 0).log;
        for token in [72, 0xc3, 0xa9] {
            log.push(logged(token));
        }
        let mut logs = logs(&journal);
        assert_eq!(logs.of_piece(1)[0].chosen, Likely { bytes: vec![72], logprob: IMPOSSIBLE });
        let rest = logs.of_piece(5);
        assert_eq!(rest.len(), 2);
        let mut told = TextLogprobs::default();
        assert_eq!(told.extend(rest, 1), 1, "two bytes of one character");
        assert_eq!((told.text_offset, told.tokens), (vec![1, 2], vec!["bytes:\\xc3".into(), "bytes:\\xa9".into()]));
        assert_eq!(told.top_logprobs[0]["A"], -0.5);
    }

    #[test]
    fn of_several_generations_nothing_is_told() {
        let journal = Journal::with_logprobs(0);
        journal.begin(0, 0, 0).log.push(logged(72));
        journal.begin(1, 1, 0).log.push(logged(72));
        assert!(logs(&journal).of_piece(1).is_empty());
    }
}

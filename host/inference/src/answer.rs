use std::pin::Pin;

use futures::Stream;

use crate::InferenceError;

/// What a generation says, in order. Exactly one `Finished` ends it, or exactly one error; nothing follows either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerEvent {
    /// Text that is whole UTF-8 and never taken back. Never empty.
    Piece {
        /// The text.
        text: String,
        /// Tokens it was made of; several when characters or stop strings were held back.
        n_tokens: u32,
    },
    /// The end, and what it cost.
    Finished(Finished),
}

/// How a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Why.
    pub reason: FinishReason,
    /// What it cost.
    pub usage: Usage,
}

/// Why a generation ended by itself. What ends it from outside is an [`InferenceError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model said it was done, a stop string was reached, or the constraint was complete.
    Stop,
    /// `max_tokens` or the end of the context was reached.
    Length,
}

impl FinishReason {
    /// The name used on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// Tokens read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, template and begin-of-text included.
    pub input_tokens: u32,
    /// Those of them that did not have to be computed, because an earlier request began alike.
    pub cached_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(other.cached_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
    }
}

/// The events of one generation. Dropping it cancels the generation and all behind it.
pub type AnswerStream = Pin<Box<dyn Stream<Item = Result<AnswerEvent, InferenceError>> + Send>>;

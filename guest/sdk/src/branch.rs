//! Texts under way, over `llambo:engine`: fork, grow, cut and measure them. The promises are written down in
//! `wit/deps/llambo-engine/engine.wit`.

use crate::{
    Error, ErrorCode, FinishReason, Input, Message, Options,
    bindings::llambo::engine::branches::{self, Beginning, Continuation},
};

pub use branches::{Candidate, Distribution, Mask, Scored, Token};

/// A text under way. Costs four bytes for each token, and no computation before something is asked of it.
pub struct Branch {
    inner: branches::Branch,
}

/// What was added to a branch.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Whole UTF-8; may be empty.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// With [`Options::logprobs`], the natural logarithm of each one's probability.
    pub logprobs: Vec<f32>,
    /// Present in the last one.
    pub finish: Option<FinishReason>,
}

/// All that one [`Branch::generate`] added.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// With [`Options::logprobs`], the natural logarithm of each one's probability.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub reason: FinishReason,
}

// === impl Branch ===

impl Branch {
    /// A text of its own, for the model of that name; `Branch::open(&request.model, &request.prompt)` is what the client asked.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] for the model, [`ErrorCode::TooLarge`] for the text.
    pub fn open<'a>(model: &str, input: impl Into<Input<'a>>) -> Result<Self, Error> {
        let message = |m: &Message| branches::Message { role: m.role.as_str().to_owned(), content: m.content.clone() };
        let beginning = match input.into() {
            Input::Text(text) => Beginning::Text(text.to_owned()),
            Input::Chat(messages) => Beginning::Chat(messages.iter().map(message).collect()),
        };
        Ok(Self { inner: branches::Branch::open(model, &beginning)? })
    }

    /// The branch that was saved under that name.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`].
    pub fn restore(name: &str) -> Result<Self, Error> {
        Ok(Self { inner: branches::restore(name)? })
    }

    /// Remembers the branch by a name, as long as this guest lives.
    ///
    /// # Errors
    /// A name of more than 256 bytes, or too many of them.
    pub fn save(&self, name: &str) -> Result<(), Error> {
        Ok(self.inner.save(name)?)
    }

    /// Another branch with the same tokens. What both begin with is computed once.
    #[must_use = "a fork that is dropped does nothing"]
    pub fn fork(&self) -> Self {
        Self { inner: self.inner.fork() }
    }

    /// Tokens so far; at least one.
    #[expect(clippy::len_without_is_empty, reason = "a branch is never empty")]
    pub fn len(&self) -> usize {
        self.inner.length() as usize
    }

    /// Tokens from place `start` on.
    pub fn tokens(&self, start: usize) -> Vec<Token> {
        self.inner.tokens(narrow(start), u32::MAX)
    }

    /// The text from token `start` on.
    pub fn text(&self, start: usize) -> String {
        String::from_utf8_lossy(&self.inner.bytes(narrow(start))).into_owned()
    }

    /// Adds a text as if it had stood there, and says how many tokens it is.
    ///
    /// # Errors
    /// [`ErrorCode::TooLarge`].
    pub fn append(&mut self, text: &str) -> Result<usize, Error> {
        Ok(self.inner.append(text)? as usize)
    }

    /// Adds tokens.
    ///
    /// # Errors
    /// [`ErrorCode::TooLarge`], or a token that is not in the vocabulary.
    pub fn append_tokens(&mut self, tokens: &[Token]) -> Result<(), Error> {
        Ok(self.inner.append_tokens(tokens)?)
    }

    /// Keeps the first `length` tokens: one step back, or many.
    ///
    /// # Errors
    /// `length` is 0 or more than there are.
    pub fn truncate(&mut self, length: usize) -> Result<(), Error> {
        Ok(self.inner.truncate(narrow(length))?)
    }

    /// Starts to go on, and returns at once. Branches that were started beside each other are computed together; [`Branch::next`] or
    /// [`Branch::finish`] read what comes.
    ///
    /// # Errors
    /// What is wrong with the options, or more than 16 generations at once.
    pub fn generate(&mut self, options: &Options, mask: Option<&Mask>) -> Result<(), Error> {
        Ok(self.inner.generate(&options.to_json(("stream", "true")), mask)?)
    }

    /// The next piece; `None` when nothing goes on.
    ///
    /// # Errors
    /// Why nothing more comes.
    #[expect(clippy::should_implement_trait, reason = "a branch goes on after its pieces ended")]
    pub fn next(&mut self) -> Result<Option<Piece>, Error> {
        let piece = self.inner.next()?;
        Ok(piece.map(|piece| {
            let branches::Piece { text, tokens, logprobs, finish } = piece;
            Piece { text, tokens, logprobs, finish: finish.map(reason) }
        }))
    }

    /// All that still comes.
    ///
    /// # Errors
    /// As for [`Branch::next`].
    pub fn finish(&mut self) -> Result<Growth, Error> {
        let mut growth = Growth { text: String::new(), tokens: Vec::new(), logprobs: Vec::new(), reason: FinishReason::Stop };
        while let Some(piece) = self.next()? {
            growth.text.push_str(&piece.text);
            growth.tokens.extend(piece.tokens);
            growth.logprobs.extend(piece.logprobs);
            growth.reason = piece.finish.unwrap_or(growth.reason);
        }
        Ok(growth)
    }

    /// What could follow: the `top` likeliest tokens, and how uncertain the model is.
    ///
    /// # Errors
    /// The host's.
    pub fn distribution(&self, top: usize) -> Result<Distribution, Error> {
        Ok(self.inner.distribution(narrow(top))?)
    }

    /// How likely each of these texts would be as a continuation.
    ///
    /// # Errors
    /// More than 64 of them, or one that is too long.
    pub fn score<T: AsRef<str>>(&self, continuations: &[T]) -> Result<Vec<Scored>, Error> {
        let continuations: Vec<Continuation> =
            continuations.iter().map(|text| Continuation::Text(text.as_ref().to_owned())).collect();
        Ok(self.inner.score(&continuations)?)
    }

    /// The same of tokens: of what a branch generated, exactly as it did.
    ///
    /// # Errors
    /// As for [`Branch::score`].
    pub fn score_tokens<T: AsRef<[Token]>>(&self, continuations: &[T]) -> Result<Vec<Scored>, Error> {
        let continuations: Vec<Continuation> =
            continuations.iter().map(|tokens| Continuation::Tokens(tokens.as_ref().to_vec())).collect();
        Ok(self.inner.score(&continuations)?)
    }
}

// === impl Error ===

impl From<branches::Error> for Error {
    fn from(error: branches::Error) -> Self {
        let (code, message) = match error {
            branches::Error::Invalid(message) => (ErrorCode::InvalidArgument, message),
            branches::Error::TooLong(message) => (ErrorCode::TooLarge, message),
            branches::Error::NotFound(message) => (ErrorCode::NotFound, message),
            branches::Error::Timeout(message) => (ErrorCode::Timeout, message),
            branches::Error::Failed(message) => (ErrorCode::RuntimeError, message),
        };
        Self { code, message }
    }
}

fn reason(reason: branches::FinishReason) -> FinishReason {
    match reason {
        branches::FinishReason::Stop => FinishReason::Stop,
        branches::FinishReason::Length => FinishReason::Length,
    }
}

fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

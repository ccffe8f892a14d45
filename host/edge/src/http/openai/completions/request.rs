//! What a client of completions sends.

use llambo_inference::{InferenceEngine, ModelName, Prompt, TokenId};
use llambo_proto::convert::Asked;
use serde::Deserialize;
use utoipa::ToSchema;

use super::answer::About;
use crate::http::{
    failure::ApiError,
    openai::{
        choice::Choice,
        request::{Received, fingerprint},
        sampling::{CommonFields, MAX_TOP_LOGPROBS},
        watch::Watch,
    },
};

/// A request for completions.
#[derive(Debug, ToSchema)]
pub(crate) struct CompletionBody {
    #[serde(flatten)]
    pub(super) own: CompletionFields,
    #[serde(flatten)]
    pub(super) common: CommonFields,
}

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct CompletionFields {
    /// What is gone on with.
    prompt: Prompts,
    /// Tell how likely each token was, and so many of the likeliest beside it.
    #[schema(minimum = 0, maximum = 20)]
    logprobs: Option<u32>,
    /// Begin the answer with the prompt.
    echo: Option<bool>,
    /// Text behind the gap; refused.
    suffix: Option<String>,
    /// Answers to choose the best from; only as many as are told.
    best_of: Option<u32>,
}

/// One text or several, each as a string or as the ids of tokens of the model.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string, a list of strings, a list of token ids, or a list of such lists")]
enum Prompts {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<TokenId>),
    TokenLists(Vec<Vec<TokenId>>),
}

impl CompletionBody {
    pub(super) fn model(&self) -> Option<ModelName> {
        self.common.model.as_ref().filter(|name| !name.is_empty()).map(ModelName::from)
    }

    /// All prompts as texts.
    ///
    /// # Errors
    /// There are none, or tokens that are no text.
    pub(super) fn prompts(&self, engine: &dyn InferenceEngine) -> Result<Vec<String>, ApiError> {
        let prompts = match &self.own.prompt {
            Prompts::Text(text) => vec![text.clone()],
            Prompts::Texts(texts) => texts.clone(),
            Prompts::Tokens(tokens) => vec![text_of(tokens, engine)?],
            Prompts::TokenLists(lists) => lists.iter().map(|tokens| text_of(tokens, engine)).collect::<Result<_, _>>()?,
        };
        if prompts.is_empty() {
            return Err(ApiError::invalid("`prompt` is an empty list; give at least one text").param("prompt"));
        }
        Ok(prompts)
    }

    /// The answers that are to be asked for: all of the first prompt, then those of the next.
    ///
    /// # Errors
    /// What cannot be served, by its field.
    pub(super) fn asks(&self, received: &Received, prompts: &[String]) -> Result<Vec<Choice>, ApiError> {
        let own = &self.own;
        let n = self.common.n_choices(prompts.len())?;
        if own.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
            let what = "`suffix` is not served: models here go on with a text, and do not fill gaps; leave it out";
            return Err(ApiError::invalid(what).param("suffix"));
        }
        if own.best_of.is_some_and(|best_of| usize::try_from(best_of).unwrap_or(usize::MAX) > n) {
            let what = "`best_of` is more than `n`, which is not served here: set `n` and choose yourself";
            return Err(ApiError::invalid(what).param("best_of"));
        }
        let n_top = own.logprobs.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        if n_top.is_some_and(|n| n > MAX_TOP_LOGPROBS) {
            return Err(ApiError::invalid(format!("`logprobs` must be at most {MAX_TOP_LOGPROBS}")).param("logprobs"));
        }
        let echo = own.echo.unwrap_or(false);
        if echo && n_top.is_some() {
            let what = "`logprobs` with `echo` would be those of the prompt too, which are not told; leave out one of them";
            return Err(ApiError::invalid(what).param("logprobs"));
        }
        let mut choices = Vec::with_capacity(prompts.len() * n);
        for (i, prompt) in prompts.iter().enumerate() {
            let mut asked =
                Asked::new(Prompt::Text(prompt.clone())).map_err(|error| ApiError::from(error).param(format!("prompt[{i}]")))?;
            self.common.apply(&mut asked, None)?;
            asked.n_top = n_top;
            let mut several = Choice::several(&asked, n, received, &Watch::Plain, Some(prompt).filter(|_| echo));
            if prompts.len() > 1 {
                for choice in &mut several {
                    let id = choice.asked.id.take();
                    choice.asked.id = id.map(|id| format!("{id}-p{i}").into());
                }
            }
            choices.append(&mut several);
        }
        Ok(choices)
    }

    /// What all parts of the answer tell.
    pub(super) fn about(&self, received: &Received, engine: &dyn InferenceEngine, n_choices: usize) -> About {
        About {
            id: format!("cmpl-{}", received.id),
            created: received.created,
            model: self.model().unwrap_or_else(|| engine.info().name.clone()).to_string(),
            fingerprint: fingerprint(engine),
            n: self.common.n_choices(1).unwrap_or(1),
            n_choices,
        }
    }
}

/// Tokens are taken for their text, which the model reads anew.
fn text_of(tokens: &[TokenId], engine: &dyn InferenceEngine) -> Result<String, ApiError> {
    let refuse = |what: String| Err(ApiError::invalid(what).param("prompt"));
    let n_vocab = engine.info().n_vocab;
    if let Some(token) = tokens.iter().find(|token| **token >= n_vocab) {
        return refuse(format!("`prompt` has the token {token}, but the model's vocabulary has {n_vocab}; send text"));
    }
    match String::from_utf8(engine.bytes_of(tokens)) {
        Ok(text) => Ok(text),
        Err(_) => refuse("the tokens of `prompt` are no whole characters together; send text".into()),
    }
}

//! What chat completions and completions have in common: how tokens are chosen, how answers are sent, who asks.

use std::collections::BTreeMap;

use llambo_inference::{Constraint, LogitBias, ModelName, Priority, SamplingOptions};
use llambo_proto::convert::{self, Asked};
use llambo_strategy::MAX_TIER;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::http::failure::ApiError;

/// Answers to one request, over all its prompts; OpenAI's limit.
pub(super) const MAX_CHOICES: usize = 128;
/// The likeliest tokens that are told beside each; OpenAI's limit.
pub(super) const MAX_TOP_LOGPROBS: usize = 20;
/// Labels a request may have, its user's name included.
const MAX_LABELS: usize = 16;

/// Fields of both forms. Whatever is left out, or null, takes the model's own default.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct CommonFields {
    /// The model that answers; left out: the host's default.
    pub(super) model: Option<String>,
    /// Send the answer as it is generated, as server-sent events.
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    /// Answers to each prompt.
    #[schema(minimum = 1, maximum = 128)]
    pub(super) n: Option<u32>,
    /// The same seed, prompt and options give the same text. Answer `i` of several takes `seed + i`.
    pub(super) seed: Option<i64>,
    /// 0 takes the likeliest token always.
    #[schema(minimum = 0, maximum = 10)]
    pub(super) temperature: Option<f32>,
    /// Only the likeliest tokens whose probabilities add up to this.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub(super) top_p: Option<f32>,
    /// Tokens generated at most.
    #[schema(minimum = 1)]
    pub(super) max_tokens: Option<u32>,
    /// The newer name of `max_tokens`, which it goes before.
    #[schema(minimum = 1)]
    pub(super) max_completion_tokens: Option<u32>,
    /// Generation ends before any of these.
    pub(super) stop: Option<Stop>,
    #[schema(minimum = -2, maximum = 2)]
    pub(super) presence_penalty: Option<f32>,
    #[schema(minimum = -2, maximum = 2)]
    pub(super) frequency_penalty: Option<f32>,
    /// Added to the logits of tokens, by their ids in the model's vocabulary; between -100 and 100.
    pub(super) logit_bias: Option<BTreeMap<String, f32>>,
    /// Whose request it is, for policies: the label `user`.
    pub(super) user: Option<String>,
    /// Labels for policies.
    pub(super) metadata: Option<BTreeMap<String, String>>,
    /// `flex` takes what others leave; everything else is answered as soon as can be.
    pub(super) service_tier: Option<String>,
    /// The tier that should serve it; others do if that has no node free.
    #[schema(minimum = 0, maximum = 2)]
    pub(super) tier: Option<u32>,
    /// Only the `top_k` likeliest tokens; 0 and -1 keep all.
    pub(super) top_k: Option<i64>,
    /// Only tokens at least this likely relative to the likeliest.
    #[schema(minimum = 0, maximum = 1)]
    pub(super) min_p: Option<f32>,
    /// Also `repetition_penalty`.
    #[serde(alias = "repetition_penalty")]
    #[schema(minimum = 0.1, maximum = 10)]
    pub(super) repeat_penalty: Option<f32>,
    /// Go on where the model says that it is done.
    pub(super) ignore_eos: Option<bool>,
    /// The form of the text, as a GBNF grammar with a `root` rule.
    pub(super) grammar: Option<String>,
    /// The form of the text, as a JSON Schema.
    #[schema(value_type = Option<Object>)]
    pub(super) json_schema: Option<Value>,
}

/// How an answer is streamed.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct StreamOptions {
    /// End with a message that tells the usage of the whole request.
    pub(super) include_usage: Option<bool>,
}

/// One string, or several.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub(super) enum Stop {
    One(String),
    Many(Vec<String>),
}

impl CommonFields {
    /// Whether the answer is streamed.
    pub(super) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// Whether a stream ends with its usage.
    ///
    /// # Errors
    /// There is no stream.
    pub(super) fn tells_usage(&self) -> Result<bool, ApiError> {
        match &self.stream_options {
            Some(_) if !self.streams() => {
                Err(ApiError::invalid("`stream_options` is only permitted with `stream: true`").param("stream_options"))
            }
            options => Ok(options.as_ref().and_then(|options| options.include_usage).unwrap_or(false)),
        }
    }

    /// Answers to each of `n_prompts`.
    ///
    /// # Errors
    /// None, or too many.
    pub(super) fn n_choices(&self, n_prompts: usize) -> Result<usize, ApiError> {
        let n = self.n.map_or(1, |n| usize::try_from(n).unwrap_or(usize::MAX));
        if n == 0 || n.saturating_mul(n_prompts) > MAX_CHOICES {
            let what = format!("`n` is {n}, but must be at least 1, and at most {MAX_CHOICES} over all prompts");
            return Err(ApiError::invalid(what).param("n"));
        }
        Ok(n)
    }

    /// Whether the request takes what others leave.
    pub(super) fn priority(&self) -> Priority {
        if self.service_tier.as_deref() == Some("flex") { Priority::Batch } else { Priority::Interactive }
    }

    /// Fills in what these fields say. `form` is a constraint that others ask for.
    ///
    /// # Errors
    /// A field that does not fit, by its name; ranges are checked later, where options meet their model.
    pub(super) fn apply(&self, asked: &mut Asked, form: Option<(&'static str, Constraint)>) -> Result<(), ApiError> {
        asked.model = self.model.as_ref().filter(|name| !name.is_empty()).map(ModelName::from);
        asked.priority = self.priority();
        asked.routing.tier = self.tier()?;
        asked.routing.labels = convert::labels(self.labels()).map_err(|error| ApiError::from(error).param("metadata"))?;
        asked.options = SamplingOptions {
            max_tokens: self.max_completion_tokens.or(self.max_tokens),
            temperature: self.temperature,
            top_k: self.top_k.map(|k| u32::try_from(k.max(0)).unwrap_or(u32::MAX)),
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed.map(i64::cast_unsigned),
            stop: match &self.stop {
                None => Vec::new(),
                Some(Stop::One(stop)) => vec![stop.clone()],
                Some(Stop::Many(stops)) => stops.clone(),
            },
            logit_bias: self.logit_bias()?,
            constraint: self.constraint(form)?,
            ignore_eos: self.ignore_eos.unwrap_or(false),
        };
        Ok(())
    }

    fn tier(&self) -> Result<Option<u8>, ApiError> {
        let Some(tier) = self.tier else { return Ok(None) };
        let fits = u8::try_from(tier).ok().filter(|tier| *tier <= MAX_TIER);
        let refusal = || ApiError::invalid(format!("`tier` is {tier}, but must be at most {MAX_TIER}")).param("tier");
        fits.map(Some).ok_or_else(refusal)
    }

    fn labels(&self) -> impl Iterator<Item = (String, String)> {
        let given = self.metadata.as_ref();
        let has_room = given.is_none_or(|given| given.len() < MAX_LABELS && !given.contains_key("user"));
        let user = self.user.clone().filter(|user| has_room && !user.is_empty()).map(|user| ("user".to_owned(), user));
        given.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).chain(user)
    }

    fn logit_bias(&self) -> Result<Vec<LogitBias>, ApiError> {
        let biases = self.logit_bias.iter().flatten().map(|(token, bias)| {
            let id = token.parse().map_err(|_| {
                let what = format!("`logit_bias` names the token {token:?}; tokens are named by their ids, such as \"42\"");
                ApiError::invalid(what).param("logit_bias")
            })?;
            Ok(LogitBias { token: id, bias: *bias })
        });
        biases.collect()
    }

    fn constraint(&self, form: Option<(&'static str, Constraint)>) -> Result<Option<Constraint>, ApiError> {
        let grammar = self.grammar.clone().filter(|grammar| !grammar.is_empty());
        let grammar = grammar.map(|grammar| ("grammar", Constraint::Gbnf(grammar)));
        let schema = self.json_schema.as_ref().map(|schema| ("json_schema", Constraint::JsonSchema(schema.to_string())));
        let mut forms = [form, grammar, schema].into_iter().flatten();
        let Some((first, constraint)) = forms.next() else { return Ok(None) };
        match forms.next() {
            None => Ok(Some(constraint)),
            Some((second, _)) => {
                let what = format!("`{first}` and `{second}` both say what form the text has; leave one of them out");
                Err(ApiError::invalid(what).param(second))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use llambo_inference::Prompt;
    use serde_json::json;

    use super::*;

    fn asked(fields: Value) -> Result<Asked, ApiError> {
        let fields: CommonFields = serde_json::from_value(fields).unwrap();
        let mut asked = Asked::new(Prompt::Text("x".into())).unwrap();
        fields.apply(&mut asked, None).map(|()| asked)
    }

    fn refused(fields: Value) -> Value {
        serde_json::to_value(asked(fields).unwrap_err().into_body()).unwrap()["error"].take()
    }

    #[test]
    fn every_field_arrives() {
        let fields = json!({
            "model": "m", "seed": -1, "temperature": 0.5, "top_p": 0.25, "max_tokens": 5, "max_completion_tokens": 6, "stop": "x",
            "presence_penalty": -1, "frequency_penalty": 2, "logit_bias": {"7": -100}, "user": "u", "metadata": {"a": "b"},
            "service_tier": "flex", "tier": 2, "top_k": -1, "min_p": 0.125, "repetition_penalty": 1.5, "ignore_eos": true,
            "grammar": "root ::= \"a\"", "something_new": {}
        });
        let asked = asked(fields).unwrap();
        let expected = SamplingOptions {
            max_tokens: Some(6),
            temperature: Some(0.5),
            top_k: Some(0),
            top_p: Some(0.25),
            min_p: Some(0.125),
            repeat_penalty: Some(1.5),
            presence_penalty: Some(-1.0),
            frequency_penalty: Some(2.0),
            seed: Some(u64::MAX),
            stop: vec!["x".into()],
            logit_bias: vec![LogitBias { token: 7, bias: -100.0 }],
            constraint: Some(Constraint::Gbnf("root ::= \"a\"".into())),
            ignore_eos: true,
        };
        assert_eq!(asked.options, expected);
        assert_eq!((asked.model.unwrap().as_str(), asked.priority, asked.routing.tier), ("m", Priority::Batch, Some(2)));
        let labels: Vec<_> = asked.routing.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(labels, [("a", "b"), ("user", "u")]);
    }

    #[test]
    fn null_is_the_same_as_nothing() {
        let nothing = json!({"stop": null, "seed": null, "logit_bias": null, "metadata": null, "grammar": "", "model": ""});
        let asked = asked(nothing).unwrap();
        assert_eq!((asked.options, asked.model), (SamplingOptions::default(), None));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert_eq!(refused(json!({"logit_bias": {"word": 1}}))["param"], "logit_bias");
        assert_eq!(refused(json!({"tier": 3}))["message"], "`tier` is 3, but must be at most 2");
        assert_eq!(refused(json!({"metadata": {"k": "v".repeat(257)}}))["param"], "metadata");
        assert_eq!(refused(json!({"grammar": "root ::= \"a\"", "json_schema": {}}))["param"], "json_schema");
    }
}

//! The `options` tensor: a JSON object, read leniently in its keys and strictly in its values.

use std::fmt::Display;

use llambo_inference::{Constraint, LogitBias, Sampling, SamplingOptions};
use serde::Serialize;
use serde_json::{Map, Value};

/// The largest of all options, a schema, may have 128 KiB, and a little more with its quotes escaped.
const MAX_BYTES: usize = 256 << 10;

/// What the object said.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Options {
    pub(crate) sampling: SamplingOptions,
    /// Each `compute` returns the next piece.
    pub(crate) stream: bool,
    /// An embedding instead of text.
    pub(crate) embedding: bool,
    /// Of a branch: how likely each token was.
    pub(crate) logprobs: bool,
}

/// Takes members out of the object; `-` in a key stands for `_`.
struct Members(Map<String, Value>);

// === impl Options ===

impl Options {
    /// # Errors
    /// A sentence that names the option.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        if json.len() > MAX_BYTES {
            return Err(format!("the options have {} bytes, and may have {MAX_BYTES}", json.len()));
        }
        let value: Value = serde_json::from_slice(json).map_err(|e| format!("the options are not JSON: {e}"))?;
        let Value::Object(object) = value else { return Err("the options are not a JSON object".into()) };
        let members = Members(object.into_iter().map(|(key, value)| (key.replace('-', "_"), value)).collect());
        let constraint = match (members.get("json_schema"), members.get("grammar")) {
            (Some(_), Some(_)) => return Err("`json_schema` and `grammar` exclude each other; give one".into()),
            (Some(Value::String(schema)), None) => Some(Constraint::JsonSchema(schema.clone())),
            (Some(schema @ Value::Object(_)), None) => Some(Constraint::JsonSchema(schema.to_string())),
            (Some(other), None) => return Err(unfit("json_schema", other, "a JSON schema")),
            (None, Some(Value::String(grammar))) => Some(Constraint::Gbnf(grammar.clone())),
            (None, Some(other)) => return Err(unfit("grammar", other, "a string")),
            (None, None) => None,
        };
        let sampling = SamplingOptions {
            max_tokens: members.integer("max_tokens")?,
            temperature: members.float("temperature")?,
            top_k: members.integer("top_k")?,
            top_p: members.float("top_p")?,
            min_p: members.float("min_p")?,
            repeat_penalty: members.float("repeat_penalty")?,
            presence_penalty: members.float("presence_penalty")?,
            frequency_penalty: members.float("frequency_penalty")?,
            seed: members.integer("seed")?,
            stop: members.stop()?,
            logit_bias: members.logit_bias()?,
            constraint,
            ignore_eos: members.flag("ignore_eos")?,
        };
        let flag = |key| members.flag(key);
        Ok(Self { sampling, stream: flag("stream")?, embedding: flag("embedding")?, logprobs: flag("logprobs")? })
    }
}

fn unfit(key: &str, found: &Value, wanted: &str) -> String {
    let mut found = found.to_string();
    if found.chars().count() > 40 {
        found = found.chars().take(40).chain("...".chars()).collect();
    }
    format!("`{key}` is {found}, but must be {wanted}")
}

// === impl Members ===

impl Members {
    /// A member; JSON's `null` counts as absent.
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn read<T>(&self, key: &str, wanted: impl Display, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| unfit(key, value, &wanted.to_string()))
    }

    #[expect(clippy::cast_possible_truncation, reason = "options are f32; the nearest one is meant")]
    fn float(&self, key: &str) -> Result<Option<f32>, String> {
        self.read(key, "a number", |value| value.as_f64().map(|wide| wide as f32))
    }

    fn integer<T: TryFrom<u64>>(&self, key: &str) -> Result<Option<T>, String> {
        let wanted = format_args!("a whole number of at most {} bits", 8 * size_of::<T>()).to_string();
        self.read(key, wanted, |value| T::try_from(value.as_u64()?).ok())
    }

    fn flag(&self, key: &str) -> Result<bool, String> {
        Ok(self.read(key, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    fn stop(&self) -> Result<Vec<String>, String> {
        let read = |value: &Value| match value {
            Value::String(one) => Some(vec![one.clone()]),
            Value::Array(all) => all.iter().map(|stop| stop.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        Ok(self.read("stop", "a string or a list of strings", read)?.unwrap_or_default())
    }

    #[expect(clippy::cast_possible_truncation, reason = "a bias is f32; the nearest one is meant")]
    fn logit_bias(&self) -> Result<Vec<LogitBias>, String> {
        let entry = |pair: &Value| {
            let [token, bias] = pair.as_array()?.as_slice() else { return None };
            Some(LogitBias { token: u32::try_from(token.as_u64()?).ok()?, bias: bias.as_f64()? as f32 })
        };
        let read = |value: &Value| value.as_array()?.iter().map(entry).collect::<Option<Vec<_>>>();
        Ok(self.read("logit_bias", "a list of [token, bias]", read)?.unwrap_or_default())
    }
}

/// What `to_json` writes: the members of a request's `options`.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    repeat_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logit_bias: Vec<(u32, f32)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    json_schema: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grammar: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ignore_eos: bool,
}

/// The object that a guest is given for a request, which [`Options::parse`] reads back.
pub(crate) fn to_json(sampling: &Sampling) -> String {
    let (json_schema, grammar) = match &sampling.constraint {
        Some(Constraint::JsonSchema(schema)) => (Some(schema.as_str()), None),
        Some(Constraint::Gbnf(grammar)) => (None, Some(grammar.as_str())),
        None => (None, None),
    };
    let written = Written {
        max_tokens: sampling.max_tokens,
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        repeat_penalty: sampling.repeat_penalty,
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        seed: sampling.seed,
        stop: &sampling.stop,
        logit_bias: sampling.logit_bias.iter().map(|b| (b.token, b.bias)).collect(),
        json_schema,
        grammar,
        ignore_eos: sampling.ignore_eos,
    };
    serde_json::to_string(&written).expect("numbers, strings and lists of them are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_the_way_through_json() {
        let sampling = Sampling {
            max_tokens: Some(u32::MAX),
            temperature: 0.7,
            seed: Some(u64::MAX),
            stop: vec!["\n\"".into(), "é".into()],
            logit_bias: vec![LogitBias { token: 7, bias: -100.0 }],
            constraint: Some(Constraint::JsonSchema(r#"{"type":"object"}"#.into())),
            ignore_eos: true,
            ..Sampling::default()
        };
        let json = to_json(&sampling);
        assert!(json.contains(r#""temperature":0.7,"#), "{json}");
        let read = Options::parse(json.as_bytes()).unwrap();
        assert_eq!(read.sampling.resolve(&Sampling::default()), Ok(sampling));
    }

    #[test]
    fn keys_are_read_leniently() {
        let read =
            Options::parse(br#"{"max-tokens": 3, "stop": "x", "n-gpu-layers": 99, "seed": null, "stream": true}"#).unwrap();
        assert_eq!((read.sampling.max_tokens, read.stream, read.embedding), (Some(3), true, false));
        assert_eq!((read.sampling.stop, read.sampling.seed), (vec!["x".to_owned()], None));
        let schema = Options::parse(br#"{"json_schema": {"type": "string"}}"#).unwrap().sampling.constraint;
        assert_eq!(schema, Some(Constraint::JsonSchema(r#"{"type":"string"}"#.into())));
    }

    #[test]
    fn values_that_do_not_fit_are_named() {
        let cases: [(&[u8], &str); 10] = [
            (b"not json", "not JSON"),
            (b"[]", "not a JSON object"),
            (br#"{"temperature": "NaN"}"#, "`temperature`"),
            (br#"{"max_tokens": 4294967296}"#, "`max_tokens`"),
            (br#"{"max_tokens": -1}"#, "`max_tokens`"),
            (br#"{"stop": [1]}"#, "`stop`"),
            (br#"{"logit_bias": [[1]]}"#, "`logit_bias`"),
            (br#"{"stream": 1}"#, "`stream`"),
            (br#"{"json_schema": 1}"#, "`json_schema`"),
            (br#"{"json_schema": {}, "grammar": "root ::= \"a\""}"#, "exclude"),
        ];
        for (json, named) in cases {
            let error = Options::parse(json).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}

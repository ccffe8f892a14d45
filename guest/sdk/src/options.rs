//! Sampling options: the request's own, changed by the engine, handed to the model as one JSON object.

use std::fmt::{self, Write as _};

use crate::{Request, json};

/// Sampling options as the `options` tensor carries them. What is not set is the model's default.
///
/// Setting an option again replaces it. Ranges are checked by the host: a value outside fails the generation with
/// [`crate::ErrorCode::InvalidArgument`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "setters take the options and return them changed"]
pub struct Options {
    /// Snake-case key, as between its quotes, and JSON value.
    members: Vec<(String, String)>,
}

/// Options that are not one JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidOptions(String);

// === impl Options ===

impl Options {
    /// No options: the model's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The options that came with `request`, to be passed on or changed.
    ///
    /// # Errors
    /// The host sends valid options; one that does not is told what was expected and where.
    pub fn of(request: &Request) -> Result<Self, InvalidOptions> {
        Self::parse(&request.options)
    }

    /// The members of a JSON object, unknown ones too. Empty text is the empty object.
    ///
    /// # Errors
    /// What was expected instead, and the byte where.
    pub fn parse(source: &str) -> Result<Self, InvalidOptions> {
        let mut options = Self::default();
        if !source.trim().is_empty() {
            for (key, value) in json::members(source).map_err(InvalidOptions)? {
                options = options.set(key, value);
            }
        }
        Ok(options)
    }

    /// Tokens generated at most; at least 1.
    pub fn max_tokens(self, n: u32) -> Self {
        self.set("max_tokens", n.to_string())
    }

    /// 0 takes the likeliest token always; at most 10.
    pub fn temperature(self, value: f32) -> Self {
        self.set_float("temperature", value)
    }

    /// Only the `n` likeliest tokens; 0 keeps all.
    pub fn top_k(self, n: u32) -> Self {
        self.set("top_k", n.to_string())
    }

    /// Only the likeliest tokens whose probabilities add up to this, in (0, 1].
    pub fn top_p(self, value: f32) -> Self {
        self.set_float("top_p", value)
    }

    /// Only tokens at least this likely relative to the likeliest, in [0, 1].
    pub fn min_p(self, value: f32) -> Self {
        self.set_float("min_p", value)
    }

    /// Makes tokens that were just used less likely; 1 changes nothing.
    pub fn repeat_penalty(self, value: f32) -> Self {
        self.set_float("repeat_penalty", value)
    }

    /// Subtracted once from the logit of each token just used, in [-2, 2].
    pub fn presence_penalty(self, value: f32) -> Self {
        self.set_float("presence_penalty", value)
    }

    /// Subtracted for each time that a token was just used, in [-2, 2].
    pub fn frequency_penalty(self, value: f32) -> Self {
        self.set_float("frequency_penalty", value)
    }

    /// Same seed, model, prompt and options give the same text.
    pub fn seed(self, seed: u64) -> Self {
        self.set("seed", seed.to_string())
    }

    /// Generation ends before any of these; none of them appears in the text. Replaces the list there was.
    pub fn stop<S: AsRef<str>>(self, strings: impl IntoIterator<Item = S>) -> Self {
        let list = list(strings, |out, text| json::push_string(out, text.as_ref()));
        self.set("stop", list)
    }

    /// Added to the logits of single tokens, in [-100, 100]. Replaces the list there was.
    pub fn logit_bias(self, biases: impl IntoIterator<Item = (u32, f32)>) -> Self {
        let list = list(biases, |out, (token, bias)| {
            let _ = write!(out, "[{token},{}]", float(bias));
        });
        self.set("logit_bias", list)
    }

    /// The text is one JSON value that validates against this JSON Schema (its source). Replaces a grammar.
    pub fn json_schema(self, schema: &str) -> Self {
        self.without("grammar").set_string("json_schema", schema)
    }

    /// The text conforms to this GBNF grammar. Replaces a JSON Schema.
    pub fn grammar(self, grammar: &str) -> Self {
        self.without("json_schema").set_string("grammar", grammar)
    }

    /// Keeps generating when the model says it is done.
    pub fn ignore_eos(self, ignore: bool) -> Self {
        self.set("ignore_eos", ignore.to_string())
    }

    /// Of a branch: tells how likely each token was.
    pub fn logprobs(self, tell: bool) -> Self {
        self.set("logprobs", tell.to_string())
    }

    /// Any option as a JSON value, for what has no method here. `-` in the key stands for `_`.
    pub fn set(mut self, key: &str, json: impl Into<String>) -> Self {
        let (key, json) = (key.replace('-', "_"), json.into());
        match self.members.iter_mut().find(|(k, _)| *k == key) {
            Some((_, value)) => *value = json,
            None => self.members.push((key, json)),
        }
        self
    }

    /// Leaves an option to the model's default.
    pub fn without(mut self, key: &str) -> Self {
        let key = key.replace('-', "_");
        self.members.retain(|(k, _)| *k != key);
        self
    }

    /// An option's JSON value as it was written.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.members.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// The object with one more member, which must not be set otherwise.
    pub(crate) fn to_json(&self, extra: (&str, &str)) -> String {
        let members = self.members.iter().map(|(k, v)| (k.as_str(), v.as_str())).filter(|(k, _)| *k != extra.0);
        let mut out = String::from("{");
        for (key, value) in members.chain([extra]) {
            if out.len() > 1 {
                out.push(',');
            }
            out.push('"');
            out.push_str(key);
            out.push_str("\":");
            out.push_str(value);
        }
        out.push('}');
        out
    }

    fn set_string(self, key: &str, text: &str) -> Self {
        let mut value = String::new();
        json::push_string(&mut value, text);
        self.set(key, value)
    }

    fn set_float(self, key: &str, value: f32) -> Self {
        self.set(key, float(value))
    }
}

/// JSON has no infinity and no NaN; the string makes the host refuse the option by its name.
fn float(value: f32) -> String {
    if value.is_finite() { value.to_string() } else { format!("\"{value}\"") }
}

fn list<T>(items: impl IntoIterator<Item = T>, mut push: impl FnMut(&mut String, T)) -> String {
    let mut out = String::from("[");
    for item in items {
        if out.len() > 1 {
            out.push(',');
        }
        push(&mut out, item);
    }
    out.push(']');
    out
}

// === impl InvalidOptions ===

impl fmt::Display for InvalidOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the options are not a JSON object: {}", self.0)
    }
}

impl std::error::Error for InvalidOptions {}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: (&str, &str) = ("stream", "true");

    #[test]
    fn the_requests_options_pass_through_unchanged() {
        let options = Options::parse(r#"{"temperature": 0.10, "x": {"y": [1, "}"]}, "stop": ["\n"]}"#).unwrap();
        assert_eq!(options.to_json(STREAM), r#"{"temperature":0.10,"x":{"y": [1, "}"]},"stop":["\n"],"stream":true}"#);
    }

    #[test]
    fn an_option_is_replaced_whichever_way_it_was_spelled() {
        let options = Options::parse(r#"{"max-tokens": 5, "seed": 1}"#).unwrap().max_tokens(9).set("top-k", "3");
        assert_eq!(options.get("max_tokens"), Some("9"));
        assert_eq!(options.to_json(STREAM), r#"{"max_tokens":9,"seed":1,"top_k":3,"stream":true}"#);
    }

    #[test]
    fn the_calls_own_member_wins_over_the_requests() {
        let options = Options::parse(r#"{"stream": false, "seed": 1}"#).unwrap();
        assert_eq!(options.to_json(STREAM), r#"{"seed":1,"stream":true}"#);
        assert_eq!(Options::new().to_json(STREAM), r#"{"stream":true}"#);
    }

    #[test]
    fn every_setter_writes_its_option() {
        let options = Options::new()
            .temperature(0.5)
            .top_p(0.9)
            .min_p(0.0)
            .repeat_penalty(1.1)
            .presence_penalty(-2.0)
            .frequency_penalty(1.0)
            .seed(u64::MAX)
            .stop(["a\"", "\n"])
            .logit_bias([(7, -100.0), (8, 0.5)])
            .ignore_eos(true);
        let expected = concat!(
            r#"{"temperature":0.5,"top_p":0.9,"min_p":0,"repeat_penalty":1.1,"presence_penalty":-2,"frequency_penalty":1,"#,
            r#""seed":18446744073709551615,"stop":["a\"","\n"],"logit_bias":[[7,-100],[8,0.5]],"ignore_eos":true,"stream":true}"#,
        );
        assert_eq!(options.to_json(STREAM), expected);
    }

    #[test]
    fn a_grammar_and_a_schema_exclude_each_other() {
        let options = Options::new().grammar("root ::= \"a\"").json_schema(r#"{"type":"object"}"#);
        assert_eq!(options.to_json(STREAM), r#"{"json_schema":"{\"type\":\"object\"}","stream":true}"#);
        assert_eq!(options.grammar("root ::= [a]").to_json(STREAM), r#"{"grammar":"root ::= [a]","stream":true}"#);
    }

    #[test]
    fn a_number_that_json_cannot_hold_still_makes_json() {
        assert_eq!(Options::new().temperature(f32::NAN).get("temperature"), Some("\"NaN\""));
        assert_eq!(Options::new().top_p(f32::INFINITY).get("top_p"), Some("\"inf\""));
    }

    #[test]
    fn what_is_no_object_is_named_with_its_place() {
        let error = Options::parse("not json").unwrap_err();
        assert_eq!(error.to_string(), "the options are not a JSON object: `{` was expected at byte 0");
        assert_eq!(Options::parse("  ").unwrap(), Options::new());
    }
}

//! The options that WasmEdge's guests give as JSON, with their graph or as input 1.

use llambo_inference::{Constraint, Sampling, SamplingOptions};
use serde_json::{Map, Value};

/// As much as an `options` tensor of a component may have.
const MAX_BYTES: usize = 256 << 10;
/// Options that name files of the host, or data that no model here reads.
const DENIED: [&str; 4] = ["mmproj", "image", "tts-output-file", "tts-speaker-file"];
/// WasmEdge's word for as many tokens as there are.
const NO_LIMIT: i64 = -1;

/// What was asked for so far, later ones on top.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    said: Map<String, Value>,
}

/// What is wrong with options.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Not JSON, or a value that cannot be.
    Invalid(String),
    /// It would reach beyond the sandbox.
    Denied(String),
}

// === impl Options ===

impl Options {
    /// Adds what `json` says.
    pub(crate) fn add(&mut self, json: &[u8]) -> Result<(), Unfit> {
        if json.len() > MAX_BYTES {
            return Err(Unfit::Invalid(format!("the options have {} bytes, and may have {MAX_BYTES}", json.len())));
        }
        let Ok(Value::Object(said)) = serde_json::from_slice(json) else {
            return Err(Unfit::Invalid("the options are not a JSON object".into()));
        };
        if let Some(denied) = DENIED.into_iter().find(|key| said.get(*key).is_some_and(|v| v.as_str() != Some(""))) {
            return Err(Unfit::Denied(format!("`{denied}` names a file of the host, which a guest cannot reach")));
        }
        let mut all = self.clone();
        all.said.extend(said.into_iter().filter(|(_, value)| !value.is_null()));
        // looked at before it counts
        all.over(&Sampling::default())?;
        *self = all;
        Ok(())
    }

    /// What the host keeps for it, about.
    pub(crate) fn n_bytes(&self) -> usize {
        self.said.iter().map(|(key, value)| key.len() + value.as_str().map_or(16, str::len) + 64).sum()
    }

    pub(crate) fn embedding(&self) -> bool {
        self.flag("embedding")
    }

    pub(crate) fn stream_stdout(&self) -> bool {
        self.flag("stream-stdout")
    }

    fn flag(&self, key: &str) -> bool {
        self.said.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// What the client asked for, with what the guest asks for on top. The smaller number of tokens counts.
    pub(crate) fn over(&self, client: &Sampling) -> Result<Sampling, Unfit> {
        let n_predict = self.whole("n-predict")?.filter(|n| *n > NO_LIMIT);
        let n_predict = n_predict.map(|n| u32::try_from(n).unwrap_or(u32::MAX).max(1));
        // WasmEdge's word for any
        let seed = self.whole("seed")?.and_then(|seed| u64::try_from(seed).ok()).filter(|seed| *seed != u64::from(u32::MAX));
        let schema = match self.said.get("json-schema") {
            None => None,
            Some(Value::String(schema)) => Some(schema.clone()).filter(|schema| !schema.is_empty()),
            Some(schema @ Value::Object(_)) => Some(schema.to_string()),
            Some(_) => return Err(Unfit::Invalid("`json-schema` is neither a text nor an object".into())),
        };
        let grammar = self.text("grammar")?.map(str::to_owned);
        let constraint = schema.map(Constraint::JsonSchema).or(grammar.map(Constraint::Gbnf));
        let stop = client.stop.iter().cloned().chain(self.text("reverse-prompt")?.map(str::to_owned)).collect();
        let asked = SamplingOptions {
            max_tokens: [n_predict, client.max_tokens].into_iter().flatten().min(),
            temperature: self.number("temp")?,
            top_k: self.whole("top-k")?.map(|k| u32::try_from(k).unwrap_or(0)),
            top_p: self.number("top-p")?,
            min_p: self.number("min-p")?,
            repeat_penalty: self.number("repeat-penalty")?,
            presence_penalty: self.number("presence-penalty")?,
            frequency_penalty: self.number("frequency-penalty")?,
            seed,
            stop,
            logit_bias: client.logit_bias.clone(),
            constraint: constraint.or_else(|| client.constraint.clone()),
            ignore_eos: if self.said.contains_key("ignore-eos") { self.flag("ignore-eos") } else { client.ignore_eos },
        };
        asked.resolve(client).map_err(|error| Unfit::Invalid(error.to_string()))
    }

    #[expect(clippy::cast_possible_truncation, reason = "options are f32; the nearest one is meant")]
    fn number(&self, key: &str) -> Result<Option<f32>, Unfit> {
        self.read(key, "a number", |value| value.as_f64().map(|wide| wide as f32))
    }

    fn whole(&self, key: &str) -> Result<Option<i64>, Unfit> {
        self.read(key, "a whole number", Value::as_i64)
    }

    fn text(&self, key: &str) -> Result<Option<&str>, Unfit> {
        Ok(self.read(key, "a text", Value::as_str)?.filter(|text| !text.is_empty()))
    }

    fn read<'a, T>(&'a self, key: &str, wanted: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, Unfit> {
        let Some(value) = self.said.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| Unfit::Invalid(format!("`{key}` is {value}, but must be {wanted}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(json: &str, client: &Sampling) -> Sampling {
        let mut options = Options::default();
        options.add(json.as_bytes()).unwrap();
        options.over(client).unwrap()
    }

    #[test]
    fn a_guest_asks_on_top_of_its_client() {
        let client = Sampling { max_tokens: Some(10), temperature: 0.5, seed: Some(3), ..Sampling::default() };
        let both = over(r#"{"temp": 0.9, "n-predict": 100, "top-k": 7, "reverse-prompt": "User:", "n-gpu-layers": 99}"#, &client);
        let expected =
            Sampling { temperature: 0.9, top_k: 7, stop: vec!["User:".into()], max_tokens: Some(10), ..client.clone() };
        assert_eq!(both, expected);
        assert_eq!(over(r#"{"n-predict": 4, "ctx-size": 1}"#, &client).max_tokens, Some(4));
        assert_eq!(over(r#"{"n-predict": -1, "seed": 4294967295, "grammar": ""}"#, &client), client);
    }

    #[test]
    fn later_options_count() {
        let mut options = Options::default();
        options.add(br#"{"temp": 1.0, "embedding": true}"#).unwrap();
        options.add(br#"{"temp": 0.25, "top-p": null}"#).unwrap();
        assert!(options.embedding() && !options.stream_stdout());
        assert!((options.over(&Sampling::default()).unwrap().temperature - 0.25).abs() < 1e-6);
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut options = Options::default();
        for json in ["", "[]", "{", r#"{"temp": "hot"}"#, r#"{"n-predict": 1.5}"#, r#"{"json-schema": 7}"#, r#"{"temp": 99}"#] {
            assert!(matches!(options.add(json.as_bytes()), Err(Unfit::Invalid(_))), "{json}");
        }
        for json in [r#"{"mmproj": "/etc/passwd"}"#, r#"{"image": "a.png"}"#] {
            assert!(matches!(options.add(json.as_bytes()), Err(Unfit::Denied(_))), "{json}");
        }
        assert!(options.add(&vec![b' '; MAX_BYTES + 1]).is_err());
        assert!(options.said.is_empty());
    }
}

use std::borrow::Cow;

/// How the next token is chosen and when generation ends. Values here are valid: see [`SamplingOptions::resolve`].
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Tokens generated at most; `None` generates to the end of the context.
    pub max_tokens: Option<u32>,
    /// 0 takes the likeliest token always; above, logits are divided by it.
    pub temperature: f32,
    /// Only the `top_k` likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Only the likeliest tokens whose probabilities add up to this, in (0, 1].
    pub top_p: f32,
    /// Only tokens at least this likely relative to the likeliest, in [0, 1].
    pub min_p: f32,
    /// Divides (or multiplies, below zero) the logit of tokens seen in the last `penalty_window`; 1 changes nothing.
    pub repeat_penalty: f32,
    /// Subtracted once from the logit of each token already in the window, in [-2, 2].
    pub presence_penalty: f32,
    /// Subtracted per occurrence in the window, in [-2, 2].
    pub frequency_penalty: f32,
    /// How many of the last tokens, prompt included, the penalties look at.
    pub penalty_window: u32,
    /// Same seed, model, prompt and options give the same text; `None` draws a fresh seed.
    pub seed: Option<u64>,
    /// Generation ends before any of these; none of them appears in the text.
    pub stop: Vec<String>,
    /// Added to the logits of single tokens.
    pub logit_bias: Vec<LogitBias>,
    /// What the text must conform to.
    pub constraint: Option<Constraint>,
    /// Keep generating when the model says it is done.
    pub ignore_eos: bool,
}

/// An addition to one token's logit; `-100` forbids it in practice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitBias {
    /// Id in the model's vocabulary.
    pub token: u32,
    /// Added before any other step of sampling, in [-100, 100].
    pub bias: f32,
}

/// A form that the whole text must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// A JSON Schema; the text is one JSON value that validates.
    JsonSchema(String),
    /// A GBNF grammar with a `root` rule, as llama.cpp reads them.
    Gbnf(String),
}

/// Options as a client gave them: everything optional, nothing checked.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "each field is the unchecked form of its namesake in `Sampling`")]
pub struct SamplingOptions {
    pub max_tokens: Option<u32>,
    pub temperature: Option<f32>,
    pub top_k: Option<u32>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repeat_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub seed: Option<u64>,
    pub stop: Vec<String>,
    pub logit_bias: Vec<LogitBias>,
    pub constraint: Option<Constraint>,
    pub ignore_eos: bool,
}

/// An option outside its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("`{option}` is {found}, but must be {allowed}")]
pub struct SamplingError {
    /// The option's name in snake case, as in the protocol.
    pub option: &'static str,
    /// What was given.
    pub found: String,
    /// What may be given.
    pub allowed: Cow<'static, str>,
}

/// Stop strings one request may carry; more is taken for a mistake.
const MAX_STOPS: usize = 16;
/// Bytes in one stop string: what is held back from the stream while it may still match.
const MAX_STOP_BYTES: usize = 256;
/// Entries of `logit_bias`; the limit that the wide-spread clients know.
const MAX_LOGIT_BIAS: usize = 300;
/// Bytes of a grammar or schema.
const MAX_CONSTRAINT_BYTES: usize = 128 * 1024;

// === impl Sampling ===

impl Default for Sampling {
    /// Temperature 0.7 and a mild repeat penalty: what the built-in models read best at.
    fn default() -> Self {
        Self {
            max_tokens: None,
            temperature: 0.7,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.1,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            penalty_window: 64,
            seed: None,
            stop: Vec::new(),
            logit_bias: Vec::new(),
            constraint: None,
            ignore_eos: false,
        }
    }
}

impl Sampling {
    /// The likeliest token always, no penalties: what tests compare by.
    pub fn greedy(max_tokens: u32) -> Self {
        Self { max_tokens: Some(max_tokens), temperature: 0.0, repeat_penalty: 1.0, ..Self::default() }
    }
}

// === impl SamplingOptions ===

impl SamplingOptions {
    /// Checks every option and fills the absent ones from `defaults`.
    ///
    /// # Errors
    /// The first option outside its range.
    pub fn resolve(self, defaults: &Sampling) -> Result<Sampling, SamplingError> {
        let fail = |option, found: String, allowed: &'static str| Err(SamplingError { option, found, allowed: allowed.into() });
        if self.max_tokens == Some(0) {
            return fail("max_tokens", "0".into(), "at least 1 (leave it out to generate to the end of the context)");
        }
        let ranged = |option, value: Option<f32>, default: f32, low: f32, high: f32, allowed: &'static str| match value {
            None => Ok(default),
            Some(v) if v.is_finite() && v >= low && v <= high => Ok(v),
            Some(v) => Err(SamplingError { option, found: v.to_string(), allowed: allowed.into() }),
        };
        let temperature = ranged("temperature", self.temperature, defaults.temperature, 0.0, 10.0, "between 0 and 10")?;
        let top_p = ranged("top_p", self.top_p, defaults.top_p, f32::MIN_POSITIVE, 1.0, "above 0 and at most 1")?;
        let min_p = ranged("min_p", self.min_p, defaults.min_p, 0.0, 1.0, "between 0 and 1")?;
        let repeat = ranged("repeat_penalty", self.repeat_penalty, defaults.repeat_penalty, 0.1, 10.0, "between 0.1 and 10")?;
        let presence =
            ranged("presence_penalty", self.presence_penalty, defaults.presence_penalty, -2.0, 2.0, "between -2 and 2")?;
        let frequency =
            ranged("frequency_penalty", self.frequency_penalty, defaults.frequency_penalty, -2.0, 2.0, "between -2 and 2")?;
        if self.stop.len() > MAX_STOPS {
            return fail("stop", format!("a list of {}", self.stop.len()), "at most 16 strings");
        }
        if let Some(bad) = self.stop.iter().find(|s| s.is_empty() || s.len() > MAX_STOP_BYTES) {
            return fail("stop", format!("a string of {} bytes", bad.len()), "strings of 1 to 256 bytes");
        }
        if self.logit_bias.len() > MAX_LOGIT_BIAS {
            return fail("logit_bias", format!("a list of {}", self.logit_bias.len()), "at most 300 entries");
        }
        if let Some(bad) = self.logit_bias.iter().find(|b| !(b.bias.is_finite() && b.bias.abs() <= 100.0)) {
            return fail("logit_bias", bad.bias.to_string(), "between -100 and 100");
        }
        if let Some(Constraint::JsonSchema(text) | Constraint::Gbnf(text)) = &self.constraint
            && (text.trim().is_empty() || text.len() > MAX_CONSTRAINT_BYTES)
        {
            return fail("constraint", format!("{} bytes", text.len()), "1 byte to 128 KiB");
        }
        Ok(Sampling {
            max_tokens: self.max_tokens.or(defaults.max_tokens),
            temperature,
            top_k: self.top_k.unwrap_or(defaults.top_k),
            top_p,
            min_p,
            repeat_penalty: repeat,
            presence_penalty: presence,
            frequency_penalty: frequency,
            penalty_window: defaults.penalty_window,
            seed: self.seed.or(defaults.seed),
            stop: self.stop,
            logit_bias: self.logit_bias,
            constraint: self.constraint,
            ignore_eos: self.ignore_eos,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_options_take_the_defaults() {
        let defaults = Sampling { temperature: 0.3, seed: Some(9), ..Sampling::default() };
        assert_eq!(SamplingOptions::default().resolve(&defaults), Ok(defaults));
    }

    #[test]
    fn each_option_outside_its_range_is_named() {
        let cases: [(&str, SamplingOptions); 8] = [
            ("max_tokens", SamplingOptions { max_tokens: Some(0), ..Default::default() }),
            ("temperature", SamplingOptions { temperature: Some(-0.1), ..Default::default() }),
            ("temperature", SamplingOptions { temperature: Some(f32::NAN), ..Default::default() }),
            ("top_p", SamplingOptions { top_p: Some(0.0), ..Default::default() }),
            ("min_p", SamplingOptions { min_p: Some(1.5), ..Default::default() }),
            ("stop", SamplingOptions { stop: vec![String::new()], ..Default::default() }),
            (
                "logit_bias",
                SamplingOptions { logit_bias: vec![LogitBias { token: 1, bias: f32::INFINITY }], ..Default::default() },
            ),
            ("constraint", SamplingOptions { constraint: Some(Constraint::Gbnf(" ".into())), ..Default::default() }),
        ];
        for (option, options) in cases {
            assert_eq!(options.resolve(&Sampling::default()).unwrap_err().option, option);
        }
    }

    #[test]
    fn the_largest_max_tokens_is_accepted() {
        let options = SamplingOptions { max_tokens: Some(u32::MAX), ..Default::default() };
        assert_eq!(options.resolve(&Sampling::default()).unwrap().max_tokens, Some(u32::MAX));
    }
}

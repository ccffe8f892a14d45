//! How likely a text is that is there already, and what could follow it.

use llambo_inference::{Distribution, Logged, Measured, TokenId};
use tokio::sync::oneshot;

use crate::{error::LlamaError, ffi::Token, sampler};

/// Sums are kept for so many logits before they are added up in double precision.
const BLOCK: usize = 1024;
const LANES: usize = 16;
/// So far below the largest a logit has no weight.
const LEAST: f32 = -80.0;

/// A measurement under way: one row of logits after the other.
pub(crate) struct Measuring {
    n_given: usize,
    n_top: usize,
    logprobs: Vec<f32>,
    reply: Option<oneshot::Sender<Measured>>,
}

// === impl Measuring ===

impl Measuring {
    /// `n_given` is at least one.
    pub(crate) fn new(n_given: usize, n_top: usize, reply: oneshot::Sender<Measured>) -> Self {
        Self { n_given, n_top, logprobs: Vec::new(), reply: Some(reply) }
    }

    /// The place in the text of the first token whose logits are needed.
    pub(crate) fn first_output(&self) -> usize {
        self.n_given - 1
    }

    /// Takes the next row: `[n_vocab]` f32. What could follow comes with the last one.
    pub(crate) fn take(&mut self, logits: &[f32], tokens: &[Token]) -> Result<Option<Distribution>, LlamaError> {
        let (log_total, mean) = softmax_parts(logits);
        if !log_total.is_finite() {
            return Err(LlamaError::NotNumbers);
        }
        let next = tokens.get(self.n_given + self.logprobs.len());
        if let Some(logit) = next.map(|token| usize::try_from(*token).ok().and_then(|token| logits.get(token))) {
            self.logprobs.push(logit.ok_or(LlamaError::BadBatch("a token is not in the vocabulary"))? - log_total);
            return Ok(None);
        }
        let top = sampler::likeliest(logits, self.n_top).map(|(token, logit)| (token, logit - log_total)).collect();
        Ok(Some(Distribution { top, entropy: (log_total - mean).max(0.0) }))
    }

    /// Hands the result over. Whoever asked may be gone by then.
    pub(crate) fn finish(&mut self, next: Distribution, input_tokens: u32, cached_tokens: u32) {
        let logprobs = std::mem::take(&mut self.logprobs);
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Measured { logprobs, next, input_tokens, cached_tokens });
        }
    }
}

/// Natural logarithm of a token's probability.
pub(crate) fn logprob(logits: &[f32], token: TokenId) -> f32 {
    logits.get(token as usize).map_or(f32::NEG_INFINITY, |logit| logit - softmax_parts(logits).0)
}

/// A token as it was chosen from a row of logits, and the `n_top` likeliest beside it.
pub(crate) fn logged(logits: &[f32], token: TokenId, n_top: usize) -> Logged {
    let total = softmax_parts(logits).0;
    let logprob = logits.get(token as usize).map_or(f32::NEG_INFINITY, |logit| logit - total);
    let top = sampler::likeliest(logits, n_top).map(|(token, logit)| (token, logit - total)).collect();
    Logged { token, logprob, top }
}

/// The logarithm of the sum of `exp` of all logits, and their mean by probability. Not finite when one is no number.
fn softmax_parts(logits: &[f32]) -> (f32, f32) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut total, mut weighted) = (0.0f64, 0.0f64);
    for block in logits.chunks(BLOCK) {
        let (mut totals, mut weights) = ([0.0f32; LANES], [0.0f32; LANES]);
        let mut add = |lane: usize, logit: f32| {
            let below = logit - largest;
            // what is no number stays none, by being the second of the two
            let below = if below < LEAST { LEAST } else { below };
            let weight = exp(below);
            totals[lane] += weight;
            weights[lane] += weight * below;
        };
        let parts = block.chunks_exact(LANES);
        let rest = parts.remainder();
        // lane by lane, without a call or a branch: the compiler makes vector instructions of it
        for part in parts {
            for (lane, logit) in part.iter().enumerate() {
                add(lane, *logit);
            }
        }
        for logit in rest {
            add(0, *logit);
        }
        total += f64::from(totals.iter().sum::<f32>());
        weighted += f64::from(weights.iter().sum::<f32>());
    }
    #[expect(clippy::cast_possible_truncation, reason = "logits are f32, and so is what is told of them")]
    let parts = ((f64::from(largest) + total.ln()) as f32, (f64::from(largest) + weighted / total) as f32);
    parts
}

/// `e` to the power of `x`, which is between [`LEAST`] and 0, to within 2 parts in ten million. The library's is exact, and seven times slower
/// over a vocabulary.
fn exp(x: f32) -> f32 {
    // added and taken away it leaves a whole number, which also stands in the lowest bits of the sum
    const WHOLE: f32 = 12_582_912.0;
    let sum = x * std::f32::consts::LOG2_E + WHOLE;
    let rest = x - (sum - WHOLE) * std::f32::consts::LN_2;
    // Taylor's series: `rest` is within half of ln 2
    let power =
        1.0 + rest * (1.0 + rest * (1.0 / 2.0 + rest * (1.0 / 6.0 + rest * (1.0 / 24.0 + rest * (1.0 / 120.0 + rest / 720.0)))));
    // the whole number goes into the exponent
    f32::from_bits(power.to_bits().wrapping_add(sum.to_bits() << 23))
}

/// What a caller named as a token of this vocabulary.
pub(crate) fn checked(tokens: &[TokenId], n_vocab: u32) -> Result<Vec<Token>, TokenId> {
    tokens.iter().map(|&token| Token::try_from(token).ok().filter(|_| token < n_vocab).ok_or(token)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_and_entropy_are_those_of_the_softmax() {
        let (reply, mut told) = oneshot::channel();
        // two tokens of the same weight, one of half of it, and one that cannot be
        let logits = [1.0, 1.0 - 2f32.ln(), 1.0, f32::NEG_INFINITY];
        let mut measuring = Measuring::new(1, 2, reply);
        let text = [0, 2, 1];
        assert_eq!(measuring.take(&logits, &text).unwrap(), None);
        assert_eq!(measuring.take(&logits, &text).unwrap(), None);
        let next = measuring.take(&logits, &text).unwrap().unwrap();
        measuring.finish(next, 3, 1);
        let measured = told.try_recv().unwrap();
        let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
        assert!(near(measured.logprobs[0], 0.4f32.ln()) && near(measured.logprobs[1], 0.2f32.ln()), "{measured:?}");
        assert_eq!(measured.next.top.iter().map(|t| t.0).collect::<Vec<_>>(), [0, 2]);
        let entropy = -2.0 * 0.4 * 0.4f32.ln() - 0.2 * 0.2f32.ln();
        assert!(near(measured.next.entropy, entropy), "{measured:?}");
    }

    #[test]
    fn exp_is_that_of_the_library_nearly() {
        for i in 0..=64_000u16 {
            let x = -f32::from(i) / 800.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-5, "{x}: {} and {}", exp(x), x.exp());
        }
    }

    #[test]
    fn many_logits_add_up() {
        let logits: Vec<f32> = (0u16..5003).map(|i| f32::from(i % 97) / 7.0 - 5.0).collect();
        let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let mean: f64 = logits.iter().map(|logit| f64::from(*logit) * f64::from(*logit).exp()).sum::<f64>() / total;
        let (log_total, found) = softmax_parts(&logits);
        assert!(
            (f64::from(log_total) - total.ln()).abs() < 1e-5 && (f64::from(found) - mean).abs() < 1e-4,
            "{log_total} {found}"
        );
    }

    #[test]
    fn what_is_no_number_is_an_error_and_no_result() {
        let mut measuring = Measuring::new(1, 2, oneshot::channel().0);
        assert!(matches!(measuring.take(&[f32::NAN; 4], &[0, 1]), Err(LlamaError::NotNumbers)));
        assert!(matches!(measuring.take(&[1.0, f32::NAN, 2.0], &[0, 1]), Err(LlamaError::NotNumbers)));
    }

    #[test]
    fn tokens_outside_of_the_vocabulary_are_named() {
        assert_eq!(checked(&[0, 9], 10), Ok(vec![0, 9]));
        assert_eq!(checked(&[0, 10], 10), Err(10));
        assert_eq!(checked(&[u32::MAX], 10), Err(u32::MAX));
    }
}

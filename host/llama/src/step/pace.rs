//! How many tokens of prompts one step computes while others wait for their next token. Pure.

use std::time::Duration;

/// What a step's prompts may add to the time between two tokens of everybody else, where that is not longer by itself.
pub(crate) const STALL_BOUND: Duration = Duration::from_millis(50);
/// Of a large model: how many times as long as a decode call a prefill call may take.
const DECODE_CALLS: f64 = 2.0;
/// Tokens in one prefill call at most: llama.cpp's physical batch. Larger ones are slower on processors.
pub(crate) const MOST_TOKENS: usize = 512;
/// Below this a call costs about the same, however few it has.
const FEWEST_TOKENS: usize = 32;
/// Weight of the latest call in the running mean.
const LATEST: f64 = 0.25;

/// The measured speed of prefill.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Seconds per token; 0 before the first call.
    token_seconds: f64,
    /// Seconds of a decode call; 0 before the first.
    decode_seconds: f64,
}

impl Pace {
    /// Tokens for the next call. Alone, prompts take all there is; beside sequences that decode, as many as fit into [`STALL_BOUND`].
    pub(crate) fn budget(&self, others_decode: bool) -> usize {
        if !others_decode || self.token_seconds <= 0.0 {
            return MOST_TOKENS;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates, and is clamped")]
        let fitting = (self.bound() / self.token_seconds) as usize;
        fitting.clamp(FEWEST_TOKENS, MOST_TOKENS)
    }

    /// Seconds that prompts may add to a step.
    fn bound(&self) -> f64 {
        STALL_BOUND.as_secs_f64().max(DECODE_CALLS * self.decode_seconds)
    }

    /// A decode call took so long.
    pub(crate) fn learn_decode(&mut self, took: Duration) {
        self.decode_seconds = mean(self.decode_seconds, took.as_secs_f64());
    }

    /// A call of `n` tokens took so long.
    pub(crate) fn learn(&mut self, n: usize, took: Duration) {
        // a call of a few tokens tells about the call, not about the tokens
        if n < FEWEST_TOKENS {
            return;
        }
        self.token_seconds = mean(self.token_seconds, took.as_secs_f64() / n as f64);
    }
}

/// The running mean with one more value; 0 stands for none.
fn mean(mean: f64, latest: f64) -> f64 {
    if mean > 0.0 { mean + LATEST * (latest - mean) } else { latest }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_steady_machine_keeps_within_the_bound(us_per_token in 1u64..1500, sizes in prop::collection::vec(32usize..512, 1..20)) {
            let mut pace = Pace::default();
            for n in sizes {
                pace.learn(n, Duration::from_micros(us_per_token * n as u64));
            }
            let n = pace.budget(true);
            let stall = Duration::from_micros(us_per_token * n as u64);
            prop_assert!((FEWEST_TOKENS..=MOST_TOKENS).contains(&n));
            prop_assert!(stall <= STALL_BOUND + Duration::from_micros(us_per_token), "{:?}", stall);
            prop_assert!(n == MOST_TOKENS || stall * 11 + Duration::from_micros(11 * us_per_token) >= STALL_BOUND * 10, "time is left: {:?}", stall);
            prop_assert_eq!(pace.budget(false), MOST_TOKENS);
        }
    }

    #[test]
    fn a_large_model_computes_whole_prompts_for_twice_the_time_of_its_answers() {
        let mut pace = Pace::default();
        pace.learn(64, Duration::from_millis(64));
        assert_eq!(pace.budget(true), 50);
        pace.learn_decode(Duration::from_millis(60));
        assert_eq!(pace.budget(true), 120);
        // of a small one the bound is enough
        let mut pace = Pace::default();
        pace.learn(100, Duration::from_millis(20));
        pace.learn_decode(Duration::from_millis(5));
        assert_eq!(pace.budget(true), 250);
    }

    #[test]
    fn a_slow_spell_passes() {
        let mut pace = Pace::default();
        pace.learn(100, Duration::from_secs(10));
        assert_eq!(pace.budget(true), FEWEST_TOKENS);
        for _ in 0..40 {
            pace.learn(100, Duration::from_millis(10));
        }
        assert!(pace.budget(true) > 400);
    }
}

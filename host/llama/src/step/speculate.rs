//! Whether guessing ahead pays: with a smaller model's guesses a step takes longer and gives more tokens. Pure.
//!
//! Both ways are timed, for each number of sequences on its own, and the quicker one is taken. The other is tried now and then, since what is
//! being said changes how well it can be guessed; each try that changes nothing doubles the time to the next.

use std::time::Duration;

/// More sequences than this use the processor fully without guesses.
pub const MOST_SEQUENCES: usize = 8;
/// Steps of one try of what is slower.
const TRIED: u32 = 3;
/// Steps between two tries, at first and at most.
const FIRST_PAUSE: u32 = 128;
const LONGEST_PAUSE: u32 = 8192;
/// Weight of the latest step in the running means: of the way that is taken, and of the one that is tried, where what was is long ago.
const LATEST: f64 = 0.1;
const LATEST_TRIED: f64 = 0.5;

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Worth {
    by_sequences: [Measured; MOST_SEQUENCES + 1],
}

#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    /// Seconds per token; 0 before the first step.
    plain: f64,
    guessed: f64,
    /// What the try at hand is compared with.
    is_better: bool,
    /// Steps left of a try, and until the next one.
    trying: u32,
    pausing: u32,
    pause: u32,
}

// === impl Worth ===

impl Worth {
    /// Whether to guess in the next step, of so many sequences.
    pub(crate) fn guess(&mut self, n_sequences: usize) -> bool {
        let Some(measured) = self.by_sequences.get_mut(n_sequences).filter(|_| n_sequences > 0) else { return false };
        measured.plain > 0.0 && measured.next()
    }

    /// What was to be tried could not be yet: the step is not part of the try.
    pub(crate) fn was_no_try(&mut self, n_sequences: usize) {
        if let Some(measured) = self.by_sequences.get_mut(n_sequences).filter(|measured| measured.trying > 0) {
            measured.trying += 1;
        }
    }

    /// A step of `n_sequences` gave `n_tokens` in that time.
    pub(crate) fn learn(&mut self, n_sequences: usize, is_guessed: bool, n_tokens: usize, took: Duration) {
        let Some(measured) = self.by_sequences.get_mut(n_sequences).filter(|_| n_tokens > 0) else { return };
        let seconds = took.as_secs_f64() / n_tokens as f64;
        let weight = if measured.trying > 0 && is_guessed != measured.is_better { LATEST_TRIED } else { LATEST };
        let mean = if is_guessed { &mut measured.guessed } else { &mut measured.plain };
        *mean = if *mean > 0.0 { *mean + weight * (seconds - *mean) } else { seconds };
    }
}

impl Measured {
    fn next(&mut self) -> bool {
        let is_better = self.guessed > 0.0 && self.guessed < self.plain;
        if self.trying > 0 {
            self.trying -= 1;
            if self.trying > 0 {
                return !self.is_better;
            }
            self.pause =
                if is_better == self.is_better { (2 * self.pause).clamp(FIRST_PAUSE, LONGEST_PAUSE) } else { FIRST_PAUSE };
            self.pausing = self.pause;
        }
        if self.pausing == 0 {
            (self.is_better, self.trying) = (is_better, TRIED);
            return !is_better;
        }
        self.pausing -= 1;
        is_better
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_quicker_way_is_taken_nearly_always(plain_us in 100u64..10_000, guessed_us in 100u64..10_000, n in 1usize..=MOST_SEQUENCES) {
            prop_assume!(plain_us.abs_diff(guessed_us) * 20 > plain_us);
            let mut worth = Worth::default();
            let mut n_guessed = 0u32;
            for _ in 0..2000 {
                let is_guessed = worth.guess(n);
                n_guessed += u32::from(is_guessed);
                worth.learn(n, is_guessed, n, Duration::from_micros(n as u64 * if is_guessed { guessed_us } else { plain_us }));
            }
            let right = if guessed_us < plain_us { n_guessed } else { 2000 - n_guessed };
            prop_assert!(right > 1970 && right < 2000, "{} of 2000", right);
        }
    }

    #[test]
    fn what_changes_is_noticed() {
        let mut worth = Worth::default();
        let mut run = |guessed_us: u64| {
            let mut n_guessed = 0;
            for _ in 0..2 * LONGEST_PAUSE {
                let is_guessed = worth.guess(1);
                n_guessed += u32::from(is_guessed);
                worth.learn(1, is_guessed, 1, Duration::from_micros(if is_guessed { guessed_us } else { 1000 }));
            }
            n_guessed
        };
        assert!(run(3000) < 50);
        assert!(run(300) > LONGEST_PAUSE / 2);
        assert!(run(3000) < LONGEST_PAUSE + 50);
    }

    #[test]
    fn a_full_batch_is_never_guessed_for() {
        let mut worth = Worth::default();
        assert!((0..1000).all(|_| !worth.guess(MOST_SEQUENCES + 1) && !worth.guess(0)));
    }
}

//! Example: best of n. Eight answers to one prompt are written at once, and the client gets the one that the model itself finds
//! likeliest, by its mean log-probability for each token.
//!
//! What to take along:
//! - the prompt is computed once: a fork is a list of tokens, and the host finds what is common to all;
//! - all forks are started before the first is read, so that they are decoded in one batch;
//! - how likely an answer is costs one more pass over its tokens, and none over the prompt.

use llambo_guest::{Branch, Engine, Error, Growth, Options, Outcome, Request, emit, export};

/// Answers written for one request. A request may have 16 under way.
const ANSWERS: u64 = 8;

struct BestOf;

impl Engine for BestOf {
    fn handle(request: Request) -> Outcome {
        let options = Options::of(&request)?;
        let prompt = Branch::open(&request.model, &request.prompt)?;
        // a request with a seed can be repeated, and its answers still differ
        let seed: u64 = options.get("seed").and_then(|seed| seed.parse().ok()).unwrap_or(0);

        let mut forks = Vec::new();
        for n in 0..ANSWERS {
            let mut fork = prompt.fork();
            fork.generate(&options.clone().seed(seed.wrapping_add(n)), None)?;
            forks.push(fork);
        }
        let mut best: Option<(f32, Growth)> = None;
        for mut fork in forks {
            let growth = fork.finish()?;
            let score = likelihood(&prompt, &growth.text)?;
            if best.as_ref().is_none_or(|(least, _)| score > *least) {
                best = Some((score, growth));
            }
        }
        let Some((_, answer)) = best else { return Ok(llambo_guest::FinishReason::Stop) };
        emit(&answer.text)?;
        Ok(answer.reason)
    }
}

export!(BestOf);

/// Mean log-probability of the answer's tokens.
fn likelihood(prompt: &Branch, answer: &str) -> Result<f32, Error> {
    let scored = prompt.score(&[answer])?;
    let logprobs = scored.first().map_or(&[][..], |scored| &scored.logprobs);
    // an empty answer is the least anybody wants
    if logprobs.is_empty() {
        return Ok(f32::NEG_INFINITY);
    }
    let n = u16::try_from(logprobs.len()).unwrap_or(u16::MAX);
    Ok(logprobs.iter().sum::<f32>() / f32::from(n))
}

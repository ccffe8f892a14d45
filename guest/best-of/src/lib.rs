//! Example: best of n. Eight answers to one prompt are written at once, and the client gets the one that the model itself finds
//! likeliest, by its mean log-probability for each token.
//!
//! What to take along:
//! - the prompt is computed once: a fork is a list of tokens, and the host finds what is common to all;
//! - all forks are started before the first is read, so that they are decoded in one batch;
//! - `logprobs` tells how likely each token was when it was chosen; `Branch::score` would tell it of a text that somebody else wrote.

use llambo_guest::{Branch, Engine, Growth, Options, Outcome, Request, emit, export};

/// Answers written for one request. A request may have 16 under way.
const ANSWERS: u64 = 8;

struct BestOf;

impl Engine for BestOf {
    fn handle(request: Request) -> Outcome {
        let options = Options::of(&request)?.logprobs(true);
        let prompt = Branch::open(&request.model, &request.prompt)?;
        // a request with a seed can be repeated, and its answers still differ
        let seed: u64 = options.get("seed").and_then(|seed| seed.parse().ok()).unwrap_or(0);

        let mut forks = Vec::new();
        for n in 0..ANSWERS {
            let mut fork = prompt.fork();
            fork.generate(&options.clone().seed(seed.wrapping_add(n)), None)?;
            forks.push(fork);
        }
        let mut answers = Vec::new();
        for mut fork in forks {
            answers.push(fork.finish()?);
        }
        let likelihoods: Vec<f32> = answers.iter().map(|answer: &Growth| mean(&answer.logprobs)).collect();
        let best = (0..answers.len()).max_by(|a, b| likelihoods[*a].total_cmp(&likelihoods[*b])).unwrap_or(0);
        emit(&answers[best].text)?;
        Ok(answers[best].reason)
    }
}

export!(BestOf);

/// Mean log-probability of an answer's tokens.
fn mean(logprobs: &[f32]) -> f32 {
    // an empty answer is the least anybody wants
    if logprobs.is_empty() {
        return f32::NEG_INFINITY;
    }
    let n = u16::try_from(logprobs.len()).unwrap_or(u16::MAX);
    logprobs.iter().sum::<f32>() / f32::from(n)
}

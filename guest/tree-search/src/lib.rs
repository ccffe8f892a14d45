//! Example: a search over sentences. From the prompt the model tries a few next sentences at once; the likeliest texts are kept and gone on
//! with, the others are forgotten. After some rounds the best text is the answer: a beam search whose steps are sentences.
//!
//! What to take along:
//! - a branch remembers where it came from: forking it again, or cutting it with `truncate`, goes back without computing anything;
//! - several branches of several parents are decoded in one batch;
//! - `score` sums up what the model thinks of a whole continuation, whoever wrote it.

use llambo_guest::{Branch, Engine, Error, FinishReason, Options, Outcome, Request, emit, export};

/// Texts that are kept after each round.
const KEPT: usize = 2;
/// Sentences tried from each of them.
const TRIED: usize = 4;
const ROUNDS: usize = 3;
/// A sentence ends here at the latest.
const SENTENCE_TOKENS: u32 = 32;

struct TreeSearch;

/// A text that may become the answer.
struct Candidate {
    branch: Branch,
    text: String,
    /// Sum of the log-probabilities of its tokens, and their number.
    sum: f32,
    n_tokens: u16,
}

impl Engine for TreeSearch {
    fn handle(request: Request) -> Outcome {
        let options = Options::of(&request)?.stop([". ", "\n"]).max_tokens(SENTENCE_TOKENS);
        let seed: u64 = options.get("seed").and_then(|seed| seed.parse().ok()).unwrap_or(0);
        let root = Branch::open(&request.model, &request.prompt)?;
        let mut kept = vec![Candidate { branch: root, text: String::new(), sum: 0.0, n_tokens: 0 }];

        let mut n_tries = 0;
        for _ in 0..ROUNDS {
            let mut tries = Vec::new();
            for (parent, candidate) in kept.iter().enumerate() {
                for _ in 0..TRIED {
                    let mut fork = candidate.branch.fork();
                    fork.generate(&options.clone().seed(seed.wrapping_add(n_tries)), None)?;
                    tries.push((parent, fork));
                    n_tries += 1;
                }
            }
            let mut grown: Vec<Candidate> = Vec::new();
            for (parent, fork) in tries {
                let sentence = sentence(&kept[parent], fork)?;
                grown.extend(sentence.filter(|new| grown.iter().all(|old| old.text != new.text)));
            }
            if grown.is_empty() {
                break;
            }
            grown.sort_by(|a, b| b.mean().total_cmp(&a.mean()));
            grown.truncate(KEPT);
            kept = grown;
        }
        if let Some(best) = kept.first() {
            emit(&best.text)?;
        }
        Ok(FinishReason::Stop)
    }
}

export!(TreeSearch);

/// What became of one try: its parent's text and one more sentence. `None` when it said nothing.
fn sentence(parent: &Candidate, mut fork: Branch) -> Result<Option<Candidate>, Error> {
    let growth = fork.finish()?;
    let text = growth.text.trim_end();
    if text.is_empty() {
        return Ok(None);
    }
    // the stop string was cut from the text; it is put back as it reads
    let text = format!("{text}.");
    let scored = parent.branch.score(&[&text])?;
    let logprobs = scored.first().map_or(&[][..], |scored| &scored.logprobs);
    let mut branch = parent.branch.fork();
    branch.append(&text)?;
    Ok(Some(Candidate {
        branch,
        text: format!("{}{text}", parent.text),
        sum: parent.sum + logprobs.iter().sum::<f32>(),
        n_tokens: parent.n_tokens.saturating_add(u16::try_from(logprobs.len()).unwrap_or(u16::MAX)),
    }))
}

// === impl Candidate ===

impl Candidate {
    /// Mean log-probability of its tokens. There is one that has any.
    fn mean(&self) -> f32 {
        self.sum / f32::from(self.n_tokens.max(1))
    }
}

//! Example: a choice between given answers, made by their probabilities and not by parsing what a model writes. The client gives the
//! choices in the prompt's last line, between bars:
//!
//! ```text
//! A crab that everybody in this language knows is called
//! | Ferris | Bob | Alice |
//! ```
//!
//! and gets the likeliest with the probability of each, as JSON: `{"choice":"Ferris","probabilities":{"Ferris":0.91,...}}`.
//!
//! What to take along: nothing is generated, so nothing can be off the list; the choices are measured beside each other, and
//! what stands before them is computed once.

use std::fmt::Write;

use llambo_guest::{Branch, Engine, Failure, FinishReason, Outcome, Prompt, Request, Scored, emit, export};

struct Chooser;

impl Engine for Chooser {
    fn handle(request: Request) -> Outcome {
        let Prompt::Text(prompt) = &request.prompt else {
            return Err(Failure::InvalidRequest("give a prompt and not a conversation".into()));
        };
        let (question, line) = prompt.trim_end().rsplit_once('\n').unwrap_or(("", prompt));
        let choices: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).filter(|c| !c.is_empty()).collect();
        if question.trim().is_empty() || choices.len() < 2 {
            let what = "end the prompt with a line of choices between bars: | yes | no |";
            return Err(Failure::InvalidRequest(what.into()));
        }
        let question = Branch::open(&request.model, question.trim_end())?;
        let answers: Vec<String> = choices.iter().map(|choice| format!(" {choice}")).collect();
        let probabilities = shares(&question.score(&answers)?);

        let best = probabilities.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(n, _)| n);
        let mut json = format!("{{\"choice\":{},\"probabilities\":{{", quoted(choices[best]));
        for (n, (choice, probability)) in choices.iter().zip(&probabilities).enumerate() {
            let comma = if n == 0 { "" } else { "," };
            // writing to a string does not fail
            let _ = write!(json, "{comma}{}:{probability:.4}", quoted(choice));
        }
        json.push_str("}}");
        emit(json)?;
        Ok(FinishReason::Stop)
    }
}

export!(Chooser);

/// The probability of each, given that it is one of them.
fn shares(scored: &[Scored]) -> Vec<f32> {
    let sums: Vec<f32> = scored.iter().map(|one| one.logprobs.iter().sum()).collect();
    let largest = sums.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = sums.iter().map(|sum| (sum - largest).exp()).collect();
    let total: f32 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

/// A JSON string. Choices come from one line, so there is little to escape.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

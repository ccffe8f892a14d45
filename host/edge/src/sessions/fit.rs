//! How much of a conversation is asked, so that prompt and answer fit the model and the budget.

use std::sync::Arc;

use llambo_inference::{InferenceEngine, InferenceError, Message, Prompt};
use llambo_proto::status::{self, Failure};
use llambo_sessions::{SessionError, Turn};
use tokio::task::spawn_blocking;
use tonic::Status;

use super::refused;

/// What a template puts around a message at most, in tokens. Prompts that fit even so are not counted.
const AROUND_MESSAGE: usize = 32;
/// A conversation that has to forget something forgets until so much of the room is free, in parts of `PARTS`: it would have to forget again with
/// the next question otherwise, and nothing that was computed for it before could be used.
const FILLED_PARTS: u64 = 3;
const PARTS: u64 = 4;

/// What is asked.
pub(super) struct Fit {
    pub(super) n_forget: usize,
    pub(super) messages: Vec<Message>,
    pub(super) max_tokens: Option<u32>,
    /// Tokens of the prompt, where they had to be counted.
    pub(super) n_prompt: Option<u32>,
}

/// Chooses what a turn forgets, and how long its answer may become.
pub(super) async fn fit(turn: &Turn, engine: &Arc<dyn InferenceEngine>, max_tokens: Option<u32>) -> Result<Fit, Status> {
    let n_context = u64::from(engine.info().n_context);
    let choices = turn.choices();
    // whoever forgets makes room for a whole answer; whoever does not is refused when there is none at all
    let answer = if choices.len() > 1 { max_tokens.map_or(u64::MAX, u64::from).min(n_context / PARTS) } else { 1 };
    let room = n_context.saturating_sub(answer);

    let all = choices.first().copied().unwrap_or(0);
    let messages = turn.prompt(all);
    let is_counted = turn.session().token_budget.is_some() || !fits_surely(&messages, room);
    let mut fit = Fit { n_forget: all, messages, max_tokens, n_prompt: None };
    if is_counted {
        let n_prompt = count(engine, &fit.messages).await?;
        fit.n_prompt = Some(narrowed(n_prompt));
        if n_prompt > room {
            fit = forgetting(turn, engine, &choices, room).await?.ok_or_else(|| too_long(engine, n_prompt))?;
            fit.max_tokens = max_tokens;
        }
    }
    within_budget(turn, fit)
}

/// The smallest choice that leaves some room; `None` if the last one does not fit either.
async fn forgetting(turn: &Turn, engine: &Arc<dyn InferenceEngine>, choices: &[usize], room: u64) -> Result<Option<Fit>, Status> {
    let filled = room / PARTS * FILLED_PARTS;
    let (mut low, mut high) = (0, choices.len().saturating_sub(1));
    let mut best = None;
    while low <= high {
        let middle = usize::midpoint(low, high);
        let messages = turn.prompt(choices[middle]);
        let n_prompt = count(engine, &messages).await?;
        let is_last = middle + 1 == choices.len();
        if n_prompt <= filled || (is_last && n_prompt <= room) {
            best = Some(Fit { n_forget: choices[middle], messages, max_tokens: None, n_prompt: Some(narrowed(n_prompt)) });
            let Some(before) = middle.checked_sub(1) else { break };
            high = before;
        } else {
            low = middle + 1;
        }
    }
    Ok(best)
}

/// A budget is kept: what an answer may have is what the prompt leaves of it.
fn within_budget(turn: &Turn, mut fit: Fit) -> Result<Fit, Status> {
    let session = turn.session();
    let (Some(budget), Some(n_prompt)) = (session.token_budget, fit.n_prompt) else { return Ok(fit) };
    let spent = session.spent.tokens();
    let with_prompt = spent.saturating_add(n_prompt.into());
    if with_prompt >= budget {
        return Err(refused(&SessionError::BudgetExhausted { budget, spent, n_prompt: n_prompt.into() }));
    }
    let left = narrowed(budget - with_prompt);
    fit.max_tokens = Some(fit.max_tokens.map_or(left, |max| max.min(left)));
    Ok(fit)
}

/// No token has less than a byte.
fn fits_surely(messages: &[Message], room: u64) -> bool {
    let n_bytes: usize = messages.iter().map(|message| message.content.len()).sum();
    (n_bytes + AROUND_MESSAGE * (messages.len() + 1)) as u64 <= room
}

/// Tokens of a prompt, counted on a thread that may take its time.
async fn count(engine: &Arc<dyn InferenceEngine>, messages: &[Message]) -> Result<u64, Status> {
    let (engine, prompt) = (Arc::clone(engine), Prompt::Chat(messages.to_vec()));
    let tokens = spawn_blocking(move || engine.tokens(&prompt)).await;
    let tokens = tokens.map_err(|e| InferenceError::Backend(format!("the prompt could not be counted: {e}"))).flatten();
    match tokens {
        Ok(tokens) => Ok(tokens.len() as u64),
        // some engines say so themselves
        Err(InferenceError::PromptTooLong { n_prompt, .. }) => Ok(n_prompt),
        Err(error) => Err(status::status(&error)),
    }
}

fn too_long(engine: &Arc<dyn InferenceEngine>, n_prompt: u64) -> Status {
    let info = engine.info();
    let error = InferenceError::PromptTooLong { model: info.name.clone(), n_prompt, n_context: info.n_context };
    let what = format!("{error}, fork the session at an earlier message, or create it with `when_full: drop_oldest`");
    let failure = Failure::new(error.reason(), what).with("model", &info.name).with("n_prompt", n_prompt);
    failure.with("n_context", info.n_context).into_status()
}

fn narrowed(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

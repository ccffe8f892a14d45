//! Example: an agent that thinks before it speaks. It asks the model twice for one request, first for a short outline that
//! the client never sees, then for the answer with the outline in its prompt. Only the answer is streamed.
//!
//! Both calls run in the host's one batch beside everybody else's; between them no network is crossed. What to take along:
//! - the client's options are meant for the answer: the draft gets its own, and only the seed is taken over, so that a
//!   request with a seed can still be repeated;
//! - what the guest does itself (here: joining texts) costs microseconds and no thread while the model is waited for;
//! - `?` is enough for errors: the host knows the cause of a failed inference and tells the client.

use llambo_guest::{Engine, Failure, Message, Model, Options, Outcome, Prompt, Request, Role, emit, export};

/// An outline longer than this costs the client more time than it saves the answer.
const DRAFT_TOKENS: u32 = 48;

struct DraftAndRefine;

impl Engine for DraftAndRefine {
    fn handle(request: Request) -> Outcome {
        let model = Model::open(&request.model)?;
        let options = Options::of(&request)?;

        let mut draft_options = Options::new().max_tokens(DRAFT_TOKENS).temperature(0.3);
        if let Some(seed) = options.get("seed") {
            draft_options = draft_options.set("seed", seed);
        }
        let question = asking(&request.prompt, "Answer with a short outline only: the points to make, in order.")?;
        let draft = model.complete(&question, &draft_options)?;

        let question = asking(&request.prompt, &format!("Follow this outline:\n{}", draft.text.trim()))?;
        let mut answer = model.generate(&question, &options)?;
        for piece in &mut answer {
            emit(piece?)?;
        }
        Ok(answer.finish()?.reason)
    }
}

export!(DraftAndRefine);

/// The client's prompt with one more instruction. In a chat it is put to the last thing that was said, since not every
/// chat template takes two messages of one role in a row.
fn asking(prompt: &Prompt, instruction: &str) -> Result<Prompt, Failure> {
    match prompt {
        Prompt::Text(text) => Ok(Prompt::Text(format!("{instruction}\n\n{text}"))),
        Prompt::Chat(messages) => {
            let mut messages = messages.clone();
            match messages.last_mut() {
                None => return Err(Failure::InvalidRequest("the conversation has no messages".into())),
                Some(last) if last.role == Role::User => last.content = format!("{}\n\n{instruction}", last.content),
                Some(_) => messages.push(Message::user(instruction)),
            }
            Ok(Prompt::Chat(messages))
        }
    }
}

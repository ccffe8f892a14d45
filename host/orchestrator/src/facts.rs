//! What policies are told of a request.

use std::sync::Arc;

use llambo_inference::{GenerateRequest, Prompt};
use llambo_strategy::RequestFacts;

/// What is known of a request as it comes in, `now_ms` after the start.
pub(crate) fn of(request: &GenerateRequest, now_ms: u64, with_prompt: bool) -> RequestFacts {
    let left = request.deadline.map(|at| at.saturating_duration_since(llambo_inference::Instant::now()));
    RequestFacts {
        id: request.id.clone(),
        model: request.model.clone(),
        node_type: request.node_type.clone(),
        tenant: request.share.tenant.clone(),
        tier: request.routing.tier,
        labels: Arc::clone(&request.routing.labels),
        n_prompt_bytes: u32::try_from(request.prompt.n_bytes()).unwrap_or(u32::MAX),
        n_messages: u32::try_from(request.prompt.n_messages()).unwrap_or(u32::MAX),
        max_tokens: request.sampling.max_tokens,
        constrained: request.sampling.constraint.is_some(),
        deadline_ms: left.map(|left| u32::try_from(left.as_millis()).unwrap_or(u32::MAX)),
        n_failed: 0,
        now_ms,
        prompt: with_prompt.then(|| whole(&request.prompt).into()),
        explain: request.routing.explain,
    }
}

/// The same request at a later time.
pub(crate) fn at(facts: &RequestFacts, now_ms: u64) -> RequestFacts {
    let passed = u32::try_from(now_ms.saturating_sub(facts.now_ms)).unwrap_or(u32::MAX);
    let deadline_ms = facts.deadline_ms.map(|left| left.saturating_sub(passed));
    RequestFacts { now_ms, deadline_ms, ..facts.clone() }
}

/// Everything it says.
fn whole(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Chat(messages) => messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n"),
    }
}

/// What says how demanding a request is.
pub(crate) fn to_judge(request: &GenerateRequest) -> llambo_strategy::ToJudge<'_> {
    let system = match &request.prompt {
        Prompt::Text(_) => None,
        Prompt::Chat(messages) => messages.iter().find(|message| message.role == llambo_inference::Role::System),
    };
    llambo_strategy::ToJudge {
        text: wanted(&request.prompt),
        n_bytes: request.prompt.n_bytes(),
        n_messages: request.prompt.n_messages(),
        is_constrained: request.sampling.constraint.is_some(),
        instructions: system.map_or("", |message| message.content.as_str()),
    }
}

/// The text that says what is wanted: of a chat, what the user said last.
pub(crate) fn wanted(prompt: &Prompt) -> &str {
    match prompt {
        Prompt::Text(text) => text,
        Prompt::Chat(messages) => {
            let users = messages.iter().rev().find(|message| message.role == llambo_inference::Role::User);
            users.or(messages.last()).map_or("", |message| message.content.as_str())
        }
    }
}

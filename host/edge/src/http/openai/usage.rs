//! What a request cost.

use llambo_inference::Usage;
use serde::Serialize;
use utoipa::ToSchema;

/// Tokens read and written for all answers to one request.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub(super) struct UsageObject {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
}

#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
struct PromptDetails {
    /// Tokens that did not have to be computed, because an earlier request began alike.
    cached_tokens: u64,
}

impl UsageObject {
    /// Adds one of `n` answers to a prompt. The prompt counts once, with the first of them.
    pub(super) fn add(&mut self, index: usize, n: usize, usage: Usage) {
        if index.is_multiple_of(n.max(1)) {
            self.prompt_tokens += u64::from(usage.input_tokens);
            self.prompt_tokens_details.cached_tokens += u64::from(usage.cached_tokens);
        }
        self.completion_tokens += u64::from(usage.output_tokens);
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }
}

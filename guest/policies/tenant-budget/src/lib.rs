//! Example admission: tokens per minute for each tenant.
//!
//! `--parameters "alice=100000, bob=0, *=20000"` names the budgets; `*` is for everybody else, who has none to keep to without it. What a
//! tenant has used over the last minute, prompts and answers, decides:
//!
//! - below its budget, it is let in;
//! - from there, it takes what others leave: it stays in the queue for as long as there is anybody within a budget;
//! - from twice its budget, it is refused, and told when enough of its minute will be over.
//!
//! The middle step is why nobody has to choose budgets with care: on an idle host a tenant may use twice as much, and nobody notices.
//! Tokens count when a request ends. Who starts many long requests at once thus gets over the budget once, and pays in the minute that follows.
//!
//! Parameters that make no sense trap, with a line in the log: `llamboctl policy load` calls a policy once before it accepts
//! it, and so says that they are wrong.

#[allow(unsafe_code, missing_docs, clippy::pedantic, reason = "generated; `wit/policy.wit` holds the documentation")]
mod bindings {
    use super::TenantBudget;

    wit_bindgen::generate!({ path: "../../../wit", world: "llambo:policy/admission@0.1.0" });
    export!(TenantBudget);
}

use bindings::exports::llambo::policy::admitting::{Guest, Load, Rejection, Request, Usage, Verdict};
use bindings::llambo::policy::host;

/// Usage is counted over so many milliseconds.
const WINDOW_MS: u64 = 60_000;

struct TenantBudget;

impl Guest for TenantBudget {
    fn decide(request: Request, _load: Load, usage: Usage) -> Verdict {
        let Some(budget) = budget_of(&request.tenant, &host::parameters()) else {
            return Verdict::Admit;
        };
        let limit = budget.saturating_mul(2);
        let used = usage.tokens_last_minute;
        if used < budget {
            return Verdict::Admit;
        }
        if used < limit {
            return Verdict::Queue;
        }
        Verdict::Reject(Rejection {
            retry_after_ms: retry_after_ms(used, limit),
            reason: format!("`{}` used {used} tokens within a minute; its budget is {budget}", request.tenant),
        })
    }
}

/// What `parameters` grant `tenant`, in tokens per minute. None without a limit.
fn budget_of(tenant: &str, parameters: &str) -> Option<u64> {
    let mut own = None;
    let mut others = None;
    // all of them at each call, so that a mistake in any shows at once
    for entry in parameters.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let parsed = entry.split_once('=').and_then(|(name, tokens)| Some((name.trim(), tokens.trim().parse().ok()?)));
        let Some((name, tokens)) = parsed else {
            host::log(&format!("`{entry}` is no budget: `tenant=tokens-per-minute` is, or `*=tokens-per-minute`"));
            panic!();
        };
        if name == tenant {
            own = Some(tokens);
        } else if name == "*" {
            others = Some(tokens);
        }
    }
    own.or(others)
}

/// When the usage will be below `limit` if it was spread evenly over the minute: what is too much is then the oldest part of it.
fn retry_after_ms(used: u64, limit: u64) -> u32 {
    let too_much = used.saturating_sub(limit).saturating_add(1);
    let wait = too_much.saturating_mul(WINDOW_MS).div_ceil(used.max(1));
    // counted in steps of a second
    u32::try_from(wait.clamp(1_000, WINDOW_MS)).unwrap_or(u32::MAX)
}

//! The interfaces of `wit/policy.wit`, one file each, as answers to the questions of `llambo_strategy`.

mod admitting;
mod balancing;
mod classifying;
mod fusing;
mod hooking;
mod scaling;
mod tracking;

use llambo_strategy::{PolicyKind, RequestFacts};

pub(crate) use admitting::Admission;
pub(crate) use balancing::Balancer;
pub(crate) use classifying::Classifier;
pub(crate) use fusing::Fusion;
pub(crate) use hooking::{Hook, HookModule, Said};
pub(crate) use scaling::Scaler;
pub(crate) use tracking::Tracker;

use crate::{bindings::llambo::policy::types::Request, runner::World, state::labels};

fn request(facts: &RequestFacts) -> Request {
    Request {
        id: facts.id.to_string(),
        model: facts.model.to_string(),
        node_type: facts.node_type.as_ref().map(ToString::to_string),
        tenant: facts.tenant.to_string(),
        tier: facts.tier,
        labels: labels(&facts.labels),
        prompt_bytes: facts.n_prompt_bytes,
        n_messages: facts.n_messages,
        max_tokens: facts.max_tokens,
        constrained: facts.constrained,
        deadline_ms: facts.deadline_ms,
        n_failed: facts.n_failed,
        now_ms: facts.now_ms,
        prompt: facts.prompt.as_ref().map(ToString::to_string),
        explain: facts.explain,
    }
}

/// What a policy of a kind may export.
pub(crate) fn interfaces(kind: PolicyKind) -> &'static [&'static str] {
    match kind {
        PolicyKind::Balancer => &[Balancer::INTERFACE, Tracker::INTERFACE],
        PolicyKind::Admission => &[Admission::INTERFACE],
        PolicyKind::Classifier => &[Classifier::INTERFACE],
        PolicyKind::Scaler => &[Scaler::INTERFACE],
        PolicyKind::Fusion => &[Fusion::INTERFACE],
        PolicyKind::TokenHook => &[HookModule::INTERFACE],
    }
}

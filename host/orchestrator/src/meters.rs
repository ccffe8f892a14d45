//! Metrics of requests, looked up once and not for each request: a look costs the half of a microsecond.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use llambo_inference::{FinishReason, ModelName};
use metrics::{Counter, Gauge, Histogram, SharedString, counter, gauge, histogram};

use crate::record::Outcome;

/// Models that are remembered. More names than that are made up by clients.
const MAX_MODELS: usize = 1024;
/// Why answers end, as a rule.
const REASONS: [&str; 4] = [FinishReason::Stop.as_str(), FinishReason::Length.as_str(), "failed", "cancelled"];

/// Those of one model.
pub(crate) struct Meters {
    model: SharedString,
    pub(crate) pending: Gauge,
    pub(crate) queue_wait: Histogram,
    pub(crate) ttft: Histogram,
    pub(crate) token_interval: Histogram,
    pub(crate) request: Histogram,
    ended: [(&'static str, Counter); 4],
}

/// Those of all models, and those that belong to none.
#[derive(Default)]
pub(crate) struct AllMeters {
    models: RwLock<HashMap<ModelName, Arc<Meters>>>,
    choice: OnceLock<Histogram>,
    /// By outcome. One appears when it first counts, as in any registry.
    requests: [OnceLock<Counter>; Outcome::COUNT],
}

impl Meters {
    pub(crate) fn of(model: &ModelName) -> Self {
        let model = SharedString::from(model.to_string());
        Self {
            pending: gauge!("llambo_orchestrator_pending_requests", "model" => model.clone()),
            queue_wait: histogram!("llambo_orchestrator_queue_wait_seconds", "model" => model.clone()),
            ttft: histogram!("llambo_orchestrator_ttft_seconds", "model" => model.clone()),
            token_interval: histogram!("llambo_orchestrator_token_interval_seconds", "model" => model.clone()),
            request: histogram!("llambo_orchestrator_request_seconds", "model" => model.clone()),
            ended: REASONS.map(|reason| (reason, ended(&model, reason))),
            model,
        }
    }

    /// An answer ended, and why.
    pub(crate) fn ended(&self, reason: &'static str) {
        match self.ended.iter().find(|(known, _)| *known == reason) {
            Some((_, counter)) => counter.increment(1),
            None => ended(&self.model, reason).increment(1),
        }
    }
}

fn ended(model: &SharedString, reason: &'static str) -> Counter {
    counter!("llambo_orchestrator_ended_total", "model" => model.clone(), "reason" => reason)
}

impl AllMeters {
    pub(crate) fn of(&self, model: &ModelName) -> Arc<Meters> {
        let known = self.models.read().unwrap_or_else(PoisonError::into_inner).get(model).cloned();
        known.unwrap_or_else(|| {
            let meters = Arc::new(Meters::of(model));
            let mut all = self.models.write().unwrap_or_else(PoisonError::into_inner);
            if all.len() < MAX_MODELS {
                all.insert(model.clone(), Arc::clone(&meters));
            }
            meters
        })
    }

    /// How long it took to choose a node.
    pub(crate) fn chosen(&self, took: Duration) {
        self.choice.get_or_init(|| histogram!("llambo_orchestrator_choice_seconds")).record(took);
    }

    /// A request has ended.
    pub(crate) fn requested(&self, outcome: Outcome) {
        let found = || counter!("llambo_orchestrator_requests_total", "outcome" => outcome.as_str());
        self.requests[outcome as usize].get_or_init(found).increment(1);
    }
}

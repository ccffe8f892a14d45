//! A policy that was loaded, whatever it decides: who it is, how it does, and the code that runs.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use llambo_inference::EventKind;
use llambo_strategy::{Fallback, PolicyKind, PolicyRef, PolicyStatus, Role, Source};
use metrics::{Counter, Histogram};

use crate::{
    instance::Failure,
    state::Terms,
    stats::{Consequence, Stats},
};

/// `R` runs it.
pub(crate) struct Installed<R: ?Sized> {
    pub(crate) about: About,
    pub(crate) stats: Stats,
    pub(crate) runner: Box<R>,
    meters: Meters,
}

/// Code that runs in instances.
pub(crate) trait Instances {
    /// Instances now, and the memory of the largest so far.
    fn instances(&self) -> (u32, u64);
}

/// What is known of a policy from when it was loaded.
pub(crate) struct About {
    pub(crate) kind: PolicyKind,
    pub(crate) terms: Arc<Terms>,
    pub(crate) size_bytes: u64,
    pub(crate) loaded_at: SystemTime,
    pub(crate) source: Source,
    pub(crate) interface: &'static str,
    /// In each role that it may have.
    pub(crate) refs: [Arc<PolicyRef>; 4],
}

/// Metrics by handle: to look one up for each decision would cost more than the decision.
struct Meters {
    calls: Counter,
    seconds: Histogram,
    fallbacks: [Counter; Fallback::ALL.len()],
}

impl About {
    pub(crate) fn refs(kind: PolicyKind, name: &Arc<str>, sha256: &Arc<str>, generation: u32) -> [Arc<PolicyRef>; 4] {
        [Role::Live, Role::Canary, Role::Shadow, Role::Kept]
            .map(|role| Arc::new(PolicyRef { kind, name: Arc::clone(name), sha256: Arc::clone(sha256), generation, role }))
    }
}

impl<R: ?Sized> Installed<R> {
    pub(crate) fn new(about: About, runner: Box<R>) -> Self {
        let kind = about.kind.as_str();
        let fallback =
            |cause: Fallback| metrics::counter!("llambo_policy_fallbacks_total", "kind" => kind, "cause" => cause.as_str());
        let meters = Meters {
            calls: metrics::counter!("llambo_policy_calls_total", "kind" => kind),
            seconds: metrics::histogram!("llambo_policy_call_seconds", "kind" => kind),
            fallbacks: Fallback::ALL.map(fallback),
        };
        Self { about, stats: Stats::new(), runner, meters }
    }

    pub(crate) fn by(&self, role: Role) -> &Arc<PolicyRef> {
        &self.about.refs[role as usize]
    }

    /// Runs one call and counts it. A failure is told and may suspend it.
    pub(crate) fn watch<T>(&self, role: Role, call: impl FnOnce(&R) -> Result<T, Failure>) -> Result<T, Fallback> {
        if self.stats.is_suspended() {
            self.fell_back(Fallback::Suspended);
            return Err(Fallback::Suspended);
        }
        let began = Instant::now();
        let called = call(&self.runner);
        let took = began.elapsed();
        self.stats.called(took);
        self.meters.calls.increment(1);
        self.meters.seconds.record(took);
        called.map_err(|failure| self.failed(role, &failure, took))
    }

    /// It cannot be used for this decision.
    pub(crate) fn failed(&self, role: Role, failure: &Failure, took: Duration) -> Fallback {
        self.failed_in(1, role, failure, took)
    }

    /// The same, after so many calls that came to nothing.
    pub(crate) fn failed_in(&self, n_calls: usize, role: Role, failure: &Failure, took: Duration) -> Fallback {
        self.fell_back(failure.cause);
        let terms = &self.about.terms;
        let (policy, kind, cause) = (&*terms.name, self.about.kind.as_str(), failure.cause.as_str());
        let (role, took_us) = (role.as_str(), took.as_micros());
        match self.stats.failed_in(n_calls, &failure.detail) {
            Consequence::Nothing => {}
            Consequence::Tell => {
                tracing::warn!(
                    policy,
                    kind,
                    role,
                    cause,
                    took_us,
                    error = failure.detail,
                    "a policy failed, what is built in decides"
                );
            }
            Consequence::Suspend => {
                tracing::error!(policy, kind, role, cause, error = failure.detail, "a policy failed too often and is suspended");
                let why = format!("{role} {kind}; it failed too often, last by {cause}: {}", failure.detail);
                terms.told.tell(EventKind::PolicySuspended, policy, why);
            }
        }
        failure.cause
    }

    pub(crate) fn fell_back(&self, cause: Fallback) {
        self.stats.fell_back(cause);
        self.meters.fallbacks[cause as usize].increment(1);
    }
}

impl<R: Instances + ?Sized> Installed<R> {
    pub(crate) fn status(&self, role: Role, share: Option<f64>) -> PolicyStatus {
        let (instances, instance_bytes) = self.runner.instances();
        let (About { kind, terms, size_bytes, loaded_at, source, interface, .. }, stats) = (&self.about, &self.stats);
        let (call_p50_ns, call_p99_ns) = stats.times();
        PolicyStatus {
            kind: *kind,
            policy: Arc::clone(self.by(role)),
            suspended: stats.suspended_because(),
            size_bytes: *size_bytes,
            loaded_at: *loaded_at,
            source: *source,
            interface,
            share,
            calls: stats.calls(),
            fallbacks: stats.fallbacks(),
            call_p50_ns,
            call_p99_ns,
            instances,
            instance_bytes,
            compared: stats.compared.load(Relaxed),
            agreed: stats.agreed.load(Relaxed),
            missed: stats.missed.load(Relaxed),
            time: terms.time,
            memory_bytes: terms.memory_bytes as u64,
        }
    }
}

//! The strategy as operators see and switch it.

use std::sync::Arc;

use llambo_inference::{ClusterEvent, EventKind};
use llambo_strategy::{Balancer, by_name};

use crate::{cluster::Cluster, error::ClusterError};

/// What [`Cluster::set_balancer`] changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalancerSwitch {
    /// The strategy before.
    pub before: &'static str,
    /// The strategy from now on.
    pub after: &'static str,
}

/// How the strategy does since it was set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BalancerReport {
    /// Its name.
    pub strategy: &'static str,
    /// Choices it made.
    pub choices: u64,
    /// Median time of a choice in nanoseconds, over the last 1,024; reading the clock is part of it.
    pub choice_p50_ns: f64,
    /// The same, 99th percentile.
    pub choice_p99_ns: f64,
    /// Requests that the busiest node in service has ended.
    pub served_max: u64,
    /// Requests that the idlest node in service has ended.
    pub served_min: u64,
}

impl Cluster {
    /// Switches the strategy for all requests that are placed from now on, waiting ones included.
    ///
    /// # Errors
    /// [`ClusterError::Strategy`], with the names there are.
    pub fn set_balancer(&self, name: &str) -> Result<BalancerSwitch, ClusterError> {
        let balancer = by_name(name)?;
        let after = balancer.name();
        Ok(BalancerSwitch { before: self.use_balancer(balancer), after })
    }

    /// The same with a strategy that is not built in. Answers with the name of the one before.
    pub fn use_balancer(&self, balancer: Arc<dyn Balancer>) -> &'static str {
        let after = balancer.name();
        let before = self.shared.use_balancer(balancer);
        tracing::info!(before, after, "strategy switched");
        if before != after {
            self.tell(ClusterEvent::new(
                EventKind::BalancerSwitched,
                after,
                format!("an operator chose it in the place of {before}"),
            ));
        }
        before
    }

    /// How the strategy does. Looks at every node: a few milliseconds at 100,000, during which requests are served.
    pub fn balancer_report(&self) -> BalancerReport {
        let (strategy, number, choice) = {
            let admission = self.shared.lock();
            (admission.balance.name(), admission.balance.number(), admission.balance.report())
        };
        let (mut served_min, mut served_max) = (None, 0);
        self.shared.each_entry(|_, entry| {
            if entry.is_live() {
                let served = if entry.served_under == number { entry.served } else { 0 };
                served_min = Some(served_min.map_or(served, |min: u64| min.min(served)));
                served_max = served_max.max(served);
            }
        });
        BalancerReport {
            strategy,
            choices: choice.choices,
            choice_p50_ns: choice.p50_ns,
            choice_p99_ns: choice.p99_ns,
            served_max,
            served_min: served_min.unwrap_or(0),
        }
    }
}

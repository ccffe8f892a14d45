use std::{collections::BTreeMap, time::Duration};

use llambo_inference::{NodeState, TypeName};
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

use crate::{
    cluster::Cluster,
    record::{Pulse, Totals},
    tiers::TierCount,
};

/// The cluster at a glance. Costs the number of node types, not of nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterStatus {
    /// Name of the strategy in force.
    pub strategy: &'static str,
    /// Since [`Cluster::new`].
    pub uptime: Duration,
    /// Whether the host finishes what it has and takes nothing new.
    pub draining: bool,
    /// States with no node are left out.
    pub nodes_by_state: BTreeMap<NodeState, u32>,
    /// Every known type, those without nodes included; all states count.
    pub nodes_by_type: BTreeMap<TypeName, u32>,
    /// Requests that wait for a node.
    pub waiting: usize,
    /// How many may.
    pub max_waiting: usize,
    /// Requests that nodes serve.
    pub in_flight: usize,
    /// How many may.
    pub max_in_flight: usize,
    /// Since the start.
    pub totals: Totals,
    /// Requests that should have had a tier, since the start.
    pub tiers: Vec<TierCount>,
}

impl Cluster {
    /// The cluster at a glance.
    pub fn status(&self) -> ClusterStatus {
        let settings = &self.shared.settings;
        let admission = self.shared.lock();
        let mut nodes_by_state = BTreeMap::new();
        let mut nodes_by_type = BTreeMap::new();
        for (name, states) in admission.registry.types() {
            nodes_by_type.insert(name.clone(), states.iter().sum());
            for (state, count) in NodeState::ALL.into_iter().zip(states).filter(|(_, count)| **count > 0) {
                *nodes_by_state.entry(state).or_default() += count;
            }
        }
        ClusterStatus {
            strategy: admission.balance.name(),
            uptime: self.shared.started.elapsed(),
            draining: admission.is_draining(),
            nodes_by_state,
            nodes_by_type,
            waiting: admission.waiting(),
            max_waiting: settings.max_waiting,
            in_flight: admission.in_flight(),
            max_in_flight: settings.max_in_flight,
            totals: self.shared.counters.totals(),
            tiers: self.shared.tiers.counts(),
        }
    }

    /// What grows while requests run.
    pub fn pulse(&self) -> Pulse {
        self.shared.counters.pulse()
    }

    /// [`Self::refresh`]es, then sets the gauges. To be called every few seconds and before metrics are read.
    pub fn publish_gauges(&self) {
        self.refresh();
        self.shared.events.flush();
        let (by_type, waiting, in_flight, nonsense) = {
            let admission = self.shared.lock();
            let by_type: Vec<_> = admission.registry.types().map(|(name, states)| (name.clone(), *states)).collect();
            (by_type, admission.waiting(), admission.in_flight(), admission.balance.nonsense())
        };
        for (name, states) in by_type {
            for (state, count) in NodeState::ALL.into_iter().zip(states) {
                let labels = [("type", name.to_string()), ("state", state.as_str().to_owned())];
                metrics::gauge!("llambo_orchestrator_nodes", &labels).set(count);
            }
        }
        metrics::gauge!("llambo_orchestrator_waiting_requests").set(waiting as f64);
        metrics::gauge!("llambo_orchestrator_in_flight_requests").set(in_flight as f64);
        metrics::counter!("llambo_orchestrator_replaced_choices_total").absolute(nonsense);
    }
}

/// Registers the names, units and meanings of this room's metrics with the recorder. To be called once it is installed.
pub fn describe_metrics() {
    describe_counter!("llambo_orchestrator_requests_total", "Requests ended, by outcome: finished, failed, cancelled, rejected");
    describe_counter!("llambo_orchestrator_rejected_total", "Requests that never reached a node, by reason");
    describe_counter!(
        "llambo_orchestrator_scaled_total",
        "Times the number of nodes was changed because of load, by type, direction and by"
    );
    describe_counter!(
        "llambo_orchestrator_scale_held_total",
        "Times that load asked for another number of nodes and something held it back, by type and reason: cool-down, max, no-room, host-full"
    );
    describe_gauge!("llambo_orchestrator_ideal_nodes", "Nodes that a type's load asks for, whatever holds it back, by type");
    describe_counter!("llambo_orchestrator_events_total", "Events told of the cluster, by kind");
    describe_counter!("llambo_orchestrator_tier_requests_total", "Requests that should have had a tier, by wanted and served");
    describe_counter!("llambo_orchestrator_redispatched_total", "Times a request went to another node before its first token");
    describe_counter!("llambo_orchestrator_replaced_choices_total", "Choices of the strategy that were no candidates");
    describe_gauge!("llambo_orchestrator_waiting_requests", "Requests that wait for a node");
    describe_gauge!("llambo_orchestrator_in_flight_requests", "Requests that nodes serve");
    describe_gauge!("llambo_orchestrator_pending_requests", "Requests that have no node yet, by model");
    describe_counter!(
        "llambo_orchestrator_ended_total",
        "Requests that were let in and ended, by model and reason: why the answer was at its end, failed, cancelled"
    );
    describe_histogram!("llambo_orchestrator_token_interval_seconds", Unit::Seconds, "From one token to the next, by model");
    describe_gauge!("llambo_orchestrator_nodes", "Nodes, by type and state");
    describe_histogram!(
        "llambo_orchestrator_queue_wait_seconds",
        Unit::Seconds,
        "From a request's arrival to its first node, by model"
    );
    describe_histogram!(
        "llambo_orchestrator_ttft_seconds",
        Unit::Seconds,
        "From a request's arrival to its first token, by model"
    );
    describe_histogram!("llambo_orchestrator_request_seconds", Unit::Seconds, "From a request's arrival to its end, by model");
    describe_histogram!("llambo_orchestrator_choice_seconds", Unit::Seconds, "Time the strategy took to choose a node");
}

//! How many nodes a type has, where a scaler policy says so. Without one nothing is scaled.

use std::{collections::HashMap, sync::Arc, time::Duration};

use llambo_inference::TypeName;
use llambo_strategy::{ScaleChange, ScaleType};
use tokio::time::Instant;

use crate::cluster::{Cluster, TypeInfo};

/// Asks the scaler about each type, once in a while.
pub struct Autoscaler {
    cluster: Cluster,
    seen: HashMap<TypeName, Seen>,
}

/// What is remembered of a type from one round to the next.
struct Seen {
    at: Instant,
    n_ended: u64,
    changed: Option<Instant>,
}

impl Autoscaler {
    /// One that has seen nothing yet.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, seen: HashMap::new() }
    }

    /// Asks about every type that has bounds, and does what is answered within these. To be called in regular intervals.
    pub async fn round(&mut self) {
        if !self.cluster.shared.policies.scaler.is_loaded() {
            self.seen.clear();
            return;
        }
        for info in self.cluster.types() {
            let Some((min, max)) = info.bounds else { continue };
            let view = self.view(&info, min, max);
            let (nodes, ask) = (view.nodes, Arc::new(view));
            let Some(change) = self.cluster.shared.policies.scaler.decide(&ask).answer else { continue };
            let wanted = nodes.saturating_add_signed(change.by).clamp(min, max.max(min));
            if wanted != nodes {
                self.change(&info.name, wanted, &change).await;
            }
        }
    }

    async fn change(&mut self, node_type: &TypeName, wanted: u32, change: &ScaleChange) {
        match self.cluster.scale(node_type, wanted).await {
            Ok(done) => {
                let (before, after, reason) = (done.before, done.after, change.reason.as_str());
                tracing::info!(%node_type, before, after, by = change.by, reason, "scaled by a policy");
                metrics::counter!("llambo_orchestrator_scaled_total", "type" => node_type.to_string()).increment(1);
                if let Some(seen) = self.seen.get_mut(node_type) {
                    seen.changed = Some(Instant::now());
                }
            }
            Err(error) => tracing::warn!(%node_type, wanted, %error, "what a policy wants cannot be scaled"),
        }
    }

    /// A type as it is now, and as it was since the last round.
    fn view(&mut self, info: &TypeInfo, min_nodes: u32, max_nodes: u32) -> ScaleType {
        let shared = &self.cluster.shared;
        let (mut in_flight, mut capacity) = (0_u32, 0_u32);
        shared.each_entry(|_, entry| {
            if entry.node_type == info.name && entry.is_live() {
                in_flight = in_flight.saturating_add(entry.in_flight);
                capacity = capacity.saturating_add(entry.capacity);
            }
        });
        let (nodes, n_ended, waiting) = {
            let admission = shared.lock();
            let registry = &admission.registry;
            let waiting: usize = registry.scopes_of(&info.name).into_iter().map(|scope| admission.n_waiting(scope)).sum();
            (registry.n_live(&info.name), registry.n_ended(&info.name), waiting)
        };
        let now = Instant::now();
        let seen = self.seen.entry(info.name.clone()).or_insert(Seen { at: now, n_ended, changed: None });
        let seconds = now.saturating_duration_since(seen.at).as_secs_f32();
        let requests_per_second = if seconds > 0.0 { (n_ended - seen.n_ended) as f32 / seconds } else { 0.0 };
        (seen.at, seen.n_ended) = (now, n_ended);
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        ScaleType {
            node_type: info.name.clone(),
            model: info.model.clone(),
            nodes,
            min_nodes,
            max_nodes,
            in_flight,
            capacity,
            waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
            requests_per_second,
            since_change_ms: seen.changed.map(|changed| ms(now.saturating_duration_since(changed))),
            now_ms: shared.now_ms(),
        }
    }
}

//! How many nodes a type has: as a scaler policy says, or else as its load asks for, where the configuration says so.

use std::{collections::HashMap, sync::Arc, time::Duration};

use llambo_inference::{ClusterEvent, EventKind, TypeName};
use llambo_strategy::{Held, ScaleChange, ScaleDecision, ScaleLoad, ScaleMemory, ScaleRules, ScaleType};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    cluster::{Cause, Cluster},
    error::ClusterError,
    factory::TypeInfo,
};

/// How often load is looked at, where no policy asks for more.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks at each type that is scaled, again and again.
pub struct Autoscaler {
    cluster: Cluster,
    seen: HashMap<TypeName, Seen>,
}

/// What is remembered of a type from one round to the next.
struct Seen {
    /// When a policy was asked last, what had ended by then, and when one changed something.
    asked: Instant,
    n_ended: u64,
    changed: Option<Instant>,
    /// Whether a policy decided when it was asked last: until it is asked again nothing else does.
    is_policys: bool,
    memory: ScaleMemory,
    n_ended_before: u64,
    /// What holds it back, as was told last.
    held: Option<&'static str>,
}

/// A type as it is now, for policies and for what is built in.
struct Look {
    ask: ScaleType,
    load: ScaleLoad,
}

/// Who wants another number of nodes.
#[derive(Clone, Copy)]
enum By {
    Load,
    Policy,
}

impl Autoscaler {
    /// One that has seen nothing yet.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster, seen: HashMap::new() }
    }

    /// Scales for as long as it is polled. A policy is asked every `every`; who waits for a type without nodes is seen at once.
    pub async fn run(mut self, every: Duration) {
        let mut ticks = interval(LOOK_EVERY.min(every));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked: Option<Instant> = None;
        loop {
            let shared = Arc::clone(&self.cluster.shared);
            tokio::select! {
                _ = ticks.tick() => {}
                () = shared.wanted.notified() => {}
            }
            let is_due = asked.is_none_or(|asked| asked.elapsed() >= every);
            if is_due {
                asked = Some(Instant::now());
            }
            self.look(is_due).await;
        }
    }

    /// Looks at every type once, and does what is decided. A policy is asked, if there is one.
    pub async fn round(&mut self) {
        self.look(true).await;
    }

    async fn look(&mut self, asks_policy: bool) {
        if self.cluster.is_draining() && self.cluster.status().waiting == 0 {
            return;
        }
        let types: Vec<TypeInfo> =
            self.cluster.types().into_iter().filter(|info| info.scaling.is_some() || info.bounds.is_some()).collect();
        self.seen.retain(|name, _| types.iter().any(|info| info.name == *name));
        for info in types {
            self.look_at(&info, asks_policy).await;
        }
    }

    async fn look_at(&mut self, info: &TypeInfo, asks_policy: bool) {
        let bounds = info.scaling.map(|rules| (rules.min, rules.max)).or(info.bounds);
        let Some((min, max)) = bounds else { return };
        let Look { ask, load } = self.view(info, (min, max), asks_policy);
        let scaler = &self.cluster.shared.policies.scaler;
        if asks_policy {
            let asks = scaler.is_loaded();
            let decision = asks.then(|| scaler.decide(&Arc::new(ask)));
            let answer = decision.and_then(|decision| decision.answer);
            if let Some(seen) = self.seen.get_mut(&info.name) {
                seen.is_policys = answer.is_some();
            }
            if let Some(ScaleChange { by, reason }) = answer {
                let wanted = load.nodes.saturating_add_signed(by).clamp(min, max.max(min));
                if wanted != load.nodes {
                    self.change(info, wanted, (By::Policy, &reason), &load).await;
                    return;
                }
            }
        }
        let Some(rules) = info.scaling else { return };
        let Some(seen) = self.seen.get_mut(&info.name) else { return };
        let decision = seen.memory.decide(&rules, &load);
        // whoever decides: nobody waits for a type that has nothing
        let wakes = load.nodes == 0 && load.waiting > 0;
        if seen.is_policys && !wakes {
            return;
        }
        metrics::gauge!("llambo_orchestrator_ideal_nodes", "type" => info.name.to_string()).set(decision.ideal);
        if decision.nodes == load.nodes {
            self.note_held(&info.name, &decision);
        } else {
            self.change(info, decision.nodes, (By::Load, &decision.why.to_string()), &load).await;
        }
    }

    /// Tells what holds a type back, once for as long as it is the same.
    fn note_held(&mut self, node_type: &TypeName, decision: &ScaleDecision) {
        let Some(seen) = self.seen.get_mut(node_type) else { return };
        let held = decision.held.map(Held::as_str);
        if seen.held == held {
            return;
        }
        seen.held = held;
        let Some(held) = decision.held else { return };
        let labels = [("type", node_type.to_string()), ("reason", held.as_str().to_owned())];
        metrics::counter!("llambo_orchestrator_scale_held_total", &labels).increment(1);
        let reason = format!("it should have {}: {}; {held}", decision.ideal, decision.why);
        self.cluster.tell(ClusterEvent::of_type(EventKind::ScaleHeld, node_type, decision.ideal, reason));
    }

    async fn change(&mut self, info: &TypeInfo, wanted: u32, (by, why): (By, &str), load: &ScaleLoad) {
        let node_type = &info.name;
        let cause = Cause { reason: by.cause(), even_draining: load.nodes == 0 };
        let done = self.cluster.scale_because(node_type, wanted, cause).await;
        let now_ms = self.cluster.shared.now_ms();
        let Some(seen) = self.seen.get_mut(node_type) else { return };
        match done {
            Ok(done) => {
                let (before, after) = (done.before, done.after);
                tracing::info!(%node_type, before, after, by = by.as_str(), reason = why, "scaled");
                let (kind, direction) = if after > before { (EventKind::ScaleUp, "up") } else { (EventKind::ScaleDown, "down") };
                let labels =
                    [("type", node_type.to_string()), ("direction", direction.to_owned()), ("by", by.as_str().to_owned())];
                metrics::counter!("llambo_orchestrator_scaled_total", &labels).increment(1);
                if matches!(by, By::Policy) {
                    seen.changed = Some(Instant::now());
                }
                seen.memory.changed(after, now_ms);
                let reason = format!("from {before} to {after}: {why}");
                self.cluster.tell(ClusterEvent::of_type(kind, node_type, after.abs_diff(before), reason));
            }
            // a host that drains makes no nodes, and need not say so for each type
            Err(ClusterError::Draining) => {}
            Err(error) => {
                tracing::warn!(%node_type, wanted, %error, "a type cannot be scaled");
                seen.memory.no_room(&info.scaling.unwrap_or(ScaleRules::between(0, wanted)), now_ms);
                let labels = [("type", node_type.to_string()), ("reason", "no-room".to_owned())];
                metrics::counter!("llambo_orchestrator_scale_held_total", &labels).increment(1);
                let told = seen.held.replace("no-room");
                if told != Some("no-room") {
                    let reason = format!("it should have {wanted}: {why}; but {error}");
                    self.cluster.tell(ClusterEvent::of_type(EventKind::ScaleHeld, node_type, wanted, reason));
                }
            }
        }
    }

    /// A type as it is now, and as it was since the last look.
    fn view(&mut self, info: &TypeInfo, (min_nodes, max_nodes): (u32, u32), asks_policy: bool) -> Look {
        let shared = &self.cluster.shared;
        let n = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let (nodes, n_ended, in_flight, capacity, waiting, own_waiting, is_host_full) = {
            let mut admission = shared.lock();
            let nodes = admission.registry.n_live(&info.name);
            let own = admission.registry.own_scopes(&info.name);
            let is_missed = nodes == 0 && own.iter().any(|id| admission.registry.scope(*id).is_missed);
            let (mut in_flight, mut capacity, mut waiting, mut own_waiting) = (0, 0, 0, 0);
            for id in admission.registry.scopes_of(&info.name) {
                let in_line = admission.n_waiting(id);
                waiting += in_line;
                if own.contains(&id) {
                    own_waiting += in_line;
                    in_flight += admission.registry.scope(id).in_flight;
                    capacity += admission.registry.scope(id).capacity;
                } else if nodes > 0 {
                    // others serve the same model: each takes its part of those who wait for any of them
                    own_waiting += in_line.div_ceil(admission.registry.n_types_in(id).max(1));
                } else if is_missed && admission.registry.scope(id).live == 0 {
                    // who is served elsewhere in the meantime waits for nobody here
                    own_waiting += in_line;
                }
            }
            if is_missed {
                own_waiting = own_waiting.max(1);
            }
            if nodes > 0 {
                admission.registry.was_looked_at(&own);
            }
            let is_host_full = admission.in_flight() >= admission.max_in_flight();
            (nodes, admission.registry.n_ended(&info.name), in_flight, capacity, n(waiting), n(own_waiting), is_host_full)
        };
        let now = Instant::now();
        let seen = self.seen.entry(info.name.clone()).or_insert_with(|| Seen {
            asked: now,
            n_ended,
            changed: None,
            is_policys: false,
            memory: ScaleMemory::default(),
            n_ended_before: n_ended,
            held: None,
        });
        let seconds = now.saturating_duration_since(seen.asked).as_secs_f32();
        let requests_per_second = if seconds > 0.0 { (n_ended - seen.n_ended) as f32 / seconds } else { 0.0 };
        if asks_policy {
            (seen.asked, seen.n_ended) = (now, n_ended);
        }
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let ask = ScaleType {
            node_type: info.name.clone(),
            model: info.model.clone(),
            nodes,
            min_nodes,
            max_nodes,
            in_flight,
            capacity,
            waiting,
            requests_per_second,
            since_change_ms: seen.changed.map(|changed| ms(now.saturating_duration_since(changed))),
            now_ms: shared.now_ms(),
        };
        let ended = n_ended - std::mem::replace(&mut seen.n_ended_before, n_ended);
        let load = ScaleLoad { nodes, in_flight, capacity, waiting: own_waiting, ended, is_host_full, now_ms: ask.now_ms };
        Look { ask, load }
    }
}

impl By {
    fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Policy => "policy",
        }
    }

    /// Why nodes come or go.
    fn cause(self) -> &'static str {
        match self {
            Self::Load => "scaled by load",
            Self::Policy => "scaled by a policy",
        }
    }
}

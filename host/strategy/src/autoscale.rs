//! How many nodes a type should have: the built-in scaler. Pure; its caller has the clock and the nodes.
//!
//! Demand is what a type's nodes serve and what waits for them; load is demand divided by what the nodes can serve at once. Above
//! `up_at` there should be more nodes, below `down_at` fewer, as many as bring the load to `target_load` (the rule of Kubernetes'
//! Horizontal Pod Autoscaler: `ceil(nodes * load / target)`). Between the two nothing changes, which is what keeps it from swinging.
//!
//! Going up follows the mean over a short window, or what is there now where requests wait. Going down follows the most that was
//! wanted within the cool-down, so that a pause between two bursts takes nothing away. Zero is left as soon as somebody asks, and
//! reached only after nobody did for a while.

use std::{collections::VecDeque, fmt};

/// Parts that windows are divided into: what is remembered does not grow with how often somebody looks.
const PARTS: u64 = 32;
/// How long a type that could not grow is left alone at least.
const RETRY_MS: u64 = 5_000;
/// Far below one request; keeps a load that is exactly on target from rounding up to one node more.
const EPSILON: f64 = 1e-9;

/// How a type is scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleRules {
    /// The fewest nodes; 0 lets it go to none when nobody asks.
    pub min: u32,
    /// The most, at least 1 and not below `min`.
    pub max: u32,
    /// Requests in flight and waiting, divided by those that its nodes can serve at once: what it is brought to.
    pub target_load: f64,
    /// Load above which nodes are added; at least `target_load`.
    pub up_at: f64,
    /// Load below which nodes are taken away; at most `target_load`.
    pub down_at: f64,
    /// After a change, for how long none are added.
    pub up_cool_down_ms: u64,
    /// After a change, for how long none are taken away.
    pub down_cool_down_ms: u64,
    /// Nodes added at a time at most.
    pub up_step: u32,
    /// Nodes taken away at a time at most.
    pub down_step: u32,
    /// What load is averaged over.
    pub window_ms: u64,
    /// With a `min` of 0: time without a request after which the last nodes go.
    pub idle_to_zero_ms: u64,
}

/// A type as it is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScaleLoad {
    /// Nodes that serve requests or will.
    pub nodes: u32,
    /// Requests that they serve.
    pub in_flight: u32,
    /// Requests that they can serve at once.
    pub capacity: u32,
    /// Requests that wait for them.
    pub waiting: u32,
    /// Requests that ended since the last look.
    pub ended: u64,
    /// Whether the host serves as many requests as it may, so that those that wait would not be served by more nodes.
    pub is_host_full: bool,
    /// Milliseconds of a clock that never goes back.
    pub now_ms: u64,
}

/// What was seen of a type before.
#[derive(Clone, Debug, Default)]
pub struct ScaleMemory {
    /// Nodes at the last look.
    nodes: Option<u32>,
    changed_ms: Option<u64>,
    asked_ms: Option<u64>,
    no_room_until_ms: u64,
    /// What one node can serve at once, from when there was one.
    per_node: Option<f64>,
    demand: Window,
    wanted: VecDeque<(u64, u32)>,
}

/// What should be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleDecision {
    /// Nodes that there should be now; those that there are, if nothing should change.
    pub nodes: u32,
    /// Nodes that the load asks for, whatever holds it back.
    pub ideal: u32,
    /// Why less is done than the load asks for.
    pub held: Option<Held>,
    /// Why.
    pub why: ScaleWhy,
}

/// Why a number of nodes is right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScaleWhy {
    /// The load is between both thresholds.
    Steady,
    /// It is above the upper one.
    Busy {
        /// Averaged over the window.
        load: f64,
        /// The threshold.
        limit: f64,
        /// Requests that wait.
        waiting: u32,
    },
    /// It was below the lower one for as long as the cool-down.
    Quiet {
        /// Averaged over the window.
        load: f64,
        /// The threshold.
        limit: f64,
    },
    /// Nobody asked for so long.
    Idle {
        /// Milliseconds since somebody did.
        idle_ms: u64,
    },
    /// There are none, and somebody asks.
    Asked {
        /// How many.
        waiting: u32,
    },
    /// There are fewer than there must be.
    BelowMin {
        /// The fewest.
        min: u32,
    },
    /// There are more than there may be.
    AboveMax {
        /// The most.
        max: u32,
    },
}

/// Why less is done than the load asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The last change was too short a time ago.
    CoolDown {
        /// Milliseconds that are left of it.
        left_ms: u64,
    },
    /// There are as many as there may be.
    AtMax,
    /// More could not be made lately.
    NoRoom,
    /// The host serves as many requests as it may.
    HostFull,
}

/// Sums over the last while, in parts.
#[derive(Clone, Debug, Default)]
struct Window(VecDeque<(u64, f64, u32)>);

// === impl ScaleRules ===

impl ScaleRules {
    /// Rules with the usual thresholds and times, which `cluster-config.yaml` describes.
    pub fn between(min: u32, max: u32) -> Self {
        Self {
            min,
            max,
            target_load: 0.7,
            up_at: 0.85,
            down_at: 0.5,
            up_cool_down_ms: 5_000,
            down_cool_down_ms: 60_000,
            up_step: u32::MAX,
            down_step: u32::MAX,
            window_ms: 10_000,
            idle_to_zero_ms: 300_000,
        }
    }
}

// === impl ScaleMemory ===

impl ScaleMemory {
    /// What should be done now. To be asked in about regular intervals, a second apart or so.
    pub fn decide(&mut self, rules: &ScaleRules, load: &ScaleLoad) -> ScaleDecision {
        let now = load.now_ms;
        if self.nodes.is_some_and(|nodes| nodes != load.nodes) {
            // whoever changed it: what comes of that is to be seen first
            self.changed_ms = Some(now);
        }
        self.nodes = Some(load.nodes);
        if load.nodes > 0 && load.capacity > 0 {
            self.per_node = Some(f64::from(load.capacity) / f64::from(load.nodes));
        }
        let asked = load.in_flight.saturating_add(load.waiting);
        if asked > 0 || load.ended > 0 || self.asked_ms.is_none() {
            self.asked_ms = Some(now);
        }
        let idle_ms = self.asked_ms.map_or(0, |at| now.saturating_sub(at));
        self.demand.add(now, f64::from(asked), rules.window_ms);
        let mean = self.demand.mean();
        let demand = if load.waiting > 0 { mean.max(f64::from(asked)) } else { mean };
        let per_node = self.per_node.unwrap_or(1.0);
        let ideal = whole((demand / (rules.target_load * per_node) - EPSILON).ceil());
        let may_be_none = rules.min == 0 && asked == 0 && idle_ms >= rules.idle_to_zero_ms;
        let floor = if may_be_none || (load.nodes == 0 && asked == 0) { rules.min } else { rules.min.max(1) };
        let bounded = ideal.max(floor).min(rules.max);
        let most_wanted = self.most_wanted(bounded, rules.down_cool_down_ms, now);
        let share = if load.nodes == 0 { 0.0 } else { demand / (per_node * f64::from(load.nodes)) };

        let (wanted, why) = match load.nodes {
            0 if asked > 0 => (bounded, ScaleWhy::Asked { waiting: asked }),
            nodes if nodes < floor => (bounded, ScaleWhy::BelowMin { min: floor }),
            nodes if nodes > rules.max => (rules.max, ScaleWhy::AboveMax { max: rules.max }),
            nodes if share > rules.up_at => {
                (bounded.max(nodes), ScaleWhy::Busy { load: share, limit: rules.up_at, waiting: load.waiting })
            }
            nodes if may_be_none && nodes > 0 => (0, ScaleWhy::Idle { idle_ms }),
            nodes if share < rules.down_at && most_wanted < nodes => {
                (most_wanted, ScaleWhy::Quiet { load: share, limit: rules.down_at })
            }
            nodes => (nodes, ScaleWhy::Steady),
        };
        let held = self.held(rules, load, wanted, ideal);
        let nodes = match held {
            Some(Held::AtMax) | None => stepped(rules, load.nodes, wanted),
            Some(_) => load.nodes,
        };
        ScaleDecision { nodes, ideal: if why == ScaleWhy::Steady { load.nodes } else { ideal.max(wanted) }, held, why }
    }

    /// It was done: the cool-down begins.
    pub fn changed(&mut self, nodes: u32, now_ms: u64) {
        (self.nodes, self.changed_ms) = (Some(nodes), Some(now_ms));
    }

    /// It could not be done: there is no room for more.
    pub fn no_room(&mut self, rules: &ScaleRules, now_ms: u64) {
        self.no_room_until_ms = now_ms.saturating_add(rules.up_cool_down_ms.max(RETRY_MS));
    }

    fn held(&self, rules: &ScaleRules, load: &ScaleLoad, wanted: u32, ideal: u32) -> Option<Held> {
        let left = |cool_down: u64| {
            let over = self.changed_ms?.saturating_add(cool_down);
            (over > load.now_ms).then(|| Held::CoolDown { left_ms: over - load.now_ms })
        };
        if wanted < load.nodes {
            return left(rules.down_cool_down_ms);
        }
        let is_busy = wanted > load.nodes || (ideal > rules.max && load.nodes == rules.max);
        if !is_busy {
            return None;
        }
        if wanted == load.nodes {
            return Some(Held::AtMax);
        }
        if load.now_ms < self.no_room_until_ms {
            return Some(Held::NoRoom);
        }
        if load.nodes == 0 && load.waiting > 0 {
            return None;
        }
        if load.is_host_full && load.nodes >= rules.min {
            return Some(Held::HostFull);
        }
        left(rules.up_cool_down_ms).or((ideal > rules.max).then_some(Held::AtMax))
    }

    /// The most that was wanted within a window, this look included. Kept as falling numbers, in parts of the window.
    fn most_wanted(&mut self, wanted: u32, window_ms: u64, now: u64) -> u32 {
        while self.wanted.front().is_some_and(|(at, _)| at.saturating_add(window_ms) <= now) {
            self.wanted.pop_front();
        }
        while self.wanted.back().is_some_and(|(_, last)| *last <= wanted) {
            self.wanted.pop_back();
        }
        let part = window_ms.div_ceil(PARTS).max(1);
        match self.wanted.back_mut() {
            // a little less in the same part: the part counts by its most, as long as its latest look is young enough
            Some((at, _)) if now.saturating_sub(*at) < part => {}
            _ => self.wanted.push_back((now, wanted)),
        }
        self.wanted.front().map_or(wanted, |(_, most)| *most)
    }
}

/// As far as one step goes.
fn stepped(rules: &ScaleRules, nodes: u32, wanted: u32) -> u32 {
    wanted.clamp(nodes.saturating_sub(rules.down_step.max(1)), nodes.saturating_add(rules.up_step.max(1)))
}

/// A number of nodes: what is no number, or less than none, is none.
fn whole(nodes: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` keeps within the range, and takes NaN for 0"
    )]
    let nodes = nodes as u32;
    nodes
}

// === impl Window ===

impl Window {
    fn add(&mut self, now: u64, value: f64, window_ms: u64) {
        let part = window_ms.div_ceil(PARTS).max(1);
        match self.0.back_mut() {
            Some((at, sum, n)) if now.saturating_sub(*at) < part => (*sum, *n) = (*sum + value, *n + 1),
            _ => self.0.push_back((now, value, 1)),
        }
        while self.0.len() > 1 && self.0.front().is_some_and(|(at, ..)| at.saturating_add(window_ms) <= now) {
            self.0.pop_front();
        }
    }

    fn mean(&self) -> f64 {
        let (sum, n) = self.0.iter().fold((0.0, 0.0), |(sum, n), (_, part, looks)| (sum + part, n + f64::from(*looks)));
        if n > 0.0 { sum / n } else { 0.0 }
    }
}

// === what people read ===

impl Held {
    /// As metrics and events call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CoolDown { .. } => "cool-down",
            Self::AtMax => "max",
            Self::NoRoom => "no-room",
            Self::HostFull => "host-full",
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CoolDown { left_ms } => write!(f, "{} s of the cool-down are left", seconds(*left_ms)),
            Self::AtMax => f.write_str("there may be no more"),
            Self::NoRoom => f.write_str("the last try to make more failed"),
            Self::HostFull => f.write_str("the host serves as many requests as `queue.max-in-flight` lets it"),
        }
    }
}

impl ScaleWhy {
    /// As metrics call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Busy { .. } => "busy",
            Self::Quiet { .. } => "quiet",
            Self::Idle { .. } => "idle",
            Self::Asked { .. } => "asked",
            Self::BelowMin { .. } => "below-min",
            Self::AboveMax { .. } => "above-max",
        }
    }
}

impl fmt::Display for ScaleWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steady => f.write_str("the load is as it should be"),
            Self::Busy { load, limit, waiting: 0 } => write!(f, "the load is {load:.2}, above {limit:.2}"),
            Self::Busy { load, limit, waiting } => write!(f, "the load is {load:.2}, above {limit:.2}; {waiting} requests wait"),
            Self::Quiet { load, limit } => write!(f, "the load is {load:.2}, below {limit:.2}"),
            Self::Idle { idle_ms } => write!(f, "nobody asked for {} s", seconds(*idle_ms)),
            Self::Asked { waiting } => write!(f, "there were none, and {waiting} requests wait"),
            Self::BelowMin { min } => write!(f, "there must be {min} at least"),
            Self::AboveMax { max } => write!(f, "there may be {max} at most"),
        }
    }
}

/// Whole seconds, rounded up.
fn seconds(ms: u64) -> u64 {
    ms.div_ceil(1000)
}

#[cfg(test)]
mod tests;

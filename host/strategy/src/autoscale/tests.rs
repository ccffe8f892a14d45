use proptest::{collection::vec, prelude::*};

use super::*;

/// A type whose nodes change as is decided.
struct Scaled {
    rules: ScaleRules,
    memory: ScaleMemory,
    nodes: u32,
    per_node: u32,
    now_ms: u64,
}

impl Scaled {
    fn new(rules: ScaleRules, nodes: u32) -> Self {
        Self { rules, memory: ScaleMemory::default(), nodes, per_node: 1, now_ms: 1_000_000 }
    }

    fn load(&self, demand: u32) -> ScaleLoad {
        let capacity = self.nodes * self.per_node;
        ScaleLoad {
            nodes: self.nodes,
            in_flight: demand.min(capacity),
            capacity,
            waiting: demand.saturating_sub(capacity),
            ended: 0,
            is_host_full: false,
            now_ms: self.now_ms,
        }
    }

    /// A look, `ms` after the last one.
    fn look(&mut self, ms: u64, demand: u32) -> ScaleDecision {
        self.now_ms += ms;
        let decision = self.memory.decide(&self.rules, &self.load(demand));
        if decision.nodes != self.nodes {
            self.nodes = decision.nodes;
            self.memory.changed(self.nodes, self.now_ms);
        }
        decision
    }

    /// Nodes after so many seconds of the same demand, looked at once a second.
    fn after(&mut self, seconds: u32, demand: u32) -> u32 {
        for _ in 0..seconds {
            self.look(1000, demand);
        }
        self.nodes
    }
}

fn rules() -> ScaleRules {
    ScaleRules::between(1, 100)
}

#[test]
fn a_busy_type_grows_to_its_target_and_shrinks_only_after_the_cool_down() {
    let mut scaled = Scaled::new(rules(), 1);
    assert_eq!(scaled.after(30, 7), 10, "7 requests at a load of 0.7");
    assert_eq!(scaled.after(30, 2), 10, "it was busy within the last minute");
    assert_eq!(scaled.after(120, 2), 3, "in two steps: the mean falls for as long as its window");
    assert_eq!(scaled.after(140, 0), 1, "never below the fewest");
}

#[test]
fn who_waits_is_seen_at_once_and_what_is_served_by_its_mean() {
    let mut scaled = Scaled::new(rules(), 10);
    scaled.after(60, 6);
    assert_eq!(scaled.look(1000, 10).why, ScaleWhy::Steady, "one look of many: nobody waits");
    let decision = scaled.look(1000, 30);
    assert_eq!((decision.nodes, decision.held), (43, None), "{decision:?}");
    assert_eq!(decision.why.to_string(), "the load is 3.00, above 0.85; 20 requests wait");
}

#[test]
fn what_holds_it_back_is_told() {
    let mut scaled = Scaled::new(ScaleRules { up_cool_down_ms: 30_000, ..ScaleRules::between(1, 8) }, 1);
    assert_eq!(scaled.look(1000, 2).nodes, 3);
    let held = scaled.look(1000, 5);
    assert_eq!((held.nodes, held.ideal, held.held), (3, 8, Some(Held::CoolDown { left_ms: 29_000 })));
    scaled.after(40, 5);
    assert_eq!(scaled.nodes, 8);
    let held = scaled.look(40_000, 50);
    assert_eq!((held.nodes, held.ideal > 8, held.held), (8, true, Some(Held::AtMax)), "{held:?}");

    let mut scaled = Scaled::new(rules(), 2);
    let full = ScaleLoad { is_host_full: true, ..scaled.load(9) };
    assert_eq!(scaled.memory.decide(&scaled.rules, &full).held, Some(Held::HostFull));
    scaled.memory.no_room(&scaled.rules, scaled.now_ms);
    assert_eq!(scaled.look(4_000, 9).held, Some(Held::NoRoom));
    assert_eq!(scaled.look(1_000, 9).held, None, "it is tried again");
}

#[test]
fn zero_is_reached_after_idle_time_only_and_left_at_once() {
    let mut scaled = Scaled::new(ScaleRules { idle_to_zero_ms: 120_000, ..ScaleRules::between(0, 10) }, 4);
    assert_eq!(scaled.after(119, 0), 1, "one stays as long as somebody may come back");
    scaled.after(30, 0);
    assert_eq!(scaled.nodes, 0);
    let woken = scaled.look(1, 3);
    assert_eq!((woken.nodes, woken.held), (5, None), "whatever the cool-downs say");
    assert_eq!(woken.why, ScaleWhy::Asked { waiting: 3 });
}

#[test]
fn requests_that_come_and_go_between_two_looks_keep_a_type_awake() {
    let mut scaled = Scaled::new(ScaleRules { idle_to_zero_ms: 60_000, ..ScaleRules::between(0, 10) }, 1);
    for _ in 0..600 {
        scaled.now_ms += 1000;
        let seen = ScaleLoad { ended: 1, ..scaled.load(0) };
        assert_eq!(scaled.memory.decide(&scaled.rules, &seen).nodes, 1);
    }
    assert_eq!(scaled.after(61, 0), 0);
}

#[test]
fn a_change_from_outside_begins_a_cool_down_too() {
    let mut scaled = Scaled::new(rules(), 10);
    scaled.after(120, 7);
    scaled.nodes = 40;
    assert_eq!(scaled.after(59, 7), 40);
    assert_eq!(scaled.after(2, 7), 10);
}

#[test]
fn steps_bound_a_change() {
    let mut scaled = Scaled::new(ScaleRules { up_step: 3, down_step: 2, ..rules() }, 1);
    let mut seen = vec![1];
    for second in 0..240 {
        scaled.look(1000, if second < 60 { 7 } else { 0 });
        if seen.last() != Some(&scaled.nodes) {
            seen.push(scaled.nodes);
        }
    }
    assert_eq!(seen, [1, 4, 7, 10, 8, 6, 4]);
}

fn any_rules() -> impl Strategy<Value = ScaleRules> {
    let thresholds = (0.05f64..1.0, 0.0f64..1.0, 0.0f64..1.0);
    let steps = (1u32..50, 1u32..50);
    (0u32..20, 1u32..60, thresholds, (0u64..20_000, 0u64..60_000), steps, (0u64..30_000, 0u64..90_000)).prop_map(
        |(min, more, (target, up, down), (up_cool_down_ms, down_cool_down_ms), (up_step, down_step), (window_ms, idle))| {
            ScaleRules {
                min,
                max: min + more,
                target_load: target,
                up_at: target + up,
                down_at: target * down,
                up_cool_down_ms,
                down_cool_down_ms,
                up_step,
                down_step,
                window_ms,
                idle_to_zero_ms: idle,
            }
        },
    )
}

/// How long after the last look, and how much is asked.
fn any_looks() -> impl Strategy<Value = Vec<(u64, u32)>> {
    let demand = prop_oneof![Just(0u32), 0u32..10, 0u32..200];
    vec((1u64..20_000, demand), 1..120)
}

proptest! {
    #[test]
    fn it_never_leaves_its_bounds_and_never_moves_further_than_a_step(rules in any_rules(), looks in any_looks(), part in 0.0f64..1.0) {
        let start = rules.min + whole(part * f64::from(rules.max - rules.min));
        let mut scaled = Scaled::new(rules, start);
        for (ms, demand) in looks {
            let before = scaled.nodes;
            scaled.look(ms, demand);
            prop_assert!((rules.min..=rules.max).contains(&scaled.nodes), "{} of {rules:?}", scaled.nodes);
            prop_assert!(scaled.nodes <= before.saturating_add(rules.up_step) && scaled.nodes >= before.saturating_sub(rules.down_step));
        }
    }

    #[test]
    fn it_never_changes_within_the_cool_down(rules in any_rules(), looks in any_looks()) {
        let mut scaled = Scaled::new(rules, rules.min);
        let mut changed: Option<u64> = None;
        for (ms, demand) in looks {
            let before = scaled.nodes;
            let decision = scaled.look(ms, demand);
            if scaled.nodes == before {
                continue;
            }
            let cool_down = if scaled.nodes > before { rules.up_cool_down_ms } else { rules.down_cool_down_ms };
            let since = changed.map_or(u64::MAX, |at| scaled.now_ms - at);
            let wakes = before == 0 && demand > 0;
            prop_assert!(wakes || since >= cool_down, "{before} -> {} after {since} ms: {decision:?}", scaled.nodes);
            changed = Some(scaled.now_ms);
        }
    }

    #[test]
    fn more_load_never_means_fewer_nodes(rules in any_rules(), looks in any_looks(), less in 0u32..200, more in 0u32..200, nodes in 0u32..80) {
        let mut scaled = Scaled::new(rules, nodes.clamp(rules.min, rules.max));
        for (ms, demand) in looks {
            scaled.look(ms, demand);
        }
        scaled.now_ms += 1000;
        let decided = |demand: u32| scaled.memory.clone().decide(&scaled.rules, &scaled.load(demand)).nodes;
        prop_assert!(decided(less.min(more)) <= decided(less.max(more)));
    }

    #[test]
    fn a_steady_load_comes_to_rest(rules in any_rules(), looks in any_looks(), demand in 0u32..100) {
        let mut scaled = Scaled::new(rules, rules.min);
        for (ms, demand) in looks {
            scaled.look(ms, demand);
        }
        // long enough for every step that the rules ask for, each after its cool-down
        for _ in 0..400 {
            scaled.look(15_000, demand);
        }
        let rests = scaled.nodes;
        for _ in 0..100 {
            let decision = scaled.look(15_000, demand);
            prop_assert_eq!(scaled.nodes, rests, "{:?}", decision);
        }
    }

    #[test]
    fn nobody_who_asks_is_left_at_zero(rules in any_rules(), looks in any_looks(), demand in 1u32..50) {
        let mut scaled = Scaled::new(ScaleRules { min: 0, ..rules }, 0);
        for (ms, demand) in looks {
            scaled.look(ms, demand);
        }
        scaled.look(1, demand);
        prop_assert!(scaled.nodes > 0);
    }

    #[test]
    fn zero_is_reached_only_after_idle_time(rules in any_rules(), looks in any_looks()) {
        let rules = ScaleRules { min: 0, ..rules };
        let mut scaled = Scaled::new(rules, 1);
        let mut asked_ms = None;
        for (ms, demand) in looks {
            let before = scaled.nodes;
            scaled.look(ms, demand);
            if demand > 0 || asked_ms.is_none() {
                asked_ms = Some(scaled.now_ms);
            }
            let idle_ms = asked_ms.map_or(0, |at| scaled.now_ms - at);
            prop_assert!(scaled.nodes > 0 || before == 0 || idle_ms >= rules.idle_to_zero_ms);
        }
    }

    #[test]
    fn what_is_remembered_stays_small(rules in any_rules(), demands in vec(0u32..50, 500)) {
        let mut scaled = Scaled::new(rules, rules.min);
        for demand in demands {
            scaled.look(1, demand);
        }
        prop_assert!(scaled.memory.demand.0.len() <= 40 && scaled.memory.wanted.len() <= 80, "{:?}", scaled.memory);
    }
}

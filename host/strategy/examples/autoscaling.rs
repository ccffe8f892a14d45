//! Loads over time against the built-in scaler, with a simple model of a queue; prints one line for each second as CSV.
//!
//! Time is a second at a time. Nodes that are asked for serve from the next second on; a node serves one request at a time, which takes
//! half a second on average; who finds no free node waits. Randomness is a fixed sequence, so that a run is the same every time.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::VecDeque;

use llambo_strategy::{ScaleLoad, ScaleMemory, ScaleRules};

const SECONDS: u32 = 1800;
/// Requests that one node serves in a second.
const PER_NODE: f64 = 2.0;

struct Scenario {
    name: &'static str,
    rules: ScaleRules,
    /// Requests that come in a second.
    rate: fn(f64, &mut Noise) -> f64,
}

/// splitmix64 (Steele et al. 2014).
struct Noise(u64);

fn scenarios() -> [Scenario; 6] {
    let usual = ScaleRules::between(1, 60);
    [
        Scenario { name: "step", rules: usual, rate: |t, _| if (300.0..1100.0).contains(&t) { 40.0 } else { 4.0 } },
        Scenario { name: "ramp", rules: usual, rate: |t, _| if t < 1200.0 { t / 20.0 } else { (1800.0 - t) / 10.0 } },
        Scenario {
            name: "sine with noise",
            rules: usual,
            rate: |t, noise| (30.0 + 25.0 * (t / 600.0 * std::f64::consts::TAU).sin()) * (0.7 + 0.6 * noise.next()),
        },
        Scenario { name: "bursts", rules: usual, rate: |t, _| if t % 240.0 < 12.0 { 60.0 } else { 3.0 } },
        Scenario {
            name: "on and off, to zero",
            rules: ScaleRules { idle_to_zero_ms: 120_000, ..ScaleRules::between(0, 60) },
            rate: |t, _| if t % 600.0 < 200.0 { 20.0 } else { 0.0 },
        },
        Scenario {
            name: "more than the most",
            rules: ScaleRules::between(1, 20),
            rate: |t, _| if t > 300.0 { 60.0 } else { 10.0 },
        },
    ]
}

impl Noise {
    /// From 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn main() {
    println!("scenario,second,demanded,nodes,waiting,wait_seconds,changes,why");
    for scenario in scenarios() {
        run(&scenario);
    }
}

fn run(scenario: &Scenario) {
    let (mut memory, mut noise) = (ScaleMemory::default(), Noise(7));
    let mut nodes = scenario.rules.min;
    // when those who wait came
    let mut queue: VecDeque<f64> = VecDeque::new();
    let (mut owed, mut changes) = (0.0, 0);
    for second in 0..SECONDS {
        let now = f64::from(second);
        let rate = (scenario.rate)(now, &mut noise).max(0.0);
        owed += rate;
        while owed >= 1.0 {
            queue.push_back(now);
            owed -= 1.0;
        }
        let room = f64::from(nodes) * PER_NODE;
        let (mut served, mut waited) = (0_u32, 0.0);
        while f64::from(served) < room
            && let Some(came) = queue.pop_front()
        {
            served += 1;
            waited += now - came;
        }
        let wait = if served > 0 { waited / f64::from(served) } else { queue.front().map_or(0.0, |came| now - came) };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not more than there are nodes")]
        let in_flight = (f64::from(served) / PER_NODE).ceil() as u32;
        let waiting = u32::try_from(queue.len()).unwrap_or(u32::MAX);
        let load = ScaleLoad {
            nodes,
            in_flight,
            capacity: nodes,
            waiting,
            ended: served.into(),
            is_host_full: false,
            now_ms: u64::from(second) * 1000,
        };
        let decision = memory.decide(&scenario.rules, &load);
        println!("{},{second},{:.2},{nodes},{waiting},{wait:.2},{changes},\"{}\"", scenario.name, rate / PER_NODE, decision.why);
        if decision.nodes != nodes {
            nodes = decision.nodes;
            changes += 1;
            memory.changed(nodes, load.now_ms);
        }
    }
}

//! Example balancer: a request goes to the node that is expected to answer it soonest.
//!
//! The expectation, in microseconds:
//!
//! ```text
//! (latency - ttft * cached bytes / bytes of the prompt) * (1 + in flight / capacity) / (1 - failures)
//! ```
//!
//! - `latency` is the node's average over whole requests, or its time to the first token while no request has ended yet.
//! - The beginning of a prompt that the node has computed before costs nothing again: that share of the time to the first token is saved.
//! - Who is decoded in one batch with others waits for them: a full node is taken to be half as fast as an idle one.
//! - A failed request begins again elsewhere: at a share of failures `f` it takes `1 / (1 - f)` attempts on average.
//! - A node without history is expected to be as fast as the fastest one that is known. It gets its first requests as soon as that
//!   one is busier, and is judged by its own times from then on.
//! - One request in 64 goes anywhere: a node that was slow once would otherwise never be seen to have recovered.
//!
//! Candidates that are equally good take turns, by `entropy`. Scores are the inverse: requests per second.

#[allow(unsafe_code, missing_docs, clippy::pedantic, reason = "generated; `wit/policy.wit` holds the documentation")]
mod bindings {
    use super::LatencyAware;

    wit_bindgen::generate!({ path: "../../../wit", world: "llambo:policy/balancer@0.1.0" });
    export!(LatencyAware);
}

use bindings::exports::llambo::policy::balancing::{Candidates, Guest, Request};
use bindings::llambo::policy::host;

/// One of so many requests goes to any candidate.
const EXPLORED: u64 = 64;
/// Nodes are told apart up to this share of failures; 1 would be an answer never.
const MAX_FAILURES: f32 = 0.95;

struct LatencyAware;

impl Guest for LatencyAware {
    fn choose(request: Request, candidates: Candidates, entropy: u64) -> Option<u32> {
        let nodes = &candidates;
        let n = u64::try_from(nodes.node.len()).ok().filter(|n| *n > 0)?;
        // any time will do where none is known: they all get the same
        let known = (0..nodes.node.len()).filter_map(|place| history(nodes, place));
        let fastest = known.min_by(f32::total_cmp).unwrap_or(1e6);
        let expected: Vec<f32> =
            (0..nodes.node.len()).map(|place| expected_us(nodes, place, fastest, request.prompt_bytes)).collect();
        if request.explain {
            for (place, time) in (0..).zip(&expected) {
                host::score(place, 1e6 / time);
            }
        }
        if entropy % EXPLORED == 0 {
            return u32::try_from(entropy / EXPLORED % n).ok();
        }
        // the first of the best wins; where the list begins is drawn anew each time
        let first = entropy / EXPLORED % n;
        let places = (first..n).chain(0..first).filter_map(|place| usize::try_from(place).ok());
        let best = places.min_by(|a, b| expected[*a].total_cmp(&expected[*b]))?;
        u32::try_from(best).ok()
    }
}

/// What the node's requests took, in microseconds. None without history.
fn history(nodes: &Candidates, place: usize) -> Option<f32> {
    [nodes.latency_us[place], nodes.ttft_us[place]].into_iter().find(|time| *time > 0.0)
}

#[expect(clippy::cast_precision_loss, reason = "seven digits are more than the averages are good for")]
fn expected_us(nodes: &Candidates, place: usize, fastest: f32, prompt_bytes: u32) -> f32 {
    let computed = nodes.cached_bytes[place].min(prompt_bytes) as f32 / prompt_bytes.max(1) as f32;
    let time = history(nodes, place).unwrap_or(fastest);
    // without a measured beginning, it is all of a first token and none of an answer that is known to be saved
    let saved = nodes.ttft_us[place].clamp(0.0, time) * computed;
    let busy = nodes.in_flight[place] as f32 / nodes.capacity[place].max(1) as f32;
    let failures = nodes.failures[place].clamp(0.0, MAX_FAILURES);
    // never quite nothing, so that load still tells two nodes apart that have computed the whole prompt
    (time - saved).max(time / 100.0) * (1.0 + busy) / (1.0 - failures)
}

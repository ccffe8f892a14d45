//! Example scaler: keeps the nodes of a type about as busy as asked.
//!
//! Wanted are as many nodes as it takes for the requests that are served or waiting to make up the target share of their capacity:
//! `--parameters 70` is seventy percent, and the default. The rest is room for what comes in until the next look.
//!
//! - Up it goes at once and all the way: requests that wait are somebody's time.
//! - Down it goes by one node, and only when the number has stayed the same for a minute and one node less would still leave
//!   room. A lull costs little, and a node that was taken away too early costs a start and its KV cache.
//! - A type that is new or empty has no capacity to divide by: it gets one node as soon as somebody waits.
//!
//! The host keeps the number within `min-nodes` and `max-nodes`; it is cut here as well, so that the reason that operators read is true.

#[allow(unsafe_code, missing_docs, clippy::pedantic, reason = "generated; `wit/policy.wit` holds the documentation")]
mod bindings {
    use super::ScaleToLoad;

    wit_bindgen::generate!({ path: "../../../wit", world: "llambo:policy/scaler@0.1.0" });
    export!(ScaleToLoad);
}

use bindings::exports::llambo::policy::scaling::{Change, Guest, View};
use bindings::llambo::policy::host;

/// Percent of the capacity that is in use when all is well.
const DEFAULT_TARGET: u64 = 70;
/// Before nodes are taken away, the number has been the same for so long.
const CALM_MS: u64 = 60_000;
/// A type with one node less stays below this share of the target: else it would be up again with the next request.
const ROOM_PERCENT: u64 = 80;

struct ScaleToLoad;

impl Guest for ScaleToLoad {
    fn scale(view: View) -> Option<Change> {
        let parameters = host::parameters();
        let target = if parameters.is_empty() { Ok(DEFAULT_TARGET) } else { parameters.trim().trim_end_matches('%').parse() };
        let Some(target) = target.ok().filter(|target| (1..=100).contains(target)) else {
            // when it is loaded, so that it is refused with this line in the log
            host::log(&format!("`{parameters}` is no target: whole percent from 1 to 100 are"));
            panic!();
        };

        let busy = u64::from(view.in_flight) + u64::from(view.waiting);
        let least = view.min_nodes.max(u32::from(busy > 0));
        let wanted = nodes_for(busy, target, &view).clamp(least, view.max_nodes.max(least)).min(view.max_nodes);
        if wanted > view.nodes {
            return change(&view, wanted, busy, target);
        }
        let is_calm = view.since_change_ms.is_none_or(|time| time >= CALM_MS);
        let fewer = view.nodes.checked_sub(1).filter(|fewer| *fewer >= least)?;
        let has_room = nodes_for(busy, target * ROOM_PERCENT / 100, &view) <= fewer;
        if is_calm && has_room { change(&view, fewer, busy, target) } else { None }
    }
}

/// Nodes of which `busy` requests take up `percent`.
fn nodes_for(busy: u64, percent: u64, view: &View) -> u32 {
    // capacity is of all nodes; of one it is capacity / nodes, which need not be whole
    let nodes = (busy * 100 * u64::from(view.nodes)).div_ceil((u64::from(view.capacity) * percent).max(1));
    u32::try_from(nodes).unwrap_or(u32::MAX)
}

fn change(view: &View, nodes: u32, busy: u64, target: u64) -> Option<Change> {
    let by = i32::try_from(i64::from(nodes) - i64::from(view.nodes)).ok()?;
    let reason = format!("{busy} requests at a capacity of {}, of which {target}% should be used", view.capacity);
    Some(Change { by, reason })
}

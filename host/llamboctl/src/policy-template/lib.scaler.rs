//! Decides how many nodes a type has: here one more while requests wait, and one less after a minute at less than half its capacity.

wit_bindgen::generate!({ path: "wit", generate_all });

use exports::llambo::policy::scaling::{Change, Guest, View};

/// Before nodes are taken away, their number has been the same for so long.
const CALM_MS: u64 = 60_000;

struct Policy;

export!(Policy);

impl Guest for Policy {
    /// None leaves the type as it is.
    fn scale(view: View) -> Option<Change> {
        if view.waiting > 0 && view.nodes < view.max_nodes {
            // the reason is for operators
            return Some(Change { by: 1, reason: format!("{} requests wait", view.waiting) });
        }
        let is_calm = view.since_change_ms.is_none_or(|time| time >= CALM_MS);
        if is_calm && view.nodes > view.min_nodes && view.in_flight < view.capacity / 2 {
            return Some(Change { by: -1, reason: format!("{} of {} are in use", view.in_flight, view.capacity) });
        }
        None
    }
}

//! Chooses the node that serves a request: here the one with the most room.

wit_bindgen::generate!({ path: "wit", generate_all });

use exports::llambo::policy::balancing::{Candidates, Guest, Request};
use llambo::policy::host;

struct Policy;

export!(Policy);

impl Guest for Policy {
    /// The place of one of the candidates. None leaves the choice to the built-in strategy, whose own would be the first.
    fn choose(request: Request, candidates: Candidates, entropy: u64) -> Option<u32> {
        let n = candidates.node.len();
        // where the list begins is drawn anew each time: equal candidates take turns
        let first = usize::try_from(entropy % (n.max(1) as u64)).ok()?;
        let mut best: Option<(usize, f32)> = None;
        for place in (first..n).chain(0..first) {
            let score = score(&candidates, place);
            if request.explain {
                // shown by `llamboctl infer --explain`
                host::score(place as u32, score);
            }
            if best.is_none_or(|(_, most)| score > most) {
                best = Some((place, score));
            }
        }
        best.map(|(place, _)| place as u32)
    }
}

/// How good a node is; higher is better. Candidates come as columns: all that is known of one is at its place in each.
fn score(candidates: &Candidates, place: usize) -> f32 {
    1.0 - candidates.in_flight[place] as f32 / candidates.capacity[place].max(1) as f32
}

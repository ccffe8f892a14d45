//! Decides whether a request is let in: here nobody has more than a quarter of the host for himself while others wait.

wit_bindgen::generate!({ path: "wit", generate_all });

use exports::llambo::policy::admitting::{Guest, Load, Rejection, Request, Usage, Verdict};

struct Policy;

export!(Policy);

impl Guest for Policy {
    fn decide(request: Request, load: Load, usage: Usage) -> Verdict {
        let share = (load.max_in_flight / 4).max(1);
        if load.waiting == 0 || usage.in_flight < share {
            // a free node, or a place in the queue
            return Verdict::Admit;
        }
        if usage.waiting < share {
            // the same, but behind everybody who was admitted
            return Verdict::Queue;
        }
        Verdict::Reject(Rejection {
            retry_after_ms: load.retry_after_ms,
            // for the client
            reason: format!("`{}` has {} requests under way and {} waiting", request.tenant, usage.in_flight, usage.waiting),
        })
    }
}

//! Users' own policies: modules of the worlds in `wit/policy.wit` that answer the questions of `llambo_strategy`.
//!
//! ```text
//!  load ─► examine ─► compile, link ─► dry run ─► seat: live, canary, shadow ─► kept
//!                                                  │
//!  question ─► Policy::decide ─► whose turn ─► an instance that is free ─► check ─► answer
//!                                                  └─ trap, time, memory, nonsense: no answer, what is built in decides
//! ```
//!
//! Code of policies runs on the thread that asks, outside all locks of others, for as long as its time limit at most. It can reach nothing: it is handed plain
//! data. Whatever it does ends one call at most; what fails often is suspended.

mod bindings;
mod clock;
mod desk;
mod examined;
mod hooks;
mod installed;
mod instance;
mod machine;
mod occupants;
mod runner;
mod seat;
mod shadow;
mod state;
mod stats;
mod table;
mod told;
mod trial;
mod worlds;

pub use desk::{Policies, Settings};

/// Registers the names, units and meanings of this room's metrics with the recorder. To be called once it is installed.
pub fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_histogram};
    describe_counter!("llambo_policy_calls_total", "Calls of policies, by kind");
    describe_counter!("llambo_policy_fallbacks_total", "Calls after which what is built in decided, by kind and cause");
    describe_histogram!("llambo_policy_call_seconds", Unit::Seconds, "Time of one call of a policy, by kind");
}

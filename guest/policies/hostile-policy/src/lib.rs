//! Test policy, never a balancer: its parameters choose one way to misbehave. Without parameters it chooses the first candidate.
//!
//! | parameters | each call |
//! |---|---|
//! | `loop` | never returns |
//! | `trap` | traps |
//! | `memory` | takes memory until there is no more |
//! | `stack` | calls itself without end |
//! | `index` | chooses candidate 1000 |
//! | `none` | chooses none |
//! | `log` | logs 1000 lines of 2 KiB, then chooses the first |
//! | `slow:<n>` | counts to `n`, then chooses the first |
//! | `every:<n>:<mode>` | chooses the first, and each `n`-th call is as in `mode` |
//! | `after:<n>:<mode>` | chooses the first `n` times, then is as in `mode` |
//!
//! Calls are those of one instance. Anything else traps: a test with a slip in it is to fail.

#[allow(unsafe_code, missing_docs, clippy::pedantic, reason = "generated; `wit/policy.wit` holds the documentation")]
mod bindings {
    use super::HostilePolicy;

    wit_bindgen::generate!({ path: "../../../wit", world: "llambo:policy/balancer@0.1.0" });
    export!(HostilePolicy);
}

use std::{
    hint::black_box,
    mem,
    process::abort,
    sync::atomic::{AtomicU64, Ordering},
};

use bindings::exports::llambo::policy::balancing::{Candidates, Guest, Request};
use bindings::llambo::policy::host;

/// Of this instance.
static CALLS: AtomicU64 = AtomicU64::new(0);

struct HostilePolicy;

impl Guest for HostilePolicy {
    fn choose(_request: Request, _candidates: Candidates, _entropy: u64) -> Option<u32> {
        let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        misbehave(&host::parameters(), calls)
    }
}

fn misbehave(mode: &str, calls: u64) -> Option<u32> {
    let (name, rest) = mode.split_once(':').unwrap_or((mode, ""));
    match name {
        "" => Some(0),
        "loop" => spin(),
        "memory" => grow(),
        "stack" => {
            black_box(descend(u64::MAX, 1));
            Some(0)
        }
        "index" => Some(1000),
        "none" => None,
        "log" => {
            (0..1000).for_each(|_| host::log(&"x".repeat(2048)));
            Some(0)
        }
        "slow" => {
            (0..number(rest)).for_each(|n| {
                black_box(n);
            });
            Some(0)
        }
        "every" | "after" => {
            let (n, then) = rest.split_once(':').unwrap_or_else(|| abort());
            let n = number(n);
            let is_due = if name == "every" { n > 0 && calls % n == 0 } else { calls > n };
            if is_due { misbehave(then, calls) } else { Some(0) }
        }
        // `trap` too; without a message, as a panic would bring its formatting along
        _ => abort(),
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| abort())
}

/// Never returns and calls nothing: only its time can end it.
fn spin() -> ! {
    loop {
        black_box(0);
    }
}

/// Takes memory and touches all of it until there is no more.
fn grow() -> ! {
    loop {
        mem::forget(black_box(vec![1u8; 64 << 10]));
    }
}

#[expect(unconditional_recursion, reason = "to run out of stack")]
fn descend(n: u64, sum: u64) -> u64 {
    // the sum after the call keeps it from becoming a loop
    descend(black_box(n - 1), sum) + black_box(sum)
}

//! The edge under load, as its clients meet it: a process of its own on nodes without a model, so that what is seen is the doors' doing alone.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]
#![allow(clippy::print_stderr, reason = "figures for whoever reads the log")]

mod cancels;
mod connect;
mod crowd;
mod drain;
mod fuzzed;

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use llambo_client::{Ask, Client};
use llambo_proto::v1;
use llambo_tests::rehearsal::{Rehearsal, words};

/// Requests of good clients, and how many of them ask at a time.
const N_GOOD: usize = 200;
const GOOD_AT_ONCE: usize = 16;

/// Good requests, each answered and answered right; the longest time that one took.
async fn all_are_served(client: &Client) -> Duration {
    let each = |_| async {
        let began = Instant::now();
        let answer = client.infer(Ask::text("hello").node_type("quick").max_tokens(8)).await;
        assert_eq!(answer.expect("a good request is answered").text, words(8));
        began.elapsed()
    };
    let times: Vec<Duration> = stream::iter(0..N_GOOD).map(each).buffer_unordered(GOOD_AT_ONCE).collect().await;
    times.into_iter().max().unwrap()
}

/// In flight and waiting, as the host says.
async fn queue(client: &Client) -> v1::QueueStatus {
    client.status().await.unwrap().queue.unwrap()
}

/// Everything that belonged to requests is gone: places, answers, and all descriptors beyond `n_descriptors`.
async fn is_quiet_again(host: &Rehearsal, client: &Client, n_descriptors: usize) {
    llambo_tests::eventually("no request is left", async || {
        let queue = queue(client).await;
        queue.in_flight == 0 && queue.waiting == 0 && host.n_running(client).await == 0
    })
    .await;
    llambo_tests::eventually("connections are closed", async || host.n_descriptors() <= n_descriptors).await;
    let totals = client.status().await.unwrap().totals.unwrap();
    let ends = totals.finished + totals.failed + totals.cancelled + totals.rejected;
    assert_eq!(totals.requests, ends, "each request has one end: {totals:?}");
}

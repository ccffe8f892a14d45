//! Mixed load while isolates trap, break off, fall silent, are slow, and are drained and replaced: whatever happens, each request has one end, each text
//! that is told to its end is right, and afterwards nothing is left behind.
//!
//! A minute of it in every test run; `LLAMBO_CHAOS_SECONDS=600` makes it ten.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]

mod clients;
mod trouble;
mod web;

use std::{
    collections::BTreeMap,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use llambo_client::Client;
use llambo_tests::{Host, eventually};
use tokio::sync::watch;

use self::clients::{Expected, Tally};

/// Of each kind of client.
const CLIENTS: usize = 8;

const CONFIG: &str = "
models: [{name: demo-small, path: builtin:demo-small, sequences: 32}]
types:
  tiny: {count: 24}
  small: {count: 8}
balancing: {attempts: 6, stall-timeout: 1s}
queue: {max-waiting: 64, max-in-flight: 40, max-wait: 5s}
faults: {allow: true}
";

/// What a host holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    n_descriptors: usize,
    n_threads: usize,
    resident_kb: u64,
}

impl Held {
    fn of(host: &Host) -> Self {
        let folder = format!("/proc/{}", host.pid());
        let count = |what: &str| fs::read_dir(format!("{folder}/{what}")).unwrap().count();
        let status = fs::read_to_string(format!("{folder}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident_kb = resident.trim().trim_end_matches("kB").trim().parse().unwrap();
        Self { n_descriptors: count("fd"), n_threads: count("task"), resident_kb }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_each_request_has_one_end_and_nothing_is_left_behind() {
    let seconds = std::env::var("LLAMBO_CHAOS_SECONDS").map_or(60, |text| text.parse().expect("a number of seconds"));
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start(&format!("{CONFIG}tasks: {{folder: \"{}\"}}\n", folder.path().display()));
    let client = host.client().await;
    let expected = Arc::new(Expected::learn(&client).await);
    let begin = Held::of(&host);

    let (stop, stopped) = watch::channel(false);
    let until = Instant::now() + Duration::from_secs(seconds);
    let load = clients::all(&host, CLIENTS, &expected, until);
    let troubles = tokio::spawn(trouble::make(host.client().await, stopped));
    let tallies = join_all(load).await;
    stop.send_replace(true);
    let troubles = troubles.await.unwrap();
    client.clear_faults(Vec::new()).await.unwrap();

    let mut all = Tally::default();
    for (kind, tally) in tallies {
        println!("{kind:<22} {tally}");
        all.add(&tally);
    }
    println!("{:<22} {all}", "together");
    println!("troubles: {troubles:?}");
    assert_eq!(all.wrong, Vec::<String>::new(), "every finished text is right, and what failed had a reason to");
    assert!(all.finished as u64 > seconds * 10, "hardly anything was finished: {all}");
    assert!(all.cancelled > 0 && all.late > 0, "{all}");

    comes_to_rest(&client).await;
    let totals = client.status().await.unwrap().totals.unwrap();
    println!("host: {totals:?}");
    assert_eq!(totals.requests, totals.finished + totals.failed + totals.cancelled + totals.rejected, "{totals:?}");
    assert!(totals.redispatched > 0);
    drop(client);
    let mut end = Held::of(&host);
    eventually("descriptors and threads are given back", async || {
        end = Held::of(&host);
        end.n_descriptors <= begin.n_descriptors && end.n_threads <= begin.n_threads + 2
    })
    .await;
    println!("held before {begin:?}, after {end:?}");
    // what an allocator keeps is no leak; what grows with each request would be more
    assert!(end.resident_kb < begin.resident_kb + 200_000, "memory: {begin:?}, {end:?}");
    expected.hold(&host.client().await).await;
}

/// Nobody waits, nothing runs, and every node is ready.
async fn comes_to_rest(client: &Client) {
    let mut last = BTreeMap::new();
    eventually("the host comes to rest", async || {
        let status = client.status().await.unwrap();
        let queue = status.queue.unwrap();
        last = status.nodes_by_state.into_iter().collect();
        let idle = queue.in_flight == 0 && queue.waiting == 0 && status.models.iter().all(|m| m.n_running + m.n_waiting == 0);
        idle && last.keys().all(|state| state == "ready")
    })
    .await;
}

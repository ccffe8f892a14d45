//! Those who make trouble.

use std::{collections::BTreeMap, time::Duration};

use llambo_client::{Client, Fault, NodeFilter};
use tokio::sync::watch;

use crate::clients::dice;

/// One trouble after the other until it is told to stop; answers how often it made each.
pub(crate) async fn make(client: Client, stopped: watch::Receiver<bool>) -> BTreeMap<&'static str, usize> {
    let mut made = BTreeMap::new();
    for n in 0.. {
        if *stopped.borrow() {
            break;
        }
        let dice = dice(4711, n);
        let what = match dice % 7 {
            kind @ 0..=3 => {
                let kind = ["trap", "drop", "stall", "slow"][kind];
                let delay_ms = if kind == "slow" { 30 } else { 0 };
                let after_pieces = u32::try_from(dice / 7 % 12).unwrap();
                let fault = Fault { kind: kind.into(), share: 0.5, after_pieces, times: 6, delay_ms, ..Fault::default() };
                client.inject_fault(fault).await.unwrap();
                kind
            }
            4 => {
                client.clear_faults(Vec::new()).await.unwrap();
                "clear"
            }
            5 => {
                // nodes go, busy ones when they are done, and others take their place
                let filter = NodeFilter { limit: Some(24), ..NodeFilter::default() };
                let nodes = client.nodes(&filter).await.unwrap();
                let going: Vec<_> = nodes.into_iter().filter(|node| node.state != "draining").collect();
                let ids = going.iter().cycle().skip(dice % 24).take(2).map(|node| node.id.clone()).collect();
                client.drain_nodes(ids).await.unwrap();
                client.scale("tiny", 24).await.unwrap();
                client.scale("small", 8).await.unwrap();
                "drain"
            }
            _ => {
                let strategies = ["round-robin", "least-loaded", "power-of-two", "cognitive-affinity"];
                client.set_balancer(strategies[dice / 7 % 4]).await.unwrap();
                "strategy"
            }
        };
        *made.entry(what).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(100 + dice as u64 % 200)).await;
    }
    made
}

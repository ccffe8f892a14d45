//! `rehearsal`: llambo's edge and orchestrator on nodes without a model, until SIGTERM; or, with `--bare`, a plain tonic server that answers the same.
//!
//! For tests and benches. Says on standard output where it listens, as one line of JSON.
#![allow(clippy::print_stdout, reason = "whoever started it reads there where it listens")]

mod bare;

use std::time::Duration;

use clap::Parser;
use llambo_tests::rehearsal::{Stage, stage};
use tokio::signal::unix::{SignalKind, signal};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is measured is read this often, as something that scrapes would.
const UPKEEP: Duration = Duration::from_secs(5);

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    stage: Stage,
    /// Serve with nothing but tonic
    #[arg(long)]
    bare: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all();
    if !arguments.bare {
        // as in the program
        runtime.global_queue_interval(4).event_interval(16);
    }
    let runtime = runtime.build().expect("a runtime");
    if arguments.bare {
        runtime.block_on(bare::serve());
    } else {
        runtime.block_on(serve(&arguments.stage));
    }
    // as in the program: what is left are tasks of connections that were cut
    runtime.shutdown_timeout(Duration::from_secs(1));
}

async fn serve(setting: &Stage) {
    let metrics = llambo_telemetry::record().expect("the only recorder");
    let mut term = signal(SignalKind::terminate()).expect("signals can be watched");
    let upkeep = metrics.clone();
    let keeping = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    });
    let (bound, host) = stage(setting, metrics).await;
    println!("{}", serde_json::json!({"grpc": bound.grpc_addr(), "http": bound.http_addr()}));
    let (cluster, drain) = (host.cluster.clone(), Duration::from_millis(setting.drain_ms));
    let shutdown = async move {
        term.recv().await;
        cluster.start_drain();
        // what is not done by then is cut off
        let _ = cluster.drained(drain).await;
    };
    Box::pin(bound.serve(host, shutdown)).await.expect("it serves to its end");
    keeping.abort();
}

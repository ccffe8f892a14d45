//! `bench load`: many requests, and what became of them.

mod load;
mod report;
mod tally;

use std::{fs, io, path::Path, time::Duration};

use llambo_client::{Ask, Client, Credentials};

use self::load::{Pace, Run};
use crate::{
    args::bench::BenchLoad,
    exit::{Failure, INTERRUPTED, NO, OK},
    output,
};

/// Requests in flight on one connection: about where a second connection starts to pay.
const PER_CONNECTION: u32 = 64;
/// How long an open loop runs unless it is told.
const OPEN_FOR: Duration = Duration::from_secs(10);
/// Connections opened unless told otherwise.
const MAX_CONNECTIONS: u32 = 16;

pub(crate) async fn load((host, credentials): (&str, &Credentials), args: &BenchLoad, json: bool) -> Result<u8, Failure> {
    let concurrency = args.concurrency as usize;
    let pace = match (args.rate, args.duration) {
        (Some(per_second), duration) => Pace::open(per_second, duration.unwrap_or(OPEN_FOR)),
        (None, Some(duration)) => Pace::Timed { concurrency, duration },
        (None, None) => Pace::Closed { concurrency, requests: args.requests },
    };
    let n_connections = args.connections.unwrap_or_else(|| match pace {
        Pace::Closed { .. } | Pace::Timed { .. } => args.concurrency.div_ceil(PER_CONNECTION).clamp(1, MAX_CONNECTIONS),
        // how many will be in flight is what an open loop finds out
        Pace::Open { .. } => MAX_CONNECTIONS,
    });
    // a report that cannot be written is better known before the run than after it
    // and what stands there already stays until then
    if let Some(path) = &args.json_file {
        fs::OpenOptions::new().create(true).append(true).open(path).map_err(|e| cannot_write(path, &e))?;
    }
    // opened before the clock starts
    let mut clients = Vec::with_capacity(n_connections as usize);
    for _ in 0..n_connections {
        clients.push(Client::connect_with(host, credentials).await?);
    }
    let progress = output::progress(pace.requests(), "requests", json);
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // without a handler Ctrl-C ends the process, as it does by default
            std::future::pending::<()>().await;
        }
    };
    let (tally, is_cut_short) = Run { clients, ask: ask(args), pace, progress: progress.clone() }.drive(interrupt).await;
    progress.finish_and_clear();

    let report = report::to_json(&tally, pace, is_cut_short);
    if let Some(path) = &args.json_file {
        let written = fs::File::create(path).and_then(|mut file| output::json(&mut file, &report));
        written.map_err(|e| cannot_write(path, &e))?;
    }
    let mut out = io::stdout().lock();
    if json {
        output::json(&mut out, &report)?;
    } else {
        report::to_text(&mut out, &tally, pace, is_cut_short)?;
    }
    Ok(match (is_cut_short, tally.failed()) {
        (true, _) => INTERRUPTED,
        (false, 0) => OK,
        (false, _) => NO,
    })
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::cannot_create(format!("cannot write `{}`: {error}", path.display()))
}

fn ask(args: &BenchLoad) -> Ask {
    let mut ask = Ask::text(&args.prompt).max_tokens(args.max_tokens);
    if let Some(model) = &args.target.model {
        ask = ask.model(model);
    }
    if let Some(node_type) = &args.target.node_type {
        ask = ask.node_type(node_type);
    }
    if let Some(timeout) = args.timeout {
        ask = ask.timeout(timeout);
    }
    ask
}

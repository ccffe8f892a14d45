//! Keeps requests going, in one of two ways.
//!
//! A closed loop starts the next request when one is done: it finds the throughput, but a slow host slows the load too, and
//! the latencies look better than users would have them. An open loop starts requests on a fixed timetable and measures
//! each from when it should have started, not from when it could: what a stall costs those behind it is counted
//! (Gil Tene's "coordinated omission").

use std::{future::Future, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use indicatif::ProgressBar;
use llambo_client::{Ask, Client, Error, Event};
use tokio::time::{Instant, sleep_until};

use super::tally::{Sample, Tally};

/// Requests of an open loop in flight at most; those due beyond wait, and their waiting counts. Keeps a host that stands
/// still from filling this machine's memory.
const MAX_IN_FLIGHT: usize = 20_000;
/// After the last request of an open loop was due, those that had no room until then are given up.
const GRACE: Duration = Duration::from_secs(1);
/// The reason that these are counted under.
const NOT_STARTED: &str = "NOT_STARTED";

/// When requests start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// `concurrency` at any time until `requests` were started.
    Closed { concurrency: usize, requests: u64 },
    /// The same for so long; those in flight then are waited for.
    Timed { concurrency: usize, duration: Duration },
    /// `requests` of them, `per_second` each second.
    Open { per_second: f64, requests: u64 },
}

pub(crate) struct Run {
    /// Requests go round these; at least one.
    pub(crate) clients: Vec<Client>,
    pub(crate) ask: Ask,
    pub(crate) pace: Pace,
    /// Told of each request that ended.
    pub(crate) progress: ProgressBar,
}

impl Pace {
    pub(crate) fn open(per_second: f64, duration: Duration) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive count; the largest is 1e6/s for a day"
        )]
        let requests = (per_second * duration.as_secs_f64()).ceil().max(1.0) as u64;
        Self::Open { per_second, requests }
    }

    /// How many there will be; `None`: as many as there is time for.
    pub(crate) fn requests(self) -> Option<u64> {
        match self {
            Self::Closed { requests, .. } | Self::Open { requests, .. } => Some(requests),
            Self::Timed { .. } => None,
        }
    }

    /// When request `i` is due, if it depends on the clock alone.
    fn due(self, begin: Instant, i: u64) -> Option<Instant> {
        match self {
            Self::Closed { .. } | Self::Timed { .. } => None,
            Self::Open { per_second, .. } => Some(begin + Duration::from_secs_f64(i as f64 / per_second)),
        }
    }

    /// When no more requests are started.
    fn end(self, begin: Instant) -> Option<Instant> {
        match self {
            Self::Closed { .. } => None,
            Self::Timed { duration, .. } => Some(begin + duration),
            Self::Open { requests, .. } => self.due(begin, requests).map(|due| due + GRACE),
        }
    }

    fn has_room(self, in_flight: usize) -> bool {
        match self {
            Self::Closed { concurrency, .. } | Self::Timed { concurrency, .. } => in_flight < concurrency,
            Self::Open { .. } => in_flight < MAX_IN_FLIGHT,
        }
    }
}

impl Run {
    /// Runs until all is done or `interrupt` is, and says whether it was interrupted. Requests in flight then are
    /// cancelled and not counted.
    pub(crate) async fn drive(self, interrupt: impl Future<Output = ()>) -> (Tally, bool) {
        let Self { clients, ask, pace, progress } = self;
        tokio::pin!(interrupt);
        let begin = Instant::now();
        let mut tally = Tally::default();
        let mut in_flight = FuturesUnordered::new();
        let mut next_client = clients.iter().cycle();
        let mut n_started = 0;
        let mut is_interrupted = false;
        let end = pace.end(begin);
        let mut n_all = pace.requests().unwrap_or(u64::MAX);
        while n_started < n_all || !in_flight.is_empty() {
            let is_starting = n_started < n_all;
            let due = pace.due(begin, n_started);
            tokio::select! {
                () = &mut interrupt => {
                    is_interrupted = true;
                    break;
                }
                Some(sample) = in_flight.next(), if !in_flight.is_empty() => {
                    tally.add(sample);
                    progress.inc(1);
                }
                () = sleep_until(end.unwrap_or(begin)), if is_starting && end.is_some() => {
                    if let Some(requests) = pace.requests() {
                        tally.errors.insert(NOT_STARTED.into(), requests - n_started);
                    }
                    n_all = n_started;
                }
                () = sleep_until(due.unwrap_or(begin)), if is_starting && pace.has_room(in_flight.len()) => {
                    let client = next_client.next().expect("there is at least one connection");
                    in_flight.push(request(client, ask.clone(), due.unwrap_or_else(Instant::now)));
                    n_started += 1;
                }
            }
        }
        tally.elapsed = begin.elapsed();
        (tally, is_interrupted)
    }
}

/// One request from `start` on, to its end.
async fn request(client: &Client, ask: Ask, start: Instant) -> Sample {
    let mut sample = Sample::default();
    let end = stream(client, ask, start, &mut sample).await;
    sample.total = start.elapsed();
    sample.error = end.err().map(|e| e.reason().to_owned());
    sample
}

async fn stream(client: &Client, ask: Ask, start: Instant, sample: &mut Sample) -> Result<(), Error> {
    let mut events = client.generate(ask).await?;
    let mut last = None;
    while let Some(event) = events.next().await {
        match event? {
            Event::Started(started) => sample.node = started.node,
            Event::Piece(piece) => {
                let now = Instant::now();
                match last.replace(now) {
                    None => sample.ttft = Some(now - start),
                    Some(before) => sample.gaps.push((now - before, piece.n_tokens.max(1))),
                }
            }
            Event::Finished(finished) => sample.n_tokens = finished.usage.unwrap_or_default().output_tokens,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_keeps_its_timetable() {
        let pace = Pace::open(4.0, Duration::from_secs(3));
        assert_eq!(pace.requests(), Some(12));
        let begin = Instant::now();
        assert_eq!(pace.due(begin, 0), Some(begin));
        assert_eq!(pace.due(begin, 6), Some(begin + Duration::from_millis(1500)));
    }

    #[tokio::test]
    async fn every_request_is_counted_even_when_nobody_answers() {
        let client = Client::connect_lazily("http://127.0.0.1:1").unwrap();
        let pace = Pace::Closed { concurrency: 3, requests: 10 };
        let run = Run { clients: vec![client], ask: Ask::text("x"), pace, progress: ProgressBar::hidden() };
        let (tally, is_cut_short) = run.drive(std::future::pending()).await;
        assert_eq!((tally.failed(), tally.finished, is_cut_short), (10, 0, false));
        assert_eq!(tally.errors["UNREACHABLE"], 10);
    }

    #[tokio::test]
    async fn a_closed_loop_ends_when_its_time_is_over() {
        let client = Client::connect_lazily("http://127.0.0.1:1").unwrap();
        let pace = Pace::Timed { concurrency: 3, duration: Duration::from_millis(300) };
        let run = Run { clients: vec![client], ask: Ask::text("x"), pace, progress: ProgressBar::hidden() };
        let (tally, is_cut_short) = run.drive(std::future::pending()).await;
        assert!(tally.failed() >= 3 && tally.elapsed >= Duration::from_millis(300) && !is_cut_short);
        assert_eq!(tally.errors.keys().collect::<Vec<_>>(), ["UNREACHABLE"]);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_without_room_are_given_up_when_time_is_over() {
        // a host that takes connections and says nothing
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::connect_lazily(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
        let ask = Ask::text("x").timeout(Duration::from_secs(20));
        let pace = Pace::open(10_000.0, Duration::from_secs(3));
        let (tally, _) =
            Run { clients: vec![client], ask, pace, progress: ProgressBar::hidden() }.drive(std::future::pending()).await;
        assert_eq!(tally.errors[NOT_STARTED], 10_000);
        assert_eq!(tally.failed(), 30_000);
    }

    #[tokio::test]
    async fn an_interrupt_ends_it_early() {
        let client = Client::connect_lazily("http://127.0.0.1:1").unwrap();
        let run = Run {
            clients: vec![client],
            ask: Ask::text("x"),
            pace: Pace::open(1.0, Duration::from_hours(1)),
            progress: ProgressBar::hidden(),
        };
        let (_, is_cut_short) = run.drive(tokio::time::sleep(Duration::from_millis(5))).await;
        assert!(is_cut_short);
    }
}

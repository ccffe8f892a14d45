//! One task sends what waits, in batches. A collector that is slow or gone costs the spans that it misses and nothing else.

use std::{pin::pin, time::Duration};

use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    Waiting, count,
    destination::{Destination, EXPORT_WITHIN},
};
use crate::TelemetryError;

/// Spans sent together.
const BATCH_SPANS: usize = 512;
/// How long the first of them waits for others.
const BATCH_EVERY: Duration = Duration::from_millis(500);
/// Between two tries while the collector takes nothing: twice as long each time, within these.
const RETRY_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// What all that waits gets when the host ends.
const END_WITHIN: Duration = Duration::from_secs(2);
/// Of which this is left for counting what did not go.
const LAST_WORD: Duration = Duration::from_millis(100);

/// The task that sends. Dropping it ends it within two seconds, and waits for nothing.
#[derive(Debug)]
pub struct Exporting {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

struct Sender<E> {
    exporter: E,
    endpoint: String,
    /// The wait before the next try, while nothing goes through.
    pause: Option<Duration>,
}

/// One batch, counted as it drops.
struct Outcome {
    n_spans: usize,
    is_sent: bool,
}

impl Exporting {
    /// Sends what comes out of the queue to `destination`, from now on.
    ///
    /// # Errors
    /// [`TelemetryError::Destination`] when it is no place that can be sent to. Whether anybody listens there is not looked at.
    pub fn start(waiting: Waiting, destination: &Destination) -> Result<Self, TelemetryError> {
        let exporter = destination.exporter()?;
        let sender = Sender { exporter, endpoint: destination.endpoint.clone(), pause: None };
        let (stop, stopped) = oneshot::channel();
        Ok(Self { stop, task: tokio::spawn(sender.run(waiting.0, stopped)) })
    }

    /// Sends what waits and ends, within two seconds in any case.
    pub async fn finish(mut self) {
        let _ = self.stop.send(());
        if timeout(END_WITHIN, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl<E: SpanExporter> Sender<E> {
    async fn run(mut self, mut waiting: mpsc::Receiver<SpanData>, mut stopped: oneshot::Receiver<()>) {
        let mut batch = Vec::new();
        let end = loop {
            tokio::select! {
                _ = &mut stopped => break Instant::now() + END_WITHIN,
                () = fill(&mut waiting, &mut batch) => {}
            }
            if batch.is_empty() {
                return;
            }
            let end = {
                let mut sending = pin!(self.send(std::mem::take(&mut batch), Instant::now() + EXPORT_WITHIN));
                tokio::select! {
                    _ = &mut stopped => {
                        // what is under way goes on, but not for long
                        let end = Instant::now() + END_WITHIN;
                        let _ = timeout_at(end - LAST_WORD, sending).await;
                        Some(end)
                    }
                    () = &mut sending => None,
                }
            };
            if let Some(end) = end {
                break end;
            }
            if let Some(pause) = self.pause {
                tokio::select! {
                    _ = &mut stopped => break Instant::now() + END_WITHIN,
                    () = sleep(pause) => {}
                }
            }
        };
        waiting.close();
        while let Ok(span) = waiting.try_recv() {
            batch.push(span);
        }
        while !batch.is_empty() {
            let rest = batch.split_off(batch.len().min(BATCH_SPANS));
            let first = std::mem::replace(&mut batch, rest);
            if self.pause.is_some() {
                // it was not taken, and there is no time to try each batch
                count("failed", first.len());
            } else {
                self.send(first, end - LAST_WORD).await;
            }
        }
    }

    /// Gives up at `until`. Tells the log when it begins to fail and when it works again, not each time.
    async fn send(&mut self, batch: Vec<SpanData>, until: Instant) {
        let n_spans = batch.len();
        // counted as failed also where this is dropped before its end
        let mut outcome = Outcome { n_spans, is_sent: false };
        let sent = timeout_at(until, self.exporter.export(batch)).await;
        let error = match sent {
            Ok(Ok(())) => {
                outcome.is_sent = true;
                if self.pause.take().is_some() {
                    tracing::info!(endpoint = self.endpoint, "the collector takes traces again");
                }
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it did not answer in time".to_owned(),
        };
        let [first, most] = RETRY_AFTER;
        match self.pause {
            None => {
                tracing::warn!(endpoint = self.endpoint, error, "the collector takes no traces: they are lost, requests go on");
                self.pause = Some(first);
            }
            Some(pause) => self.pause = Some((pause * 2).min(most)),
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        count(if self.is_sent { "sent" } else { "failed" }, self.n_spans);
    }
}

/// Waits for a first span, and then a little for others.
async fn fill(waiting: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>) {
    if waiting.recv_many(batch, BATCH_SPANS).await == 0 {
        return;
    }
    let until = Instant::now() + BATCH_EVERY;
    while batch.len() < BATCH_SPANS {
        let room = BATCH_SPANS - batch.len();
        match timeout_at(until, waiting.recv_many(batch, room)).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
    }
}

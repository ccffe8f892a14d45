//! What the host writes about itself: to standard error, never a prompt or an answer.

use std::{
    io::{self, IsTerminal},
    sync::mpsc::sync_channel,
    thread,
    time::Duration,
};

use llambo_inference::trace::TARGET;
use tracing::Subscriber;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, Targets},
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{SpanQueue, TelemetryError};

/// Lines that wait for whoever reads them. Those beyond are lost, and counted.
const MAX_WAITING: usize = 16_384;
/// What lines that wait get to be written at the end.
const LAST_LINES: Duration = Duration::from_secs(2);
pub(crate) const LOST: &str = "llambo_log_lines_lost_total";

/// Which lines are written, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logs {
    /// A level, or levels for parts: `warn,llambo_llama=debug`.
    pub level: String,
    /// For whom.
    pub format: LogFormat,
}

/// Who reads the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// People.
    #[default]
    Text,
    /// Programs: one JSON object on each line, with `timestamp`, `level`, `target`, `message` and the line's own fields beside them.
    Json,
}

/// Lines are written as long as this is there; its end writes those that wait, if somebody takes them.
pub struct Writing {
    guard: Option<WorkerGuard>,
    lost: ErrorCounter,
}

impl Writing {
    /// Brings the metrics of the lines up to date.
    pub fn publish(&self) {
        metrics::counter!(LOST).absolute(self.lost.dropped_lines() as u64);
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let guard = self.guard.take();
        let (done, is_done) = sync_channel::<()>(1);
        // on a thread that may be left behind: the guard itself has something to say to standard output, which may be as full
        let ending = thread::Builder::new().name("llambo-log-end".into()).spawn(move || {
            drop(guard);
            drop(done);
        });
        if ending.is_ok() {
            let _ = is_done.recv_timeout(LAST_LINES);
        }
    }
}

/// On a thread of its own: a terminal that was halted or a full pipe holds up nobody who has something to say.
fn patient(writer: impl io::Write + Send + 'static, max_waiting: usize) -> (NonBlocking, Writing) {
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(max_waiting).thread_name("llambo-log");
    let (lines, guard) = builder.finish(writer);
    let lost = lines.error_counter();
    (lines, Writing { guard: Some(guard), lost })
}

impl Logs {
    /// Writes to standard error from now on, and takes the parts of traces where there is a queue for them.
    ///
    /// # Errors
    /// [`TelemetryError::Level`], or [`TelemetryError::Taken`] when this was done before.
    pub fn start(&self, spans: Option<&SpanQueue>) -> Result<Writing, TelemetryError> {
        let (lines, writing) = patient(io::stderr(), MAX_WAITING);
        let subscriber = self.subscriber(spans, lines, io::stderr().is_terminal())?;
        subscriber.try_init().map_err(|e| TelemetryError::Taken(e.to_string()))?;
        Ok(writing)
    }

    /// The same, to a writer of the caller's.
    fn subscriber<W>(
        &self,
        spans: Option<&SpanQueue>,
        writer: W,
        is_terminal: bool,
    ) -> Result<impl Subscriber + Send + Sync + use<W>, TelemetryError>
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let filter = EnvFilter::try_new(&self.level).map_err(|e| TelemetryError::Level(e.to_string()))?;
        // parts of traces are spans that no line belongs to
        let off = format!("{TARGET}=off").parse().map_err(|_| TelemetryError::Level(self.level.clone()))?;
        let lines = fmt::layer().with_writer(writer).with_ansi(is_terminal);
        let lines: Box<dyn Layer<Registry> + Send + Sync> = match self.format {
            LogFormat::Text => lines.boxed(),
            LogFormat::Json => lines.with_ansi(false).json().flatten_event(true).boxed(),
        };
        let spans = spans.map(|spans| spans.layer().with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO)));
        Ok(tracing_subscriber::registry().with(lines.with_filter(filter.add_directive(off))).with(spans))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, level: &str, say: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let logs = Logs { level: level.into(), format };
        let subscriber = logs.subscriber(None, move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, say);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn who_reads_no_lines_holds_up_nobody() {
        /// Takes nothing until it is let.
        struct Halted(std::sync::mpsc::Receiver<()>);
        impl io::Write for Halted {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (go_on, halted) = std::sync::mpsc::sync_channel::<()>(1);
        let (lines, writing) = patient(Halted(halted), 10);
        let logs = Logs { level: "info".into(), format: LogFormat::Text };
        let subscriber = logs.subscriber(None, lines, false).unwrap();
        tracing::subscriber::with_default(subscriber, || (0..1000).for_each(|n| tracing::info!(n, "said")));
        assert!((980..1000).contains(&writing.lost.dropped_lines()), "{}", writing.lost.dropped_lines());
        drop(go_on);
    }

    #[test]
    fn each_line_is_one_json_object_with_flat_fields() {
        let text = written(LogFormat::Json, "info", || {
            tracing::info!(request_id = %"00ff", trace_id = tracing::field::display("ab"), n_generated = 3, "answered");
            tracing::warn!(what = "quotes \" and\nnew lines", "odd");
            tracing::debug!("not at this level");
        });
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        for line in &lines {
            for field in ["timestamp", "level", "target", "message"] {
                assert!(line[field].is_string(), "{field}: {line}");
            }
        }
        assert_eq!((&lines[0]["request_id"], &lines[0]["n_generated"]), (&"00ff".into(), &3.into()));
        assert_eq!(lines[0]["trace_id"], "ab");
        assert_eq!(lines[1]["what"], "quotes \" and\nnew lines");
    }

    #[test]
    fn parts_of_traces_are_no_lines_even_where_everything_is_written() {
        let text = written(LogFormat::Text, "trace", || {
            let _span = tracing::info_span!(target: TARGET, "llambo.request").entered();
            tracing::info!("said");
        });
        assert!(text.contains("said") && !text.contains("llambo.request"), "{text}");
    }

    #[test]
    fn a_level_that_cannot_be_read_is_told() {
        let logs = Logs { level: "llambo=loud".into(), format: LogFormat::Text };
        let error = logs.subscriber(None, io::sink, false).err().unwrap();
        assert!(error.to_string().starts_with("logging.level: "), "{error}");
    }
}

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, ErrorKind, IsTerminal, Write},
    path::Path,
    time::Duration,
};

use clap::{CommandFactory, error};
use futures::{Stream, StreamExt, stream};
use llambo_client::{ReplayRoutesResponse, ReplayWith, RouteRecord, RouteStream, route_record::Event};
use serde_json::json;
use tokio::{
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{Session, policies, replays, wasm};
use crate::{
    args::{
        Args,
        policy::{Record, Replay},
    },
    exit::{Failure, OK},
    output,
    trace::{self, Reader},
};

/// What a program that is killed loses at most.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// When no end was told for as long, the wait for the last ends of `--max` is over.
const LAST_ENDS: Duration = Duration::from_mins(1);

/// What a recording has so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    decisions: u64,
    ends: u64,
    missed: u64,
    /// Decisions written whose ends are not. Kept only when their number has a limit.
    open: HashSet<u64>,
}

/// Whether a recording goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    On,
    /// It has all that it was to have.
    Over,
}

pub(crate) async fn record(session: &Session, args: &Record) -> Result<u8, Failure> {
    // first the host, so that one that is not there leaves no empty file behind
    let records = session.client.record_routes().await?;
    let mut file = BufWriter::new(create(args)?);
    if !session.json && io::stderr().is_terminal() {
        let _ = writeln!(io::stderr(), "recording to {}; Ctrl-C ends it", args.file.display());
    }
    let started = Instant::now();
    let mut tally = Tally::default();
    let ended = write_all(records, &mut file, &mut tally, args).await;
    let failed = |e: io::Error| Failure::io(&format!("write to `{}`", args.file.display()), &e);
    file.flush().map_err(failed)?;
    let Tally { decisions, ends, missed, .. } = tally;
    let name = args.file.display();
    ended.map_err(|failure| {
        failure.with_note(&format!("`{name}` has the {decisions} decisions and {ends} ends that came before"))
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let mut out = io::stdout().lock();
    if session.json {
        let value =
            json!({ "file": name.to_string(), "decisions": decisions, "ends": ends, "missed": missed, "seconds": seconds });
        output::json(&mut out, &value)?;
    } else {
        writeln!(out, "{name} has {decisions} decisions and {ends} ends of {}; {missed} were missed", output::age(seconds))?;
        if decisions > 0 {
            writeln!(out, "`llamboctl policy replay {name} --with STRATEGY` says what another strategy would have done")?;
        }
    }
    Ok(OK)
}

/// Writes what comes until it is over for any reason. Ctrl-C is a good one.
async fn write_all(mut records: RouteStream, file: &mut impl Write, tally: &mut Tally, args: &Record) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::io(&format!("write to `{}`", args.file.display()), &e);
    let over = sleep(args.time.unwrap_or(Duration::MAX));
    tokio::pin!(over);
    let mut flush = interval(FLUSH_EVERY);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            biased;
            interrupt = tokio::signal::ctrl_c() => return interrupt.map_err(|e| Failure::io("listen for Ctrl-C", &e)),
            () = &mut over => return Ok(()),
            _ = flush.tick() => {
                file.flush().map_err(failed)?;
                if tally.is_full(args.max) && last.elapsed() > LAST_ENDS {
                    return Ok(());
                }
            }
            record = records.next() => {
                let Some(record) = record.transpose()? else { return Ok(()) };
                let (is_written, goes) = tally.count(&record, args.max);
                if is_written && let Some(line) = trace::line(record) {
                    last = Instant::now();
                    writeln!(file, "{line}").map_err(failed)?;
                }
                if goes == Goes::Over {
                    return Ok(());
                }
            }
        }
    }
}

fn create(args: &Record) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    options.write(true);
    if args.force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options.open(&args.file).map_err(|e| {
        let name = args.file.display();
        Failure::cannot_create(match e.kind() {
            ErrorKind::AlreadyExists => format!("`{name}` exists; give another name, or overwrite it with `--force`"),
            _ => format!("cannot write `{name}`: {e}"),
        })
    })
}

pub(crate) async fn replay(session: &Session, args: Replay) -> Result<u8, Failure> {
    let Replay { trace, with, settings } = args;
    let name = trace.display().to_string();
    let path = Path::new(&with);
    let with = if path.is_file() || path.extension().is_some_and(|found| found.eq_ignore_ascii_case("wasm")) {
        ReplayWith::policy(wasm::read(path)?)
            .parameters(policies::parameters(&settings)?)
            .time_us(settings.time.unwrap_or(0))
            .memory_bytes(settings.memory.unwrap_or(0))
    } else if settings.is_empty() {
        ReplayWith::strategy(&with)
    } else {
        let message = format!(
            "there is no file `{with}`, so that it is a strategy; `--parameters`, `--parameters-file`, `--time` and `--memory` are for policies"
        );
        return Err(Failure::usage(&Args::command().error(error::ErrorKind::ArgumentConflict, message)));
    };
    let file = File::open(&trace).map_err(|e| Failure::bad_input(format!("cannot read `{name}`: {e}")))?;
    let done = tokio::select! {
        biased;
        interrupt = tokio::signal::ctrl_c() => {
            interrupt.map_err(|e| Failure::io("listen for Ctrl-C", &e))?;
            return Err(Failure::interrupted());
        }
        done = send(session, with, Reader::new(BufReader::new(file), &name)) => done?,
    };
    if done.decisions == 0 {
        return Err(Failure::bad_input(format!(
            "`{name}` has no decisions; `llamboctl policy record` writes them while requests flow"
        )));
    }
    let mut out = io::stdout().lock();
    if session.json {
        output::json(&mut out, &replays::to_json(&done))?;
    } else {
        replays::show(&mut out, &done)?;
    }
    Ok(OK)
}

/// Sends a trace as fast as the host reads it. A line that cannot be read ends the call.
async fn send(session: &Session, with: ReplayWith, reader: Reader<BufReader<File>>) -> Result<ReplayRoutesResponse, Failure> {
    let (tell, broken) = oneshot::channel::<String>();
    let records = whole(reader, tell);
    tokio::select! {
        biased;
        Ok(what) = broken => Err(Failure::bad_input(what)),
        done = session.client.replay_routes(with, records) => Ok(done?),
    }
}

/// The records of a trace. A line that cannot be read is told, and then nothing comes any more, not even the end: the host must not take the part before
/// it for the whole.
fn whole<R: BufRead>(reader: Reader<R>, tell: oneshot::Sender<String>) -> impl Stream<Item = RouteRecord> {
    stream::unfold((reader, tell), |(mut reader, tell)| async move {
        match reader.next()? {
            Ok(record) => Some((record, (reader, tell))),
            Err(what) => {
                let _ = tell.send(what);
                std::future::pending().await
            }
        }
    })
}

// === impl Tally ===

impl Tally {
    /// Counts an event, and says whether it belongs into the file.
    fn count(&mut self, record: &RouteRecord, max: Option<u64>) -> (bool, Goes) {
        let was_full = self.is_full(max);
        let is_written = match &record.event {
            Some(Event::Decision(_)) if was_full => false,
            Some(Event::Decision(decision)) => {
                self.decisions += 1;
                if max.is_some() {
                    self.open.insert(decision.number);
                }
                true
            }
            Some(Event::End(end)) => {
                let is_ours = self.open.remove(&end.number) || !was_full;
                self.ends += u64::from(is_ours);
                is_ours
            }
            Some(Event::NMissed(n)) => {
                self.missed += n;
                true
            }
            None => false,
        };
        // an end that was missed never comes
        let is_over = self.is_full(max) && (self.open.is_empty() || self.missed > 0);
        (is_written, if is_over { Goes::Over } else { Goes::On })
    }

    fn is_full(&self, max: Option<u64>) -> bool {
        max.is_some_and(|max| self.decisions >= max)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;
    use llambo_client::{RouteDecision, RouteEnd};

    use super::*;

    fn decision(number: u64) -> RouteRecord {
        RouteRecord { event: Some(Event::Decision(RouteDecision { number, ..RouteDecision::default() })) }
    }

    fn end(number: u64) -> RouteRecord {
        RouteRecord { event: Some(Event::End(RouteEnd { number, ..RouteEnd::default() })) }
    }

    #[test]
    fn a_limited_recording_has_the_ends_of_its_decisions() {
        let mut tally = Tally::default();
        let max = Some(2);
        // of a request that was under way before
        assert_eq!(tally.count(&end(1), max), (true, Goes::On));
        assert_eq!(tally.count(&decision(2), max), (true, Goes::On));
        assert_eq!(tally.count(&decision(3), max), (true, Goes::On));
        assert_eq!(tally.count(&decision(4), max), (false, Goes::On));
        assert_eq!(tally.count(&end(3), max), (true, Goes::On));
        assert_eq!(tally.count(&end(4), max), (false, Goes::On));
        assert_eq!(tally.count(&end(2), max), (true, Goes::Over));
        assert_eq!((tally.decisions, tally.ends, tally.missed), (2, 3, 0));
    }

    #[test]
    fn an_end_that_was_missed_is_not_waited_for() {
        let mut tally = Tally::default();
        assert_eq!(tally.count(&decision(1), Some(1)), (true, Goes::On));
        assert_eq!(tally.count(&RouteRecord { event: Some(Event::NMissed(5)) }, Some(1)), (true, Goes::Over));
        assert_eq!(tally.missed, 5);
    }

    #[test]
    fn without_a_limit_nothing_is_kept() {
        let mut tally = Tally::default();
        for n in 0..100 {
            assert_eq!(tally.count(&decision(n), None), (true, Goes::On));
        }
        assert_eq!((tally.decisions, tally.open.len()), (100, 0));
    }

    #[test]
    fn a_trace_with_a_bad_line_never_ends_for_the_host() {
        let (tell, mut broken) = oneshot::channel();
        let mut records = pin!(whole(Reader::new(&b"{\"missed\": 1}\n{}\n"[..], "t"), tell));
        assert!(records.next().now_or_never().unwrap().is_some());
        assert_eq!(records.next().now_or_never(), None, "the stream ended");
        assert!(broken.try_recv().unwrap().starts_with("t:2: "));
        let (tell, mut broken) = oneshot::channel();
        let mut good = pin!(whole(Reader::new(&b"{\"missed\": 1}\n"[..], "t"), tell));
        assert!(good.next().now_or_never().unwrap().is_some());
        assert_eq!(good.next().now_or_never(), Some(None));
        assert!(broken.try_recv().is_err());
    }
}

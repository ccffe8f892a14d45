//! CPU time of guests: measured as what their thread used while they were polled, so that a busy machine is not held
//! against them.
//!
//! Asking the system for a thread's CPU time costs more than many a poll. A short poll was hardly interrupted: the clock tells its time well
//! enough, and costs next to nothing. Of a longer one the thread's CPU time is read at its end, and compared with what was read some other
//! time shortly before it began. Either way no guest is charged too little, nor more than [`STALE`] too much.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::UpdateDeadline;

use crate::{
    lane::HEAVY,
    limits::{Exhausted, Limits},
    pool::Pools,
    share::CpuShare,
    ticker::Hurry,
};

/// A poll that took less is taken at its length.
const SHORT: Duration = Duration::from_micros(50);
/// A reading of a thread's CPU time that is older is not used as the begin of a poll.
const STALE: Duration = Duration::from_micros(200);

/// CPU time of one request, read while it is being used.
pub(crate) struct CpuMeter {
    began: Instant,
    used_ns: AtomicU64,
    /// When the running poll began, since `began`.
    poll_began_ns: AtomicU64,
    /// The poll in which it was found to compute for long.
    suspected_ns: AtomicU64,
    /// What of `used_ns` the isolate was charged for.
    charged_ns: AtomicU64,
    share: Arc<CpuShare>,
    hurry: Hurry,
    /// Told when the guest computes without a wait.
    is_heavy: Arc<AtomicBool>,
}

/// The CPU time of this thread at some time.
#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    cpu: Duration,
}

thread_local! {
    static LAST: Cell<Option<Reading>> = const { Cell::new(None) };
}

/// A future whose polls are charged to a meter.
pub(crate) struct Metered<F> {
    inner: F,
    meter: Arc<CpuMeter>,
}

fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Takes note of the thread's CPU time where the last note is too old.
fn begin(now: Instant) {
    if LAST.get().is_none_or(|last| now.saturating_duration_since(last.at) > STALE) {
        LAST.set(Some(Reading { at: now, cpu: thread_cpu() }));
    }
}

/// The CPU time of a poll of this thread that began at `began`, up to now; and what was read to know it.
fn since(began: Instant) -> (Duration, Option<Reading>) {
    let now = Instant::now();
    let took = now.saturating_duration_since(began);
    if took < SHORT {
        return (took, None);
    }
    let reading = Reading { at: now, cpu: thread_cpu() };
    let used = LAST.get().map_or(took, |before| took.min(reading.cpu.saturating_sub(before.cpu)));
    (used, Some(reading))
}

// === impl CpuMeter ===

impl CpuMeter {
    pub(crate) fn start(pools: &Pools, share: Arc<CpuShare>, is_heavy: Arc<AtomicBool>) -> Self {
        Self {
            began: Instant::now(),
            used_ns: AtomicU64::new(0),
            poll_began_ns: AtomicU64::new(0),
            suspected_ns: AtomicU64::new(u64::MAX),
            charged_ns: AtomicU64::new(0),
            share,
            hurry: pools.ticker.hurry(),
            is_heavy,
        }
    }

    /// Runs a request's call, after what its isolate owes and until its deadline; `None` when that passed.
    pub(crate) async fn run<F: Future + Unpin>(self: &Arc<Self>, call: F, deadline: Option<Instant>) -> Option<F::Output> {
        let owed = self.charge(Duration::ZERO);
        let call = async {
            if !owed.is_zero() {
                tokio::time::sleep(owed).await;
            }
            Metered::new(call, Arc::clone(self)).await
        };
        let returned = match deadline {
            None => Some(call.await),
            Some(deadline) => tokio::time::timeout_at(deadline.into(), call).await.ok(),
        };
        self.charge(self.total());
        metrics::histogram!("llambo_isolate_guest_cpu_seconds").record(self.total().as_secs_f64());
        returned
    }

    /// CPU time since the last wait. To be called from within a metered poll.
    fn in_this_poll(&self) -> Duration {
        since(self.began + Duration::from_nanos(self.poll_began_ns.load(Ordering::Relaxed))).0
    }

    /// CPU time of all polls that are over.
    fn total(&self) -> Duration {
        Duration::from_nanos(self.used_ns.load(Ordering::Relaxed))
    }

    /// What a guest does next whose slice is over by the clock: goes on, if it hardly ran; ends; or gives way, until its share lets it go on.
    pub(crate) fn next_slice(self: &Arc<Self>, limits: &Limits) -> Result<UpdateDeadline, Exhausted> {
        let running = self.in_this_poll();
        let used = self.total() + running;
        if used >= limits.cpu_time {
            return Err(Exhausted::cpu(limits.cpu_time));
        }
        let pause = self.charge(used);
        let poll = self.poll_began_ns.load(Ordering::Relaxed);
        let is_heavy = running >= HEAVY && {
            self.hurry.hurry();
            // seen twice in one poll: once may be a machine that was away for a while
            self.suspected_ns.swap(poll, Ordering::Relaxed) == poll
        };
        if is_heavy {
            self.is_heavy.store(true, Ordering::Relaxed);
        } else if pause.is_zero() {
            return Ok(UpdateDeadline::Continue(1));
        }
        Ok(UpdateDeadline::YieldCustom(
            1,
            Box::pin(async move {
                // whoever polls the guest may move it to the heavy lane here
                tokio::task::yield_now().await;
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            }),
        ))
    }

    /// Charges the isolate for what was used since the last time. Says how long it has to wait.
    fn charge(&self, used: Duration) -> Duration {
        let before = self.charged_ns.swap(ns(used), Ordering::Relaxed);
        self.share.charge(used.saturating_sub(Duration::from_nanos(before)), Instant::now())
    }
}

impl Drop for CpuMeter {
    fn drop(&mut self) {
        // of a request that was given up
        self.charge(self.total());
    }
}

// === impl Metered ===

impl<F: Future + Unpin> Metered<F> {
    pub(crate) fn new(inner: F, meter: Arc<CpuMeter>) -> Self {
        Self { inner, meter }
    }
}

impl<F: Future + Unpin> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let began = Instant::now();
        begin(began);
        self.meter.poll_began_ns.store(ns(began.saturating_duration_since(self.meter.began)), Ordering::Relaxed);
        let polled = Pin::new(&mut self.inner).poll(cx);
        let (used, reading) = since(began);
        self.meter.used_ns.fetch_add(ns(used), Ordering::Relaxed);
        if reading.is_some() {
            // else the next poll would be charged for this one once more
            LAST.set(reading);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spin(cpu: Duration) {
        let until = thread_cpu() + cpu;
        while thread_cpu() < until {}
    }

    fn charged(work: impl Future<Output = ()>) -> Duration {
        let pools = Pools::new(None, crate::Layout::Mapped).unwrap();
        let meter = Arc::new(CpuMeter::start(&pools, Arc::new(CpuShare::new(1.0, Instant::now())), Arc::default()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(Metered::new(Box::pin(work), Arc::clone(&meter)));
        meter.total()
    }

    #[test]
    fn only_polls_are_charged() {
        let ms = Duration::from_millis;
        let used = charged(async {
            spin(ms(5));
            tokio::time::sleep(ms(20)).await;
        });
        assert!(used >= ms(5) && used < ms(20), "{used:?}");
    }

    #[test]
    fn a_poll_that_was_kept_waiting_is_charged_what_it_used() {
        let ms = Duration::from_millis;
        let used = charged(async { std::thread::park_timeout(ms(50)) });
        assert!(used < ms(25), "asleep for 50 ms, but charged {used:?}");
    }

    #[test]
    fn many_short_polls_add_up() {
        let used = charged(async {
            for _ in 0..1000 {
                spin(Duration::from_micros(10));
                tokio::task::yield_now().await;
            }
        });
        assert!(used >= Duration::from_millis(10), "{used:?}");
    }
}

//! CPU time of guests: measured as what their thread used while they were polled, so that a busy machine is not held
//! against them.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::UpdateDeadline;

use crate::limits::{Exhausted, Limits};

/// CPU time that a request may use before its share is looked at: short requests are never held back.
const BURST: Duration = Duration::from_millis(100);

/// CPU time of one request, read while it is being used.
#[derive(Default)]
pub(crate) struct CpuMeter {
    used_ns: AtomicU64,
    /// Thread CPU time at which the running poll began.
    poll_began_ns: AtomicU64,
}

/// A future whose polls are charged to a meter.
pub(crate) struct Metered<F> {
    inner: Pin<Box<F>>,
    meter: Arc<CpuMeter>,
}

fn thread_cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds * 1_000_000_000 + nanos
}

// === impl CpuMeter ===

impl CpuMeter {
    /// CPU time so far. To be called from within a metered poll.
    fn used(&self) -> Duration {
        let running = thread_cpu_ns().saturating_sub(self.poll_began_ns.load(Ordering::Relaxed));
        Duration::from_nanos(self.used_ns.load(Ordering::Relaxed) + running)
    }

    /// CPU time of all polls that are over.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_nanos(self.used_ns.load(Ordering::Relaxed))
    }

    /// What a guest that outlived its slice does next: ends, waits until its share allows it to go on, or lets others run.
    pub(crate) fn next_slice(&self, limits: &Limits, began: Instant) -> Result<UpdateDeadline, Exhausted> {
        let used = self.used();
        if used >= limits.cpu_time {
            return Err(Exhausted::cpu(limits.cpu_time));
        }
        let pause = pause(used, began.elapsed(), limits.cpu_share);
        Ok(if pause.is_zero() {
            UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))
        } else {
            UpdateDeadline::YieldCustom(1, Box::pin(tokio::time::sleep(pause)))
        })
    }
}

/// How long one that used `used` within `elapsed` waits, so that beyond its burst it gets `share` of one core.
fn pause(used: Duration, elapsed: Duration, share: f64) -> Duration {
    let due = used.saturating_sub(BURST).as_secs_f64() / share;
    Duration::try_from_secs_f64(due - elapsed.as_secs_f64()).unwrap_or(Duration::ZERO)
}

// === impl Metered ===

impl<F: Future> Metered<F> {
    pub(crate) fn new(inner: F, meter: Arc<CpuMeter>) -> Self {
        Self { inner: Box::pin(inner), meter }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let began = thread_cpu_ns();
        self.meter.poll_began_ns.store(began, Ordering::Relaxed);
        let polled = self.inner.as_mut().poll(cx);
        self.meter.used_ns.fetch_add(thread_cpu_ns().saturating_sub(began), Ordering::Relaxed);
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_held_beyond_the_burst() {
        let ms = Duration::from_millis;
        assert_eq!(pause(ms(100), ms(100), 0.1), Duration::ZERO);
        assert_eq!(pause(ms(110), ms(110), 1.0), Duration::ZERO);
        let waits = pause(ms(120), ms(130), 0.1).as_secs_f64();
        assert!((waits - 0.07).abs() < 1e-9, "{waits}");
    }

    #[test]
    fn only_polls_are_charged() {
        let meter = Arc::new(CpuMeter::default());
        let work = async {
            let until = thread_cpu_ns() + 5_000_000;
            while thread_cpu_ns() < until {}
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            Metered::new(work, Arc::clone(&meter)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        });
        let used = Duration::from_nanos(meter.used_ns.load(Ordering::Relaxed));
        assert!(used >= Duration::from_millis(5) && used < Duration::from_millis(20), "{used:?}");
    }
}

//! How fast a download goes and how long it will take.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// What is looked back on: long enough that a rate does not flicker, short enough that it follows.
const LOOK_BACK: Duration = Duration::from_secs(8);
/// Measurements closer together than this are one.
const APART: Duration = Duration::from_millis(200);

/// Where a download stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Bytes there, those of earlier runs included.
    pub done: u64,
    /// Bytes in all, if the server says so.
    pub total: Option<u64>,
    /// Bytes a second lately; `None` at the very beginning.
    pub rate: Option<f64>,
    /// What is left at that rate.
    pub left: Option<Duration>,
}

/// Measures progress.
#[derive(Debug, Default)]
pub struct Pace {
    seen: VecDeque<(Instant, u64)>,
}

impl Pace {
    /// Takes note of what is there now.
    pub fn at(&mut self, now: Instant, done: u64, total: Option<u64>) -> Progress {
        if self.seen.back().is_some_and(|(_, before)| *before > done) {
            // it began again
            self.seen.clear();
        }
        while self.seen.len() > 1 && self.seen.front().is_some_and(|(then, _)| now.duration_since(*then) > LOOK_BACK) {
            self.seen.pop_front();
        }
        if self.seen.back().is_none_or(|(then, _)| now.duration_since(*then) >= APART) {
            self.seen.push_back((now, done));
        }
        let rate = self.seen.front().and_then(|(then, before)| {
            let seconds = now.duration_since(*then).as_secs_f64();
            (seconds >= APART.as_secs_f64()).then(|| (done - before) as f64 / seconds)
        });
        let left = total.zip(rate.filter(|rate| *rate > 0.0)).map(|(total, rate)| total.saturating_sub(done) as f64 / rate);
        Progress { done, total, rate, left: left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        let at = |pace: &mut Pace, seconds: u64, done| pace.at(begin + Duration::from_secs(seconds), done, Some(2000));
        assert_eq!(at(&mut pace, 0, 0).rate, None);
        assert_eq!(at(&mut pace, 1, 100).rate, Some(100.0));
        let slow = at(&mut pace, 100, 1000);
        assert!(slow.rate.unwrap() < 10.0, "{slow:?}");
        let now = at(&mut pace, 101, 1500);
        assert_eq!((now.rate, now.left), (Some(500.0), Some(Duration::from_secs(1))));
        // a download that begins again has no rate yet
        assert_eq!(at(&mut pace, 102, 0).rate, None);
    }
}

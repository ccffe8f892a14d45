//! How long a request takes, by how many others its node serves.

/// A straight line: a request among `n` others takes `idle_us + n * added_us`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Latency {
    pub(super) idle_us: f64,
    pub(super) added_us: f64,
}

impl Latency {
    /// The line with the least squares through pairs of other requests and microseconds, among those that rise and begin at 0 or above: others never make
    /// a request quicker, and what looks like that is chance. All 0 without pairs.
    pub(super) fn through(pairs: impl Iterator<Item = (f64, f64)>) -> Self {
        let (mut n, mut x, mut y, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (others, took_us) in pairs {
            n += 1.0;
            x += others;
            y += took_us;
            xx += others * others;
            xy += others * took_us;
        }
        if n == 0.0 {
            return Self::default();
        }
        let variance = xx * n - x * x;
        let added_us = if variance > 0.0 { ((xy * n - x * y) / variance).max(0.0) } else { 0.0 };
        let idle_us = (y - added_us * x) / n;
        if idle_us < 0.0 {
            // through the origin; then there were others, or it would not have come out below 0
            return Self { idle_us: 0.0, added_us: xy / xx };
        }
        Self { idle_us, added_us }
    }

    pub(super) fn with(self, others: u32) -> f64 {
        self.idle_us + self.added_us * f64::from(others)
    }

    /// What a request that took so long would take among other others. The rest of its time, that of a long answer, goes along.
    pub(super) fn moved(self, took_us: f64, from: u32, to: u32) -> f64 {
        (took_us + self.added_us * (f64::from(to) - f64::from(from))).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(pairs: &[(f64, f64)]) -> [f64; 2] {
        let line = Latency::through(pairs.iter().copied());
        [line.idle_us, line.added_us].map(|us| (us * 1e6).round() / 1e6)
    }

    #[track_caller]
    fn assert_line(pairs: &[(f64, f64)], line: [f64; 2]) {
        assert_eq!(through(pairs).map(f64::to_bits), line.map(f64::to_bits), "{pairs:?}: {:?}", through(pairs));
    }

    #[test]
    fn the_line_through_points_on_a_line_is_that_line() {
        assert_line(&[(0.0, 100.0), (1.0, 110.0), (5.0, 150.0)], [100.0, 10.0]);
        assert_line(&[(0.0, 90.0), (0.0, 110.0), (2.0, 120.0), (2.0, 140.0)], [100.0, 15.0]);
    }

    #[test]
    fn a_line_neither_falls_nor_begins_below_nothing() {
        assert_line(&[(0.0, 300.0), (1.0, 200.0), (2.0, 100.0)], [200.0, 0.0]);
        assert_line(&[(1.0, 0.0), (2.0, 10.0)], [0.0, 4.0]);
    }

    #[test]
    fn few_points_make_a_level_line() {
        assert_line(&[], [0.0, 0.0]);
        assert_line(&[(3.0, 50.0)], [50.0, 0.0]);
        assert_line(&[(3.0, 50.0), (3.0, 70.0)], [60.0, 0.0]);
    }
}

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use hdrhistogram::Histogram;

/// Longest time told apart, in microseconds: one hour; longer ones count as that.
const MAX_US: u64 = 3_600_000_000;
/// Significant digits kept.
const DIGITS: u8 = 3;

/// What one request did.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// Who served it; empty if nobody did.
    pub(crate) node: String,
    /// From the start to the first piece.
    pub(crate) ttft: Option<Duration>,
    /// Times between pieces, with the tokens each brought.
    pub(crate) gaps: Vec<(Duration, u32)>,
    pub(crate) total: Duration,
    /// Tokens generated, as the host counted them.
    pub(crate) n_tokens: u32,
    /// The reason it failed.
    pub(crate) error: Option<String>,
}

/// What all requests did.
pub(crate) struct Tally {
    pub(crate) finished: u64,
    /// Failed requests by reason.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) output_tokens: u64,
    /// Finished requests by node.
    pub(crate) nodes: HashMap<String, u64>,
    /// In microseconds, of finished requests alone: a refusal is quick and would flatter.
    pub(crate) ttft: Histogram<u64>,
    pub(crate) inter_token: Histogram<u64>,
    pub(crate) total: Histogram<u64>,
    pub(crate) elapsed: Duration,
}

impl Default for Tally {
    fn default() -> Self {
        let histogram = || Histogram::new_with_bounds(1, MAX_US, DIGITS).expect("the bounds are valid");
        Self {
            finished: 0,
            errors: BTreeMap::new(),
            output_tokens: 0,
            nodes: HashMap::new(),
            ttft: histogram(),
            inter_token: histogram(),
            total: histogram(),
            elapsed: Duration::ZERO,
        }
    }
}

impl Tally {
    pub(crate) fn add(&mut self, sample: Sample) {
        if let Some(reason) = sample.error {
            *self.errors.entry(reason).or_default() += 1;
            return;
        }
        self.finished += 1;
        self.output_tokens += u64::from(sample.n_tokens);
        *self.nodes.entry(sample.node).or_default() += 1;
        self.total.saturating_record(us(sample.total));
        if let Some(ttft) = sample.ttft {
            self.ttft.saturating_record(us(ttft));
        }
        for (gap, n_tokens) in sample.gaps {
            // several tokens in one piece: each took its share
            self.inter_token.saturating_record_n(us(gap / n_tokens), u64::from(n_tokens));
        }
    }

    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Something each second, over the whole run.
    pub(crate) fn per_second(&self, n: u64) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { n as f64 / seconds } else { 0.0 }
    }
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_do_not_count_as_quick_answers() {
        let mut tally = Tally::default();
        tally.add(Sample { error: Some("QUEUE_FULL".into()), ..Sample::default() });
        tally.add(Sample { total: Duration::from_millis(10), n_tokens: 4, node: "n".into(), ..Sample::default() });
        assert_eq!((tally.finished, tally.failed(), tally.total.len(), tally.output_tokens), (1, 1, 1, 4));
    }

    #[test]
    fn tokens_of_one_piece_share_its_gap() {
        let mut tally = Tally::default();
        tally.add(Sample { gaps: vec![(Duration::from_millis(9), 3)], ..Sample::default() });
        assert_eq!(tally.inter_token.len(), 3);
        assert!((2_990..=3_010).contains(&tally.inter_token.max()), "{}", tally.inter_token.max());
    }
}

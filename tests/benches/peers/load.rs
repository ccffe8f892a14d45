//! Clients that ask, wait for the answer, and ask again.

use std::time::{Duration, Instant};

use futures::future::join_all;

use crate::target::Target;

/// What one client asks next.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) prompt: String,
    pub(crate) max_tokens: u32,
    /// Above 0 answers differ by it.
    pub(crate) temperature: f32,
    pub(crate) seed: u64,
    /// Waited before asking.
    pub(crate) think: Duration,
    /// Which type of isolate answers, where these are.
    pub(crate) node_type: &'static str,
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) started: Instant,
    pub(crate) first: Instant,
    pub(crate) ended: Instant,
    pub(crate) n_tokens: u32,
    /// When each of them came.
    pub(crate) times: Vec<Instant>,
}

/// All answers of a run.
pub(crate) struct Run {
    pub(crate) answers: Vec<Answer>,
    pub(crate) wall: Duration,
}

// === impl Run ===

impl Run {
    /// Every client asks its asks, one after the other; all clients at once.
    pub(crate) async fn of(target: &Target, clients: Vec<Vec<Ask>>) -> Self {
        let begun = Instant::now();
        let all = clients.into_iter().map(|asks| async move {
            let mut answers = Vec::with_capacity(asks.len());
            for ask in asks {
                tokio::time::sleep(ask.think).await;
                answers.push(target.ask(&ask).await);
            }
            answers
        });
        let answers = join_all(all).await.into_iter().flatten().collect();
        Self { answers, wall: begun.elapsed() }
    }

    pub(crate) fn tokens_per_second(&self) -> f64 {
        let n: u32 = self.answers.iter().map(|answer| answer.n_tokens).sum();
        f64::from(n) / self.wall.as_secs_f64()
    }

    /// Tokens a second while all decode: from the last first token to the first end.
    pub(crate) fn decode_per_second(&self) -> f64 {
        let from = self.answers.iter().map(|a| a.first).max().unwrap();
        let to = self.answers.iter().map(|a| a.ended).min().unwrap();
        assert!(to > from, "answers are so short that never all were decoded together");
        let n = self.answers.iter().flat_map(|answer| &answer.times).filter(|time| (from..to).contains(*time)).count();
        n as f64 / (to - from).as_secs_f64()
    }

    /// The longest time between two tokens of an answer, but for those of fewer than `least` tokens.
    pub(crate) fn longest_gap(&self, least: u32) -> f64 {
        let answers = self.answers.iter().filter(|answer| answer.n_tokens >= least);
        let gaps = answers.flat_map(|answer| answer.times.windows(2).map(|two| (two[1] - two[0]).as_secs_f64()));
        gaps.fold(0.0, f64::max)
    }

    pub(crate) fn first_token_p50(&self) -> f64 {
        let mut times: Vec<f64> = self.answers.iter().map(|a| (a.first - a.started).as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }

    /// Until everybody had a first token.
    pub(crate) fn last_first_token(&self) -> f64 {
        let begun = self.answers.iter().map(|a| a.started).min().unwrap();
        self.answers.iter().map(|a| (a.first - begun).as_secs_f64()).fold(0.0, f64::max)
    }
}

/// `n` words that differ with `seed`: about as many tokens.
pub(crate) fn words(seed: u64, n: usize) -> String {
    const WORDS: [&str; 16] = [
        "the", "and", "code", "type", "value", "trait", "that", "with", "data", "test", "loop", "call", "from", "list", "name",
        "file",
    ];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut text = String::new();
    for i in 0..n {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        text.push_str(if i == 0 { "" } else { " " });
        text.push_str(WORDS[(z >> 60) as usize]);
    }
    text
}

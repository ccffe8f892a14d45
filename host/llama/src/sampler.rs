//! Choosing the next token from one row of logits. Pure: no llama.cpp, no clock, its own random numbers.
//!
//! Order: logit bias, penalties, constraint (applied by the caller between [`Sampler::adjust`] and [`Sampler::choose`]), then top-k, top-p,
//! min-p, temperature and a draw: llama.cpp's default chain.

use std::collections::{HashMap, VecDeque};

use llambo_inference::{LogitBias, Mask, Sampling, TokenId};
use rand_pcg::{
    Pcg64Mcg,
    rand_core::{Rng, SeedableRng},
};

/// Logits per block of the top-k scan: a block whose maximum is below the k-th best is skipped whole.
const BLOCK: usize = 64;
/// Logits compared at a time.
const LANES: usize = 16;

/// Some of a vocabulary's tokens, one bit each.
pub(crate) struct TokenSet(Vec<u64>);

/// Sampling state of one sequence.
pub(crate) struct Sampler {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    repeat_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    bias: Vec<LogitBias>,
    mask: Option<TokenSet>,
    window: VecDeque<u32>,
    window_size: usize,
    /// How often each token stands in the window.
    counts: HashMap<u32, u32>,
    random: Pcg64Mcg,
}

/// A token that may be drawn. In a buffer that sequences share from step to step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    logit: f32,
    token: u32,
}

impl TokenSet {
    /// # Errors
    /// The first token that is not in the vocabulary.
    pub(crate) fn new(mask: &Mask, n_vocab: u32) -> Result<Self, TokenId> {
        let (tokens, listed) = match mask {
            Mask::Only(tokens) => (tokens, true),
            Mask::Without(tokens) => (tokens, false),
        };
        let mut bits = vec![if listed { 0 } else { u64::MAX }; n_vocab.div_ceil(u64::BITS) as usize];
        for &token in tokens {
            let word = bits.get_mut((token / u64::BITS) as usize).filter(|_| token < n_vocab).ok_or(token)?;
            let bit = 1 << (token % u64::BITS);
            *word = if listed { *word | bit } else { *word & !bit };
        }
        Ok(Self(bits))
    }

    fn leave_only(&self, logits: &mut [f32]) {
        for (logits, word) in logits.chunks_mut(u64::BITS as usize).zip(&self.0).filter(|(_, word)| **word != u64::MAX) {
            for (bit, logit) in logits.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}

impl Sampler {
    /// `seed` starts its random numbers; `prompt` is what penalties see of what came before.
    pub(crate) fn new(sampling: &Sampling, seed: u64, prompt: &[i32]) -> Self {
        #[expect(clippy::float_cmp, reason = "exactly the values that change nothing")]
        let penalizes = sampling.repeat_penalty != 1.0 || sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0;
        let mut sampler = Self {
            temperature: sampling.temperature,
            top_k: sampling.top_k as usize,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repeat_penalty: sampling.repeat_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            bias: sampling.logit_bias.clone(),
            mask: None,
            window: VecDeque::new(),
            window_size: if penalizes { sampling.penalty_window as usize } else { 0 },
            counts: HashMap::new(),
            random: Pcg64Mcg::seed_from_u64(seed),
        };
        for &token in &prompt[prompt.len().saturating_sub(sampler.window_size)..] {
            sampler.accept(token);
        }
        sampler
    }

    /// With only some of the tokens to choose from.
    pub(crate) fn masked(mut self, mask: Option<TokenSet>) -> Self {
        self.mask = mask;
        self
    }

    /// Changes the logits by bias, penalties and mask, in place. `logits` is `[n_vocab]`.
    pub(crate) fn adjust(&self, logits: &mut [f32]) {
        for LogitBias { token, bias } in &self.bias {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        for (&token, &count) in &self.counts {
            if let Some(logit) = logits.get_mut(token as usize) {
                // Keskar et al. 2019 (CTRL), as llama.cpp does it: divide what is above zero, multiply what is below
                *logit = if *logit > 0.0 { *logit / self.repeat_penalty } else { *logit * self.repeat_penalty };
                *logit -= self.presence_penalty + self.frequency_penalty * count as f32;
            }
        }
        if let Some(mask) = &self.mask {
            mask.leave_only(logits);
        }
    }

    /// Picks a token; `None` when no logit is above minus infinity.
    pub(crate) fn choose(&mut self, logits: &[f32], candidates: &mut Vec<Candidate>) -> Option<u32> {
        if self.temperature <= 0.0 {
            return argmax(logits);
        }
        let k = if self.top_k == 0 { logits.len() } else { self.top_k.min(logits.len()) };
        top_k(logits, k, candidates);
        let best = candidates.first()?.logit;
        if best == f32::NEG_INFINITY {
            return None;
        }
        let kept = self.cut(candidates, best);
        let mut total = 0.0f32;
        for candidate in &mut candidates[..kept] {
            candidate.logit = ((candidate.logit - best) / self.temperature).exp();
            total += candidate.logit;
        }
        // 24 random bits: every float in [0, 1) with that step is equally likely
        let mut left = (self.random.next_u32() >> 8) as f32 / (1u32 << 24) as f32 * total;
        let drawn = candidates[..kept].iter().find(|c| {
            left -= c.logit;
            left < 0.0
        });
        drawn.or(candidates[..kept].last()).map(|c| c.token)
    }

    /// Leaves out the random number of one choice.
    pub(crate) fn skip(&mut self) {
        if self.temperature > 0.0 {
            self.random.next_u32();
        }
    }

    /// How many of the candidates, likeliest first, top-p and min-p keep. At least one.
    fn cut(&self, candidates: &[Candidate], best: f32) -> usize {
        let finite = candidates.iter().take_while(|c| c.logit > f32::NEG_INFINITY).count().max(1);
        let mut kept = finite;
        if self.top_p < 1.0 {
            let total: f32 = candidates[..finite].iter().map(|c| (c.logit - best).exp()).sum();
            let mut sum = 0.0;
            for (i, candidate) in candidates[..finite].iter().enumerate() {
                sum += (candidate.logit - best).exp();
                if sum >= self.top_p * total {
                    kept = i + 1;
                    break;
                }
            }
        }
        if self.min_p > 0.0 {
            let least = best + self.min_p.ln();
            kept = candidates[..kept].iter().take_while(|c| c.logit >= least).count().max(1);
        }
        kept
    }

    /// Remembers a token for the penalties.
    pub(crate) fn accept(&mut self, token: i32) {
        let Ok(token) = u32::try_from(token) else { return };
        if self.window_size == 0 {
            return;
        }
        if self.window.len() == self.window_size
            && let Some(old) = self.window.pop_front()
            && let Some(count) = self.counts.get_mut(&old)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&old);
            }
        }
        self.window.push_back(token);
        *self.counts.entry(token).or_insert(0) += 1;
    }
}

/// The `k` likeliest tokens with their logits, likeliest first.
pub(crate) fn likeliest(logits: &[f32], k: usize) -> impl Iterator<Item = (TokenId, f32)> {
    let mut found = Vec::new();
    // a search for none would still look at every logit, and end with one
    if k > 0 {
        top_k(logits, k.min(logits.len()), &mut found);
    }
    found.into_iter().map(|candidate| (candidate.token, candidate.logit))
}

/// The first place of the largest logit; `None` when all are minus infinity or not numbers.
pub(crate) fn argmax(logits: &[f32]) -> Option<u32> {
    let (mut largest, mut block) = (f32::NEG_INFINITY, None);
    for (n, logits) in logits.chunks(BLOCK).enumerate() {
        let of_block = max(logits);
        if of_block > largest {
            (largest, block) = (of_block, Some(n));
        }
    }
    let start = block? * BLOCK;
    let place = logits[start..].iter().position(|&logit| logit >= largest)?;
    u32::try_from(start + place).ok()
}

/// The largest of a block; minus infinity when none is a number.
fn max(block: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let parts = block.chunks_exact(LANES);
    let rest = parts.remainder().iter().copied();
    // lane by lane, and by a comparison that leaves out what is no number: the compiler makes vector instructions of it
    for part in parts {
        for (lane, &logit) in lanes.iter_mut().zip(part) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    rest.chain(lanes).fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
}

/// Leaves the `k` largest logits in `out`, largest first; equal ones in order of their token.
///
/// The k-th largest of all blocks' maxima is below no more than k - 1 of them: whatever is smaller is not among the k largest, and one look at
/// each logit is enough to know it.
fn top_k(logits: &[f32], k: usize, out: &mut Vec<Candidate>) {
    let order = |a: &Candidate, b: &Candidate| b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token));
    out.clear();
    // the blocks with their maxima, in the same buffer as what is found in them
    out.extend(logits.chunks(BLOCK).zip(0..).map(|(block, n)| Candidate { logit: max(block), token: n }));
    let n_blocks = out.len();
    let mut least = f32::NEG_INFINITY;
    if k < n_blocks {
        out.select_nth_unstable_by(k - 1, order);
        least = out[k - 1].logit;
    }
    for i in 0..n_blocks {
        let Candidate { logit: largest, token: n } = out[i];
        if largest >= least {
            let start = n as usize * BLOCK;
            let block = logits[start..].iter().take(BLOCK).zip(start..);
            let found = block.filter(|(logit, _)| **logit >= least);
            out.extend(found.map(|(&logit, at)| Candidate { logit, token: u32::try_from(at).unwrap_or(u32::MAX) }));
        }
    }
    out.drain(..n_blocks);
    if out.len() > k {
        out.select_nth_unstable_by(k - 1, order);
        out.truncate(k);
    }
    out.sort_unstable_by(order);
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "these values are copied or exact in binary")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampling(temperature: f32) -> Sampling {
        Sampling { temperature, top_k: 0, top_p: 1.0, min_p: 0.0, repeat_penalty: 1.0, ..Sampling::default() }
    }

    proptest! {
        #[test]
        fn top_k_is_the_head_of_a_full_sort(logits in prop::collection::vec(-5i8..5, 1..600), k in 1usize..80) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let k = k.min(logits.len());
            let mut sorted: Vec<(f32, usize)> = logits.iter().copied().zip(0..).collect();
            sorted.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let mut found = Vec::new();
            top_k(&logits, k, &mut found);
            let values: Vec<f32> = found.iter().map(|c| c.logit).collect();
            prop_assert_eq!(values, sorted[..k].iter().map(|s| s.0).collect::<Vec<_>>());
            prop_assert!(found.iter().all(|c| logits[c.token as usize] == c.logit));
        }

        #[test]
        fn greedy_takes_the_first_of_the_largest(logits in prop::collection::vec(-3i8..3, 1..300)) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let first = logits.iter().position(|&l| l == best).unwrap();
            prop_assert_eq!(argmax(&logits), u32::try_from(first).ok());
        }

        #[test]
        fn a_token_that_cannot_be_is_never_drawn(seed: u64, allowed in 0usize..100) {
            let mut logits = vec![f32::NEG_INFINITY; 100];
            logits[allowed] = -3.0;
            let mut sampler = Sampler::new(&sampling(1.5), seed, &[]);
            prop_assert_eq!(sampler.choose(&logits, &mut Vec::new()), u32::try_from(allowed).ok());
        }
    }

    #[test]
    fn a_mask_leaves_only_what_it_says() {
        let masked = |mask| {
            let mut logits = [1.0f32; 130];
            let set = TokenSet::new(&mask, 130).unwrap();
            Sampler::new(&sampling(0.0), 0, &[]).masked(Some(set)).adjust(&mut logits);
            (0..130u32).filter(|token| logits[*token as usize] == 1.0).collect::<Vec<_>>()
        };
        assert_eq!(masked(Mask::Only(vec![129, 0, 64, 64])), [0, 64, 129]);
        assert_eq!(masked(Mask::Without(vec![63, 129])), (0..129).filter(|token| *token != 63).collect::<Vec<_>>());
        assert!(masked(Mask::Only(Vec::new())).is_empty());
        assert_eq!(TokenSet::new(&Mask::Without(vec![5, 130]), 130).err(), Some(130));
    }

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [0.0f32, 1.0, 2.0];
        let total: f32 = logits.iter().map(|l| l.exp()).sum();
        let mut sampler = Sampler::new(&sampling(1.0), 11, &[]);
        let mut counts = [0u32; 3];
        for _ in 0..100_000 {
            counts[sampler.choose(&logits, &mut Vec::new()).unwrap() as usize] += 1;
        }
        for (count, logit) in counts.iter().zip(logits) {
            let (seen, expected) = (f64::from(*count) / 1e5, f64::from(logit.exp() / total));
            assert!((seen - expected).abs() < 0.01, "{seen} instead of {expected}");
        }
    }

    #[test]
    fn top_p_and_min_p_cut_the_tail() {
        let logits = [2.0f32, 1.9, -1.0, -2.0];
        for cut in [Sampling { top_p: 0.9, ..sampling(5.0) }, Sampling { min_p: 0.5, ..sampling(5.0) }] {
            let mut sampler = Sampler::new(&cut, 3, &[]);
            assert!((0..1000).all(|_| sampler.choose(&logits, &mut Vec::new()).unwrap() < 2));
        }
    }

    #[test]
    fn penalties_forget_what_left_the_window() {
        let penalized = Sampling { repeat_penalty: 2.0, frequency_penalty: 0.5, penalty_window: 2, ..sampling(0.0) };
        let mut sampler = Sampler::new(&penalized, 0, &[0, 1, 1]);
        let mut logits = [4.0f32, 4.0, -1.0];
        sampler.adjust(&mut logits);
        assert_eq!(logits, [4.0, 1.0, -1.0]);
        sampler.accept(2);
        let mut logits = [4.0f32, 4.0, -1.0];
        sampler.adjust(&mut logits);
        assert_eq!(logits, [4.0, 1.5, -2.5]);
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens() {
        let logits: Vec<f32> = (0..50).map(|i| i as f32 / 10.0).collect();
        let draw = |seed| {
            let mut sampler = Sampler::new(&sampling(1.0), seed, &[]);
            (0..20).map(|_| sampler.choose(&logits, &mut Vec::new()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }
}

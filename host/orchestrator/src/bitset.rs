//! A set of small numbers that finds the next one in a few steps, however sparse it is.
//!
//! A tree of words: a bit of level `k + 1` says whether the word under it in level `k` is not zero.

/// Four levels of 64 hold 16,777,216 numbers; the upper ones are touched only when a word becomes zero or stops being it.
const LEVELS: usize = 4;

#[derive(Clone, Debug, Default)]
pub(crate) struct Bitset {
    levels: [Vec<u64>; LEVELS],
}

impl Bitset {
    /// Adds `i`, which must be below 64^4.
    pub(crate) fn insert(&mut self, i: usize) {
        debug_assert!(i < 64usize.pow(4));
        let mut at = i;
        for level in &mut self.levels {
            let (word, bit) = (at / 64, at % 64);
            if word >= level.len() {
                level.resize(word + 1, 0);
            }
            let before = level[word];
            level[word] = before | (1 << bit);
            if before != 0 {
                return;
            }
            at = word;
        }
    }

    /// Takes `i` out, if it is in.
    pub(crate) fn remove(&mut self, i: usize) {
        let mut at = i;
        for level in &mut self.levels {
            let Some(word) = level.get_mut(at / 64) else { return };
            *word &= !(1 << (at % 64));
            if *word != 0 {
                return;
            }
            at /= 64;
        }
    }

    /// The smallest number in the set that is at least `from`.
    pub(crate) fn next(&self, from: usize) -> Option<usize> {
        let mut at = from;
        for (level, words) in self.levels.iter().enumerate() {
            let rest = words.get(at / 64)? & (u64::MAX << (at % 64));
            if rest != 0 {
                let found = (at & !63) + rest.trailing_zeros() as usize;
                let descend = |at: usize, below: &Vec<u64>| at * 64 + below[at].trailing_zeros() as usize;
                return Some(self.levels[..level].iter().rev().fold(found, descend));
            }
            at = at / 64 + 1;
        }
        None
    }

    /// The first after `after` in ascending order, beginning anew after the last; with `None` the first of all.
    pub(crate) fn next_cyclic(&self, after: Option<usize>) -> Option<usize> {
        after.and_then(|after| self.next(after + 1)).or_else(|| self.next(0))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.levels[LEVELS - 1].iter().all(|&word| word == 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_an_ordered_set_finds(
            steps in vec((any::<bool>(), 0usize..300_000), 1..200), probes in vec(0usize..400_000, 20),
        ) {
            let (mut bits, mut model) = (Bitset::default(), BTreeSet::new());
            for (insert, i) in steps {
                if insert {
                    bits.insert(i);
                    model.insert(i);
                } else {
                    let i = model.range(i..).next().copied().unwrap_or(i);
                    bits.remove(i);
                    model.remove(&i);
                }
                prop_assert_eq!(bits.is_empty(), model.is_empty());
            }
            for probe in probes.into_iter().chain(model.iter().copied()) {
                prop_assert_eq!(bits.next(probe), model.range(probe..).next().copied());
                let cyclic = model.range(probe + 1..).next().or(model.first());
                prop_assert_eq!(bits.next_cyclic(Some(probe)), cyclic.copied());
            }
        }
    }
}

//! Weights with their running sums (Fenwick 1994): change one, or find the one that covers a point, in O(log n).
//!
//! Whole numbers: floats would drift as weights come and go a million times.

#[derive(Clone, Debug, Default)]
pub(crate) struct Fenwick {
    /// `sums[i]` covers the `lowbit(i + 1)` weights that end with weight `i`.
    sums: Vec<u64>,
    total: u64,
}

impl Fenwick {
    /// Appends a weight of 0.
    pub(crate) fn push(&mut self) {
        let end = self.sums.len() + 1;
        let covered = self.prefix(end - 1) - self.prefix(end - lowbit(end));
        self.sums.push(covered);
    }

    pub(crate) fn add(&mut self, i: usize, weight: u64) {
        self.total += weight;
        self.each_sum_over(i, |sum| *sum += weight);
    }

    /// Takes `weight` off again; it must have been added to `i`.
    pub(crate) fn subtract(&mut self, i: usize, weight: u64) {
        self.total -= weight;
        self.each_sum_over(i, |sum| *sum -= weight);
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The weight that covers `point`: all before it sum to at most `point`, and with it to more. `None` from the total on.
    pub(crate) fn covering(&self, point: u64) -> Option<usize> {
        if point >= self.total {
            return None;
        }
        let (mut position, mut rest) = (0, point);
        let mut step = self.sums.len().checked_ilog2().map_or(0, |log| 1usize << log);
        while step > 0 {
            if let Some(&sum) = self.sums.get(position + step - 1)
                && sum <= rest
            {
                position += step;
                rest -= sum;
            }
            step /= 2;
        }
        Some(position)
    }

    fn each_sum_over(&mut self, i: usize, change: impl Fn(&mut u64)) {
        let mut end = i + 1;
        while let Some(sum) = self.sums.get_mut(end - 1) {
            change(sum);
            end += lowbit(end);
        }
    }

    /// The sum of the first `n` weights.
    fn prefix(&self, n: usize) -> u64 {
        let (mut end, mut sum) = (n, 0);
        while end > 0 {
            sum += self.sums[end - 1];
            end -= lowbit(end);
        }
        sum
    }
}

fn lowbit(n: usize) -> usize {
    n & n.wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn every_point_is_covered_by_the_weight_that_a_walk_finds(
            steps in vec((0usize..50, 0u64..20, any::<bool>()), 1..100), late in 0usize..50,
        ) {
            let (mut tree, mut model) = (Fenwick::default(), Vec::new());
            for (i, weight, grow) in steps {
                if grow || model.is_empty() {
                    tree.push();
                    model.push(0);
                }
                let i = i % model.len();
                tree.subtract(i, model[i]);
                tree.add(i, weight);
                model[i] = weight;
            }
            (0..late).for_each(|_| tree.push());
            model.extend(std::iter::repeat_n(0, late));
            prop_assert_eq!(tree.total(), model.iter().sum::<u64>());
            let covered: Vec<usize> = (0..tree.total()).map(|point| tree.covering(point).unwrap()).collect();
            let times = |weight: u64| usize::try_from(weight).unwrap();
            let walked: Vec<usize> =
                model.iter().enumerate().flat_map(|(i, &weight)| std::iter::repeat_n(i, times(weight))).collect();
            prop_assert_eq!(covered, walked);
            prop_assert_eq!(tree.covering(tree.total()), None);
        }
    }
}

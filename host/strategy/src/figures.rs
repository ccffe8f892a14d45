//! Numbers that several places must reckon alike.

/// Steps per unit of weight: weights down to a millionth are told apart.
const WEIGHT_STEPS: f64 = 1_048_576.0;
/// 2^24 nodes of this weight still sum to less than 2^64.
const MAX_WEIGHT: f64 = 1_048_576.0;

/// The value that a share of `p` of the values does not exceed (nearest rank); 0 of nothing. Sorts the values.
pub fn percentile(values: &mut [f64], p: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank between 0 and the number of values")]
    let rank = (p * values.len() as f64).ceil() as usize;
    values.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

/// A weight in whole steps. At least one, so that a node of tiny weight is still chosen at times; nonsense counts as 1.
pub fn weight_steps(weight: f64) -> u64 {
    let weight = if weight.is_finite() && weight > 0.0 { weight.min(MAX_WEIGHT) } else { 1.0 };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in [0, 2^40] by the line above")]
    let steps = (weight * WEIGHT_STEPS).round() as u64;
    steps.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let mut values: Vec<f64> = (1..=200).map(f64::from).rev().collect();
        let found = [percentile(&mut values, 0.5), percentile(&mut values, 0.99)];
        assert_eq!(found.map(f64::to_bits), [100.0, 198.0].map(f64::to_bits));
        let found = [percentile(&mut [], 0.5), percentile(&mut [7.0], 0.99)];
        assert_eq!(found.map(f64::to_bits), [0.0, 7.0].map(f64::to_bits));
    }
}

//! From 64 random bits to a choice among `n`, without the bias of a remainder.
//!
//! Lemire, "Fast Random Integer Generation in an Interval" (2019): the high half of `entropy * n` is the choice. Without his
//! rejection step no value is likelier than another by more than `n / 2^64`, which no test can see.

/// A number below `n`; 0 when `n` is 0.
pub fn below(entropy: u64, n: u64) -> u64 {
    draw(entropy, n).0
}

/// A number below `n`, and what entropy is left for the next draw.
pub fn draw(entropy: u64, n: u64) -> (u64, u64) {
    let product = u128::from(entropy) * u128::from(n);
    let [choice, rest] = [product >> 64, product & u128::from(u64::MAX)];
    (u64::try_from(choice).expect("the high half has 64 bits"), u64::try_from(rest).expect("masked to 64 bits"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_of_the_range_are_reached() {
        assert_eq!(below(0, 10), 0);
        assert_eq!(below(u64::MAX, 10), 9);
        assert_eq!(below(u64::MAX, 0), 0);
    }

    proptest! {
        #[test]
        fn a_choice_is_always_below_its_bound(entropy: u64, n in 1..=u64::MAX) {
            prop_assert!(below(entropy, n) < n);
        }
    }
}

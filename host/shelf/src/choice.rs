//! Who goes when room is needed. Pure.

use llambo_inference::ModelName;

/// A model that is in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) name: ModelName,
    pub(crate) bytes: u64,
    /// When it was used last, counted in uses of all models.
    pub(crate) used: u64,
    /// Nobody uses it, and it is not pinned.
    pub(crate) may_go: bool,
}

/// Those that go so that `needed` bytes fit beside the rest, the one that was used longest ago first; no more than are needed.
/// `None`: not even all of them are enough.
pub(crate) fn who_goes(candidates: &[Candidate], needed: u64, free: u64) -> Option<Vec<ModelName>> {
    let mut may_go: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.may_go).collect();
    may_go.sort_by_key(|candidate| candidate.used);
    let (mut free, mut going) = (free, Vec::new());
    for candidate in may_go {
        if free >= needed {
            break;
        }
        free = free.saturating_add(candidate.bytes);
        going.push(candidate);
    }
    if free < needed {
        return None;
    }
    // a large one that goes last may make the small ones before it needless
    let mut kept = Vec::new();
    for candidate in going.iter().rev() {
        if free - candidate.bytes >= needed {
            free -= candidate.bytes;
            kept.push(candidate.name.clone());
        }
    }
    Some(going.into_iter().map(|candidate| candidate.name.clone()).filter(|name| !kept.contains(name)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(name: &str, bytes: u64, used: u64, may_go: bool) -> Candidate {
        Candidate { name: name.into(), bytes, used, may_go }
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_what_is_in_use_stays() {
        let all = [candidate("a", 10, 3, true), candidate("b", 10, 1, true), candidate("c", 10, 0, false)];
        assert_eq!(who_goes(&all, 5, 5), Some(vec![]));
        assert_eq!(who_goes(&all, 10, 0), Some(vec!["b".into()]));
        assert_eq!(who_goes(&all, 20, 0), Some(vec!["b".into(), "a".into()]));
        assert_eq!(who_goes(&all, 21, 0), None);
        // the large one makes enough room by itself
        let all = [candidate("small", 1, 0, true), candidate("large", 100, 1, true)];
        assert_eq!(who_goes(&all, 50, 0), Some(vec!["large".into()]));
    }

    proptest! {
        #[test]
        fn nobody_goes_in_vain_and_nobody_who_must_stay(
            models in prop::collection::vec((0..100u64, 0..50u64, any::<bool>()), 0..8), needed in 0..300u64, free in 0..100u64,
        ) {
            let all: Vec<_> = models.iter().enumerate().map(|(i, (b, u, may))| candidate(&i.to_string(), *b, *u, *may)).collect();
            let most: u64 = free + all.iter().filter(|c| c.may_go).map(|c| c.bytes).sum::<u64>();
            match who_goes(&all, needed, free) {
                None => prop_assert!(most < needed),
                Some(going) => {
                    let of = |name: &ModelName| all.iter().find(|c| c.name == *name).unwrap();
                    prop_assert!(going.iter().all(|name| of(name).may_go));
                    let freed = free + going.iter().map(|name| of(name).bytes).sum::<u64>();
                    prop_assert!(freed >= needed);
                    prop_assert!(going.iter().all(|name| freed - of(name).bytes < needed));
                }
            }
        }
    }
}

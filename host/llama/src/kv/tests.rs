use std::{collections::HashMap, sync::Arc};

use llambo_inference::TenantName;
use proptest::prelude::*;

use super::{
    allowance::Allowances,
    kept::{Budgets, KeptIndex, Place, WORTH_REUSING},
    radix::common,
};

const N: usize = WORTH_REUSING;

fn tenant(name: &str) -> TenantName {
    name.into()
}

/// `n` tokens that begin with `first` and then count up.
fn tokens(first: i32, n: usize) -> Vec<i32> {
    (0..).map(|i| first * 1000 + i).take(n).collect()
}

fn copy(n_bytes: usize) -> Arc<Vec<u8>> {
    Arc::new(vec![0; n_bytes])
}

fn index(memory: u64, disk: u64) -> KeptIndex {
    KeptIndex::new(4, Budgets { memory, disk }, Allowances::default())
}

#[test]
fn tenants_never_share() {
    let mut kept = index(1000, 0);
    kept.put_copy(&tenant("a"), &tokens(1, 2 * N), copy(10));
    assert!(kept.find(&tenant("b"), &tokens(1, 2 * N)).is_none());
    assert_eq!(kept.find(&tenant("a"), &tokens(1, 3 * N)).map(|f| f.n_common), Some(2 * N));
}

#[test]
fn who_may_hold_only_so_much_gives_up_its_own() {
    let allowances = Allowances::new(&HashMap::from([(tenant("a"), 25)]));
    let mut kept = KeptIndex::new(4, Budgets { memory: 50, disk: 100 }, allowances);
    let (a, b) = (tenant("a"), tenant("b"));
    kept.put_copy(&b, &tokens(1, N), copy(10));
    let on_disk = kept.put_disk(&a, &tokens(1, N), 10);
    kept.put_copy(&a, &tokens(2, N), copy(10));
    assert_eq!(kept.unwanted_files().count(), 0);
    assert!(kept.find(&a, &tokens(1, N)).is_some(), "used last");
    kept.put_copy(&a, &tokens(3, N), copy(10));
    assert!(kept.find(&a, &tokens(2, N)).is_none(), "what it used longest ago has gone");
    kept.put_copy(&a, &tokens(4, N), copy(10));
    assert_eq!(kept.unwanted_files().collect::<Vec<_>>(), [on_disk], "what is on disk counts");
    assert_eq!((0..=4).filter(|first| kept.find(&a, &tokens(*first, N)).is_some()).count(), 2);
    kept.put_copy(&a, &tokens(5, N), copy(26));
    assert!(kept.find(&a, &tokens(5, N)).is_none() && kept.find(&a, &tokens(4, N)).is_some(), "more than it may hold at all");
    assert!(kept.find(&b, &tokens(1, N)).is_some(), "others lose nothing");
    assert_eq!(kept.used(), Budgets { memory: 30, disk: 0 });
}

#[test]
fn what_was_used_longest_ago_leaves_first_and_goes_to_disk() {
    let mut kept = index(30, 25);
    let a = tenant("a");
    for first in 1..=3 {
        assert!(kept.put_copy(&a, &tokens(first, N), copy(10)).is_empty());
    }
    assert!(kept.find(&a, &tokens(1, N)).is_some());
    let leaving = kept.put_copy(&a, &tokens(4, N), copy(10));
    assert_eq!(leaving.iter().map(|l| l.tokens.to_vec()).collect::<Vec<_>>(), [tokens(2, N)]);
    assert!(matches!(kept.find(&a, &tokens(2, N)).unwrap().place, Place::Writing(_)), "usable while it is written");
    kept.end_write(leaving[0].id, true);
    assert_eq!((kept.used(), kept.unwanted_files().count()), (Budgets { memory: 30, disk: 10 }, 0));
    let found = kept.find(&a, &tokens(2, N)).unwrap();
    assert!(matches!(found.place, Place::Disk { n_bytes: 10 }) && kept.start_read(found.id) && !kept.start_read(found.id));
    let leaving = kept.end_read(found.id, Some(copy(10)));
    assert_eq!(leaving[0].tokens.to_vec(), tokens(3, N), "its place in memory is somebody else's");
    assert!(matches!(kept.find(&a, &tokens(2, N)).unwrap().place, Place::Memory(_)));
    kept.end_write(leaving[0].id, true);
    // its file stays, is counted, and need not be written again
    assert_eq!(kept.used(), Budgets { memory: 30, disk: 20 });
    let leaving: Vec<_> = (5..=7).flat_map(|first| kept.put_copy(&a, &tokens(first, N), copy(10))).collect();
    assert!(leaving.iter().all(|one| one.tokens.to_vec() != tokens(2, N)));
    assert!(matches!(kept.find(&a, &tokens(2, N)).unwrap().place, Place::Disk { .. }));
}

#[test]
fn a_disk_that_is_full_forgets_and_one_that_fails_too() {
    let mut kept = index(10, 20);
    let a = tenant("a");
    kept.put_copy(&a, &tokens(0, N), copy(10));
    for first in 1..=3 {
        for leaving in kept.put_copy(&a, &tokens(first, N), copy(10)) {
            kept.end_write(leaving.id, first != 3);
        }
    }
    assert_eq!((kept.used(), kept.unwanted_files().count()), (Budgets { memory: 10, disk: 20 }, 0));
    assert!(kept.find(&a, &tokens(2, N)).is_none(), "it could not be written");
    let leaving = kept.put_copy(&a, &tokens(5, N), copy(10));
    kept.end_write(leaving[0].id, true);
    assert_eq!(kept.unwanted_files().count(), 1, "the oldest file goes");
    assert!(kept.find(&a, &tokens(0, N)).is_none());
}

#[test]
fn a_longer_copy_takes_the_place_of_its_beginning() {
    let mut kept = index(1000, 0);
    let a = tenant("a");
    kept.put_copy(&a, &tokens(1, 2 * N), copy(20));
    kept.put_copy(&a, &tokens(1, 3 * N), copy(30));
    assert_eq!(kept.used().memory, 30);
    kept.put_copy(&a, &tokens(1, 2 * N), copy(20));
    assert_eq!(kept.used().memory, 30, "it is kept already");
    kept.put_copy(&a, &tokens(1, 9 * N), copy(90));
    assert_eq!(kept.used().memory, 120, "a much shorter one is much quicker to restore");
}

#[test]
fn a_copy_goes_before_a_stream_with_as_much_in_common() {
    let mut kept = index(1000, 0);
    let a = tenant("a");
    kept.put_stream(2, &a, &tokens(1, 4 * N));
    assert!(matches!(kept.find(&a, &tokens(1, 3 * N)).unwrap().place, Place::Stream(2)));
    kept.put_copy(&a, &tokens(1, 3 * N), copy(30));
    assert!(matches!(kept.find(&a, &tokens(1, 3 * N)).unwrap().place, Place::Memory(_)));
    kept.put_stream(2, &a, &tokens(7, N));
    assert!(kept.find(&a, &tokens(1, 4 * N)).is_some_and(|f| f.n_common == 3 * N));
    kept.forget_stream(2);
    assert!(kept.find(&a, &tokens(7, N)).is_none());
}

proptest! {
    #[test]
    fn budgets_hold_and_the_best_is_found(steps in prop::collection::vec((0u8..6, 0i32..6, 1usize..4, 0usize..4), 1..80)) {
        let mut kept = index(100, 100);
        let a = tenant("a");
        let mut files = HashMap::new();
        for (what, first, length, stream) in steps {
            let tokens = tokens(first, length * N);
            let mut leaving = match what {
                0 | 1 => kept.put_copy(&a, &tokens, copy(length * 15)),
                2 => {
                    kept.put_stream(stream, &a, &tokens);
                    Vec::new()
                }
                3 => {
                    kept.forget_stream(stream);
                    Vec::new()
                }
                _ => {
                    let found = kept.find(&a, &tokens);
                    if let Some(found) = found {
                        prop_assert!(found.n_common <= tokens.len() && found.n_common <= found.tokens.len());
                        let Place::Disk { n_bytes } = found.place else { continue };
                        prop_assert!(kept.start_read(found.id));
                        kept.end_read(found.id, (what == 4).then(|| copy(usize::try_from(n_bytes).unwrap())))
                    } else {
                        Vec::new()
                    }
                }
            };
            for leaving in leaving.drain(..) {
                kept.end_write(leaving.id, what != 5);
                if what != 5 {
                    files.insert(leaving.id, leaving.copy.len() as u64);
                }
            }
            for id in kept.unwanted_files() {
                prop_assert!(files.remove(&id).is_some(), "deleted once, and written before");
            }
            let used = kept.used();
            prop_assert_eq!(files.values().sum::<u64>(), used.disk, "every file is counted");
            prop_assert!(used.memory <= 100 && used.disk <= 100, "{:?}", used);
        }
        for stream in 0..4 {
            if let Some((_, tokens)) = kept.stream(stream) {
                let tokens = tokens.clone();
                prop_assert_eq!(kept.find(&a, &tokens).map(|f| f.n_common), Some(common(&tokens, &tokens)));
            }
        }
    }
}

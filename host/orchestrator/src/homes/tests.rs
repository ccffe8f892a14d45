//! What is found, against a model that compares texts.

use std::collections::{BTreeMap, HashSet};

use llambo_inference::Message;
use proptest::{collection::vec, prelude::*};

use super::*;

fn text(text: &str) -> Prefix {
    Prefix::of(&"t".into(), &"m".into(), &Prompt::Text(text.into()))
}

fn chat(messages: &[(Role, &str)]) -> Prefix {
    let messages = messages.iter().map(|&(role, content)| Message { role, content: content.into() }).collect();
    Prefix::of(&"t".into(), &"m".into(), &Prompt::Chat(messages))
}

fn hashes(prefix: &Prefix) -> Vec<u64> {
    prefix.0.iter().map(|block| block.hash).collect()
}

fn lengths(prefix: &Prefix) -> Vec<u32> {
    prefix.0.iter().map(|block| block.n_bytes).collect()
}

/// Blocks of one letter each.
fn blocks(letters: &str) -> String {
    letters.chars().map(|letter| letter.to_string().repeat(BLOCK_BYTES)).collect()
}

#[test]
fn what_follows_a_block_does_not_change_it_and_what_is_before_does() {
    let short = text(&blocks("ab"));
    let long = text(&(blocks("abc") + "and some more"));
    assert_eq!((hashes(&short).len(), hashes(&long).len()), (2, 3));
    assert_eq!(hashes(&short), hashes(&long)[..2]);
    assert_ne!(hashes(&text(&blocks("xb")))[1], hashes(&short)[1]);
    assert_ne!(hashes(&text(&blocks("aa")))[0], hashes(&text(&blocks("aa")))[1]);
    assert!(hashes(&text(&"a".repeat(127))).is_empty());
}

#[test]
fn every_byte_of_a_block_counts() {
    let plain = "a".repeat(BLOCK_BYTES);
    let mut seen = HashSet::from([hashes(&text(&plain))[0]]);
    for at in 0..BLOCK_BYTES {
        let mut other = plain.clone();
        other.replace_range(at..=at, "b");
        assert!(seen.insert(hashes(&text(&other))[0]), "byte {at} makes no difference");
    }
}

#[test]
fn tenants_and_models_have_nothing_in_common() {
    let prompt = Prompt::Text(blocks("abc"));
    let names = [("t", "m"), ("u", "m"), ("t", "n"), ("tm", ""), ("", "tm")];
    let all: Vec<_> =
        names.iter().flat_map(|&(tenant, model)| hashes(&Prefix::of(&tenant.into(), &model.into(), &prompt))).collect();
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 15);
}

#[test]
fn a_conversation_that_goes_on_begins_as_it_did() {
    let (system, question, answer) = (blocks("abc"), blocks("d"), blocks("e"));
    let before = chat(&[(Role::System, &system), (Role::User, &question)]);
    let after = chat(&[(Role::System, &system), (Role::User, &question), (Role::Assistant, &answer), (Role::User, "and?")]);
    assert_eq!(hashes(&before), hashes(&after)[..4]);
    // two bytes for each message so far are not the prompt's
    assert_eq!(lengths(&after), [126, 254, 382, 508, 634]);
}

#[test]
fn who_says_it_and_where_a_message_ends_are_part_of_a_conversation() {
    let whole = blocks("aa");
    let (left, right) = whole.split_at(100);
    let all = [
        chat(&[(Role::User, &whole)]),
        chat(&[(Role::System, &whole)]),
        chat(&[(Role::Assistant, &whole)]),
        chat(&[(Role::User, left), (Role::User, right)]),
        chat(&[(Role::User, left), (Role::Assistant, right)]),
        text(&whole),
    ];
    assert_eq!(all.iter().map(|prefix| hashes(prefix)[0]).collect::<HashSet<_>>().len(), all.len());
}

#[test]
fn no_more_than_64_kib_are_hashed() {
    let prefix = text(&"a".repeat(1 << 20));
    assert_eq!((prefix.0.len(), prefix.0[511].n_bytes), (512, 64 << 10));
}

#[test]
fn shorter_beginnings_are_found_behind_longer_ones() {
    let homes = Homes::default();
    homes.note(&text(&blocks("abcd")), 1);
    homes.note(&text(&blocks("ab")), 2);
    homes.note(&text(&blocks("ax")), 3);
    assert_eq!(homes.find(&text(&blocks("abcde"))), [(1, 512), (2, 256), (3, 128)]);
    assert_eq!(homes.find(&text(&blocks("ab"))), [(2, 256), (1, 256), (3, 128)]);
    assert_eq!(homes.find(&text(&blocks("xa"))), []);
}

#[test]
fn the_last_four_nodes_of_a_beginning_are_kept_and_eight_are_found() {
    let homes = Homes::default();
    for node in 0..6 {
        homes.note(&text(&blocks("a")), node);
    }
    homes.note(&text(&blocks("a")), 3);
    assert_eq!(homes.find(&text(&blocks("a"))), [(3, 128), (5, 128), (4, 128), (2, 128)]);
    for node in 10..20 {
        homes.note(&text(&blocks("ab")), node);
    }
    for node in 20..30 {
        homes.note(&text(&blocks("abc")), node);
    }
    let found = homes.find(&text(&blocks("abc")));
    assert_eq!(found.iter().map(|(node, _)| *node).collect::<Vec<_>>(), [29, 28, 27, 26]);
    for node in 0..4 {
        homes.note(&text(&blocks("ab")), node);
        homes.note(&text(&blocks("a")), 40 + node);
    }
    let found = homes.find(&text(&blocks("abc")));
    assert_eq!(found.iter().map(|(node, _)| *node).collect::<Vec<_>>(), [29, 28, 27, 26, 3, 2, 1, 0]);
}

#[test]
fn a_node_that_had_nothing_is_not_found_again() {
    let homes = Homes::default();
    homes.note(&text(&blocks("abc")), 1);
    homes.note(&text(&blocks("ab")), 2);
    homes.forget(&text(&blocks("abc")), 1);
    assert_eq!(homes.find(&text(&blocks("abc"))), [(2, 256)]);
    homes.forget(&text(&blocks("ab")), 2);
    assert_eq!(homes.find(&text(&blocks("abc"))), []);
    assert!(homes.lock().young.is_empty());
}

#[test]
fn memory_is_bounded_and_what_is_used_stays() {
    let homes = Homes::default();
    let long = |n: usize| text(&(format!("{n:06}") + &"0".repeat(1 << 16)));
    let (first, used) = (long(0), text(&"u".repeat(1 << 16)));
    homes.note(&first, 1);
    let capacity = homes.lock().young.capacity();
    for n in 1..=3 * GENERATION / MAX_BLOCKS {
        let own = long(n);
        homes.note(&own, 2);
        homes.note(&used, 3);
        assert_eq!(homes.find(&own), [(2, 64 << 10)]);
        let kept = homes.lock();
        assert!(kept.young.len() <= GENERATION && kept.old.len() <= GENERATION);
        assert!(kept.young.capacity() <= capacity && kept.old.capacity() <= capacity, "a table has grown");
    }
    assert_eq!(homes.find(&used), [(3, 64 << 10)]);
    assert_eq!(homes.find(&first), []);
}

#[test]
fn who_had_a_beginning_is_not_forgotten_when_another_gets_it_a_generation_later() {
    let (homes, shared) = (Homes::default(), text(&blocks("abc")));
    homes.note(&shared, 1);
    while homes.lock().old.is_empty() {
        let n = homes.lock().young.len();
        homes.note(&text(&(n.to_string() + &"n".repeat(1 << 16))), 2);
    }
    homes.note(&shared, 3);
    assert_eq!(homes.find(&shared), [(3, 384), (1, 384)]);
}

#[derive(Clone, Debug)]
enum Step {
    Note(String, u64),
    Forget(String, u64),
    Find(String),
}

fn step() -> impl Strategy<Value = Step> {
    let prompt = || "[ab]{0,5}";
    prop_oneof![
        3 => (prompt(), 0u64..6).prop_map(|(prompt, node)| Step::Note(prompt, node)),
        1 => (prompt(), 0u64..6).prop_map(|(prompt, node)| Step::Forget(prompt, node)),
        3 => prompt().prop_map(Step::Find),
    ]
}

proptest! {
    #[test]
    fn homes_answer_as_a_model_that_keeps_the_texts(steps in vec(step(), 1..60), tail in 0usize..128) {
        let homes = Homes::default();
        let mut model = BTreeMap::<String, Vec<u64>>::new();
        let prefix = |letters: &str| text(&(blocks(letters) + &"t".repeat(tail)));
        for step in steps {
            match step {
                Step::Note(letters, node) => {
                    homes.note(&prefix(&letters), node);
                    for n in 1..=letters.len() {
                        let nodes = model.entry(letters[..n].into()).or_default();
                        nodes.retain(|other| *other != node);
                        nodes.insert(0, node);
                        nodes.truncate(4);
                    }
                }
                Step::Forget(letters, node) => {
                    homes.forget(&prefix(&letters), node);
                    for n in 1..=letters.len() {
                        let Some(nodes) = model.get_mut(&letters[..n]) else { break };
                        nodes.retain(|other| *other != node);
                        if nodes.is_empty() {
                            model.remove(&letters[..n]);
                        }
                    }
                }
                Step::Find(letters) => {
                    let known = (1..=letters.len()).take_while(|&n| model.contains_key(&letters[..n]));
                    let mut expected = Vec::new();
                    for n in known.collect::<Vec<_>>().into_iter().rev() {
                        for node in &model[&letters[..n]] {
                            if expected.iter().all(|(other, _)| other != node) {
                                expected.push((*node, u32::try_from(n * BLOCK_BYTES).unwrap()));
                            }
                        }
                    }
                    expected.truncate(8);
                    prop_assert_eq!(homes.find(&prefix(&letters)), expected);
                }
            }
        }
    }

    #[test]
    fn however_messages_are_cut_no_byte_is_lost(contents in vec("[a-zé]{0,200}", 0..8)) {
        let messages: Vec<_> = contents.iter().map(|content| (Role::User, content.as_str())).collect();
        let prefix = chat(&messages);
        let n_bytes: usize = contents.iter().map(String::len).sum();
        prop_assert_eq!(prefix.0.len(), (n_bytes + 2 * contents.len()) / BLOCK_BYTES);
        prop_assert!(lengths(&prefix).is_sorted());
        prop_assert!(lengths(&prefix).last().is_none_or(|last| *last as usize <= n_bytes));
    }
}

//! One answer out of several, where no policy says which.

use std::cmp::Reverse;

use crate::Fuse;

/// What may end a sentence: with it or without, an answer says the same. No other marks, since `C` is not `C++`.
const ENDS: [char; 10] = ['.', ',', ';', ':', '!', '?', '…', '。', '！', '？'];

/// The answer that most of them give.
///
/// Answers are the same if they differ in nothing but white space, upper and lower case and the marks at their ends. Empty ones count only where
/// there are no others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Majority;

/// Answers that are the same.
struct Group {
    text: String,
    /// How many they are.
    n: u32,
    /// Which of them is given: the first that is complete, if one is.
    pick: u32,
    is_complete: bool,
}

impl Majority {
    /// A place in `answers`; `None`: more must come in first, or there are none and none will come.
    ///
    /// Decides as soon as no answers to come could make another group as large. Of equally large groups it takes the one with a complete answer, then the one with
    /// the longest text, then the first.
    pub fn fuse(self, ask: &Fuse) -> Option<u32> {
        let groups = groups(ask);
        let Some((at, best)) =
            groups.iter().enumerate().min_by_key(|(_, group)| Reverse((group.n, group.is_complete, group.text.len())))
        else {
            return (ask.outstanding == 0 && !ask.answers.is_empty()).then_some(0);
        };
        let others = groups.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, group)| group.n);
        let is_certain = best.n > others.max().unwrap_or(0).saturating_add(ask.outstanding);
        (is_certain || ask.outstanding == 0).then_some(best.pick)
    }
}

fn groups(ask: &Fuse) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (pick, answer) in (0..).zip(&ask.answers) {
        let text = normalised(&answer.text);
        match groups.iter_mut().find(|group| group.text == text) {
            _ if text.is_empty() => {}
            Some(group) => {
                group.n += 1;
                if answer.complete && !group.is_complete {
                    (group.pick, group.is_complete) = (pick, true);
                }
            }
            None => groups.push(Group { text, n: 1, pick, is_complete: answer.complete }),
        }
    }
    groups
}

fn normalised(text: &str) -> String {
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    words.truncate(words.trim_end_matches(|c| c == ' ' || ENDS.contains(&c)).len());
    words
}

#[cfg(test)]
mod tests {

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{NodeAnswer, RequestFacts};

    fn ask(answers: &[(&str, bool)], outstanding: u32) -> Fuse {
        let answer = |&(text, complete): &(&str, bool)| NodeAnswer {
            node: 0,
            text: text.into(),
            complete,
            output_tokens: 1,
            latency_us: 1.0,
        };
        Fuse { request: facts(), answers: answers.iter().map(answer).collect(), outstanding }
    }

    fn facts() -> RequestFacts {
        RequestFacts::new("r".into(), "m".into(), "t".into())
    }

    fn fuse(answers: &[(&str, bool)], outstanding: u32) -> Option<u32> {
        Majority.fuse(&ask(answers, outstanding))
    }

    #[test]
    fn the_answer_that_most_give_is_taken() {
        assert_eq!(fuse(&[("4", true), ("5", true), ("5", true)], 0), Some(1));
        assert_eq!(fuse(&[("4", true)], 0), Some(0));
    }

    #[test]
    fn case_white_space_and_the_marks_at_the_end_make_no_difference() {
        assert_eq!(fuse(&[("no", true), (" Yes,\n it  is. ", true), ("yes, it is!", true)], 0), Some(1));
        assert_eq!(fuse(&[("C++", true), ("C", true), ("c", true)], 0), Some(1));
        assert_eq!(fuse(&[("Ähnlich", true), ("x", true), ("ähnlich…", true)], 0), Some(0));
    }

    #[test]
    fn it_decides_as_soon_as_nothing_can_change_that() {
        assert_eq!(fuse(&[("4", true)], 2), None);
        assert_eq!(fuse(&[("4", true), ("4", true)], 1), Some(0));
        // the last one could make them equal, and be longer
        assert_eq!(fuse(&[("4", true), ("4", true), ("5", true)], 1), None);
        assert_eq!(fuse(&[("4", true), ("4", true), ("4", true), ("5", true)], 1), Some(0));
    }

    #[test]
    fn of_equally_many_a_complete_one_is_taken_then_the_longest_then_the_first() {
        assert_eq!(fuse(&[("a long answer that was cut", false), ("short", true)], 0), Some(1));
        assert_eq!(fuse(&[("short", true), ("longer", true)], 0), Some(1));
        assert_eq!(fuse(&[("abc", true), ("xyz", true)], 0), Some(0));
        assert_eq!(fuse(&[("abc", false), ("Abc", true), ("abc.", true)], 0), Some(1));
    }

    #[test]
    fn an_empty_answer_is_taken_only_where_all_are() {
        assert_eq!(fuse(&[("", true), (" \n", true), ("4", false)], 0), Some(2));
        assert_eq!(fuse(&[("", true), ("...", true)], 0), Some(0));
        assert_eq!(fuse(&[("", true), ("", true)], 1), None);
        assert_eq!(fuse(&[], 3), None);
        assert_eq!(fuse(&[], 0), None);
    }

    fn answers() -> impl Strategy<Value = Vec<(&'static str, bool)>> {
        vec((prop::sample::select(vec!["", "a", "A.", "b", "ccc"]), any::<bool>()), 0..8)
    }

    proptest! {
        #[test]
        fn an_early_decision_is_the_one_that_waiting_would_have_made(all in answers(), n in 0usize..8) {
            let (early, late) = all.split_at(n.min(all.len()));
            if let Some(chosen) = fuse(early, u32::try_from(late.len()).unwrap()) {
                let last = fuse(&all, 0).unwrap();
                prop_assert_eq!(normalised(all[chosen as usize].0), normalised(all[last as usize].0));
            }
        }

        #[test]
        fn when_all_are_there_one_is_taken(all in answers()) {
            prop_assert_eq!(fuse(&all, 0).map(|chosen| (chosen as usize) < all.len()), (!all.is_empty()).then_some(true));
        }
    }
}

use proptest::prelude::*;

use super::*;

fn of(text: &str) -> Complexity {
    Complexity::of(&ToJudge { text, n_bytes: text.len(), n_messages: 1, ..ToJudge::default() })
}

#[test]
fn three_requests_that_anybody_would_tell_apart() {
    assert_eq!(of("What is the capital of Norway?").tier, 0);
    assert_eq!(of("Explain how a dishwasher works.").tier, 1);
    assert_eq!(of("Prove that the square root of 3 is irrational.").tier, 2);
    assert_eq!(of("").tier, 0);
}

#[test]
fn what_it_says_of_a_request_has_counts_and_none_of_its_words() {
    let complexity = of("Write a poem about Zanzibar. It must rhyme.\n```\nx = 1\n```");
    assert_eq!(complexity.to_string(), "medium, 7 points: 13 words, 1 that ask for a text, 1 conditions, 1 lines of code");
}

#[test]
fn what_surrounds_a_question_counts() {
    let text = "Which of these is the best?";
    let judge = |request: ToJudge<'_>| Complexity::of(&request).points;
    let alone = ToJudge { text, n_bytes: text.len(), n_messages: 1, ..ToJudge::default() };
    let points = judge(alone);
    assert!(judge(ToJudge { n_bytes: 40_000, ..alone }) > points, "a long document before it");
    assert!(judge(ToJudge { n_messages: 9, ..alone }) > points, "a long conversation");
    assert!(judge(ToJudge { is_constrained: true, ..alone }) > points, "a schema");
    assert!(judge(ToJudge { instructions: "You may call <tools>[]</tools>", ..alone }) > points, "tools");
}

#[test]
fn a_task_below_a_long_text_is_found() {
    let book = "The sea was calm. ".repeat(20_000);
    let asked = of(&format!("{book}\n\nProve what the author claims."));
    assert_eq!((asked.tier, asked.signals.proofs), (2, 1), "{asked}");
}

proptest! {
    #[test]
    fn any_text_is_judged(text in "\\PC{0,200}", n_bytes in any::<usize>(), n_messages in any::<usize>()) {
        let complexity = Complexity::of(&ToJudge { text: &text, n_bytes, n_messages, ..ToJudge::default() });
        prop_assert!(complexity.tier <= crate::MAX_TIER);
        prop_assert!(complexity.points < 60, "each signal is bounded: {}", complexity);
    }

    #[test]
    fn a_condition_more_is_never_simpler(text in "[a-z ]{0,80}", n in 0usize..6) {
        let more = format!("{text}{}", " must".repeat(n));
        prop_assert!(of(&more).points >= of(&text).points);
    }
}

//! What words say about how demanding a request is, in English, German, French, Spanish and Chinese.

/// What a word asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Meaning {
    Proof,
    Reasoning,
    Composing,
    Condition,
    Subject,
}

use Meaning::{Composing, Condition, Proof, Reasoning, Subject};

/// Beginnings of words, in order; none is the beginning of another.
const STEMS: &[(&str, Meaning)] = &[
    ("algorithm", Subject),
    ("algoritmo", Subject),
    ("always", Condition),
    ("analis", Reasoning),
    ("analiz", Reasoning),
    ("analys", Reasoning),
    ("analyz", Reasoning),
    ("architect", Subject),
    ("architekt", Subject),
    ("argue", Reasoning),
    ("assumption", Subject),
    ("avoid", Condition),
    ("begründe", Reasoning),
    ("benchmark", Subject),
    ("beschreib", Composing),
    ("beweis", Proof),
    ("bewert", Reasoning),
    ("cannot", Condition),
    ("compar", Composing),
    ("compile", Subject),
    ("concurren", Subject),
    ("consisten", Subject),
    ("constraint", Condition),
    ("conçois", Reasoning),
    ("create", Composing),
    ("critique", Reasoning),
    ("crée", Composing),
    ("datenschutz", Subject),
    ("deadlock", Subject),
    ("debe", Condition),
    ("debug", Reasoning),
    ("decrib", Composing),
    ("demuestra", Proof),
    ("deriv", Proof),
    ("describ", Composing),
    ("design", Reasoning),
    ("determin", Reasoning),
    ("differen", Composing),
    ("différence", Composing),
    ("diseñ", Reasoning),
    ("distribut", Subject),
    ("doit", Condition),
    ("draft", Composing),
    ("démontr", Proof),
    ("entwickl", Reasoning),
    ("entwirf", Reasoning),
    ("erklär", Composing),
    ("escrib", Composing),
    ("essay", Composing),
    ("evalu", Reasoning),
    ("exactly", Condition),
    ("explain", Composing),
    ("explic", Composing),
    ("expliq", Composing),
    ("fass", Composing),
    ("formulate", Reasoning),
    ("function", Composing),
    ("geometr", Subject),
    ("grammar", Subject),
    ("implement", Reasoning),
    ("inducción", Subject),
    ("induction", Subject),
    ("integral", Subject),
    ("invariant", Subject),
    ("itinerary", Composing),
    ("justif", Reasoning),
    ("latency", Subject),
    ("least", Condition),
    ("migra", Subject),
    ("mindestens", Condition),
    ("minimal", Subject),
    ("minimis", Subject),
    ("most", Condition),
    ("muss", Condition),
    ("must", Condition),
    ("never", Condition),
    ("optimal", Subject),
    ("optimi", Reasoning),
    ("outline", Composing),
    ("parameter", Subject),
    ("pourquoi", Composing),
    ("preuve", Subject),
    ("programm", Subject),
    ("proof", Subject),
    ("propos", Reasoning),
    ("prove", Proof),
    ("rebut", Reasoning),
    ("recipe", Composing),
    ("recommend", Reasoning),
    ("refactor", Reasoning),
    ("requirement", Condition),
    ("resum", Composing),
    ("rewrite", Composing),
    ("risik", Subject),
    ("risk", Subject),
    ("root", Subject),
    ("rédige", Composing),
    ("schreibe", Composing),
    ("script", Composing),
    ("should", Condition),
    ("simulat", Reasoning),
    ("soll", Condition),
    ("solution", Subject),
    ("solve", Reasoning),
    ("step", Subject),
    ("strateg", Subject),
    ("suggest", Composing),
    ("summar", Composing),
    ("system", Subject),
    ("theorem", Subject),
    ("thread", Subject),
    ("trade", Subject),
    ("unterschied", Composing),
    ("verallgemein", Reasoning),
    ("vergleich", Composing),
    ("warum", Composing),
    ("why", Composing),
    ("within", Condition),
    ("without", Condition),
    ("write", Composing),
    ("zusammen", Composing),
    ("écris", Composing),
    ("étape", Subject),
    ("évalu", Reasoning),
];

/// Whole words, in order, which begin others of another meaning.
const WHOLE: &[(&str, Meaning)] = &[
    ("cons", Composing),
    ("consider", Composing),
    ("ideas", Composing),
    ("plan", Composing),
    ("plans", Composing),
    ("pros", Composing),
    ("table", Composing),
];

/// After "how", these ask for an explanation, where "how many" asks for a number.
const AFTER_HOW: &[&str] = &["are", "can", "did", "do", "does", "is", "to"];

/// The same for scripts that do not part words, found anywhere.
pub(super) const IN_WIDE: &[(&str, Meaning)] = &[
    ("为什么", Composing),
    ("写", Composing),
    ("分析", Reasoning),
    ("必须", Condition),
    ("怎么", Composing),
    ("系统", Subject),
    ("解释", Composing),
    ("设计", Reasoning),
    ("证明", Proof),
    ("説明", Composing),
    ("設計", Reasoning),
    ("証明", Proof),
];

/// What a word in lower case asks for.
pub(super) fn meaning(word: &str) -> Option<Meaning> {
    if let Ok(at) = WHOLE.binary_search_by_key(&word, |(whole, _)| whole) {
        return WHOLE.get(at).map(|(_, meaning)| *meaning);
    }
    let after = STEMS.partition_point(|(stem, _)| *stem <= word);
    let (stem, meaning) = STEMS.get(after.checked_sub(1)?)?;
    word.starts_with(stem).then_some(*meaning)
}

/// Whether two words that stand one after the other ask for an explanation.
pub(super) fn asks_how(before: &str, word: &str) -> bool {
    before == "how" && AFTER_HOW.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_are_in_order_and_none_hides_another() {
        for pair in STEMS.windows(2) {
            let [(before, _), (after, _)] = pair else { continue };
            assert!(before < after, "`{before}` must come after `{after}`");
            assert!(!after.starts_with(before), "`{after}` is found by `{before}` already");
        }
        for (stem, expected) in STEMS {
            assert_eq!(meaning(stem), Some(*expected));
            assert_eq!(meaning(&format!("{stem}zzz")), Some(*expected));
        }
        assert!(WHOLE.is_sorted() && WHOLE.iter().all(|(word, own)| meaning(word) == Some(*own)));
        assert!(asks_how("how", "does") && !asks_how("how", "many") && !asks_how("so", "does"));
        assert_eq!((meaning(""), meaning("a"), meaning("zzz")), (None, None, None));
    }
}

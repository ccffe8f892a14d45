use std::sync::Arc;

use crate::{Balancer, CognitiveAffinity, LeastLoaded, PowerOfTwo, Random, RoundRobin, WeightedRandom};

/// The built-in strategies, by the names they are configured by.
pub const NAMES: [&str; 6] = ["round-robin", "least-loaded", "random", "weighted-random", "power-of-two", "cognitive-affinity"];

/// Other names that people know them by, and what they mean here.
const ALIASES: [(&str, &str); 2] = [("least-connections", "least-loaded"), ("cache-aware", "cognitive-affinity")];

/// Edits up to which a name is taken for a slip of one that exists.
const MAX_EDITS: usize = 4;

/// No built-in strategy has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("strategy `{name}` is unknown{}; there are: `{}`", suggest(*.suggestion), NAMES.join("`, `"))]
pub struct UnknownStrategy {
    /// What was asked for.
    pub name: String,
    /// What was probably meant.
    pub suggestion: Option<&'static str>,
}

/// The built-in strategy of that name, or of that alias (`least-connections`, `cache-aware`).
///
/// # Errors
/// [`UnknownStrategy`], with the names there are.
pub fn by_name(name: &str) -> Result<Arc<dyn Balancer>, UnknownStrategy> {
    let canonical = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, canonical)| canonical);
    Ok(match canonical {
        "round-robin" => Arc::new(RoundRobin),
        "least-loaded" => Arc::new(LeastLoaded),
        "random" => Arc::new(Random),
        "weighted-random" => Arc::new(WeightedRandom),
        "power-of-two" => Arc::new(PowerOfTwo),
        "cognitive-affinity" => Arc::new(CognitiveAffinity),
        _ => return Err(UnknownStrategy { name: name.into(), suggestion: closest(name) }),
    })
}

fn suggest(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}

fn closest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace(['_', ' '], "-");
    let known = NAMES.into_iter().map(|known| (known, known)).chain(ALIASES);
    let (edits, meant) = known.map(|(written, meant)| (edits(&name, written), meant)).min_by_key(|(edits, _)| *edits)?;
    // more edits than half of the word would turn anything into anything
    (edits <= MAX_EDITS.min(name.len() / 2)).then_some(meant)
}

/// Levenshtein distance: single-byte insertions, removals and replacements.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_the_strategy_of_that_name() {
        for name in NAMES {
            assert_eq!(by_name(name).map(|b| b.name()).ok(), Some(name));
        }
    }

    #[test]
    fn other_names_lead_to_what_they_mean() {
        assert_eq!(by_name("least-connections").map(|b| b.name()).ok(), Some("least-loaded"));
        assert_eq!(by_name("cache-aware").map(|b| b.name()).ok(), Some("cognitive-affinity"));
    }

    #[test]
    fn a_slip_is_answered_with_what_was_meant_and_all_there_are() {
        let error = by_name("round_robbin").err().expect("no such strategy");
        assert_eq!(
            error.to_string(),
            "strategy `round_robbin` is unknown, did you mean `round-robin`?; there are: `round-robin`, `least-loaded`, \
             `random`, `weighted-random`, `power-of-two`, `cognitive-affinity`"
        );
        assert_eq!(by_name("least-conections").err().expect("a slip").suggestion, Some("least-loaded"));
    }

    #[test]
    fn a_name_like_no_other_gets_no_suggestion() {
        for name in ["", "x", "quantum"] {
            assert_eq!(by_name(name).err().expect("no such strategy").suggestion, None);
        }
    }
}

//! How often a classifier is right about prompts that people labelled.

use std::fmt::Write;

use crate::{Complexity, MAX_TIER, ToJudge};

const TIERS: usize = MAX_TIER as usize + 1;

/// A prompt and the tier that it should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// 0 to 2.
    pub tier: u8,
    /// Of what it says, for example `en`.
    pub language: String,
    /// What it says.
    pub prompt: String,
}

/// Which tiers were said in the place of which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confusion {
    /// By the tier that is right, then by the one that was said.
    pub counts: [[u32; TIERS]; TIERS],
    /// Prompts that were judged wrongly: by their place, and what was said.
    pub wrong: Vec<(usize, Complexity)>,
}

/// Reads lines of tier, language and prompt, parted by tabs; `\n` in a prompt is a line feed, lines that begin with `#` are notes.
///
/// # Errors
/// The first line that is none, by its number.
pub fn parse(text: &str) -> Result<Vec<Labelled>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let read = |(i, line): (usize, &str)| {
        let wrong = || format!("line {}: must be a tier from 0 to {MAX_TIER}, a tab, a language, a tab, and a prompt", i + 1);
        let (tier, rest) = line.split_once('\t').ok_or_else(wrong)?;
        let (language, prompt) = rest.split_once('\t').ok_or_else(wrong)?;
        let tier = tier.parse().ok().filter(|tier| *tier <= MAX_TIER).ok_or_else(wrong)?;
        Ok(Labelled { tier, language: language.to_owned(), prompt: prompt.replace("\\n", "\n") })
    };
    lines.map(read).collect()
}

/// Judges each prompt by what is built in.
pub fn judge(prompts: &[Labelled]) -> Confusion {
    let mut confusion = Confusion::default();
    for (i, labelled) in prompts.iter().enumerate() {
        let text = labelled.prompt.as_str();
        let said = Complexity::of(&ToJudge { text, n_bytes: text.len(), n_messages: 1, ..ToJudge::default() });
        confusion.counts[usize::from(labelled.tier.min(MAX_TIER))][usize::from(said.tier.min(MAX_TIER))] += 1;
        if said.tier != labelled.tier {
            confusion.wrong.push((i, said));
        }
    }
    confusion
}

impl Confusion {
    /// Share that was judged rightly; 0 of nothing.
    pub fn accuracy(&self) -> f64 {
        let all: u32 = self.counts.iter().flatten().sum();
        let right: u32 = self.counts.iter().enumerate().filter_map(|(i, row)| row.get(i)).sum();
        if all == 0 { 0.0 } else { f64::from(right) / f64::from(all) }
    }

    /// As a table in Markdown.
    pub fn to_markdown(&self) -> String {
        let mut table = String::from("| labelled | judged 0 | judged 1 | judged 2 | right |\n|---|---|---|---|---|\n");
        for (tier, row) in self.counts.iter().enumerate() {
            let all: u32 = row.iter().sum();
            let _ = writeln!(table, "| tier {tier} | {} | {} | {} | {} of {all} |", row[0], row[1], row[2], row[tier]);
        }
        let all: u32 = self.counts.iter().flatten().sum();
        let _ = writeln!(table, "| all | | | | {:.1}% of {all} |", 100.0 * self.accuracy());
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../COMPLEXITY.md");
    const TUNED: &str = include_str!("../complexity/tuned.tsv");
    const HELD_OUT: &str = include_str!("../complexity/held-out.tsv");

    #[test]
    fn the_document_says_what_is_measured() {
        for (name, text) in [("tuned", TUNED), ("held out", HELD_OUT)] {
            let confusion = judge(&parse(text).unwrap());
            let table = confusion.to_markdown();
            assert!(DOCUMENT.contains(&table), "`cargo xtask complexity` writes host/COMPLEXITY.md; {name} is now:\n{table}");
            // a change that makes it worse is to be seen, not only written down
            assert!(confusion.accuracy() >= 0.93, "{name}: {}", confusion.accuracy());
        }
    }

    #[test]
    fn no_prompt_is_in_both_parts() {
        let (tuned, held_out) = (parse(TUNED).unwrap(), parse(HELD_OUT).unwrap());
        assert!(tuned.len() + held_out.len() >= 200);
        for (part, least) in [(&tuned, 30), (&held_out, 20)] {
            assert!((0..=MAX_TIER).all(|tier| part.iter().filter(|labelled| labelled.tier == tier).count() >= least));
        }
        assert!(held_out.iter().all(|labelled| tuned.iter().all(|other| other.prompt != labelled.prompt)));
    }

    #[test]
    fn lines_that_are_none_are_named() {
        assert!(parse("# a note\n\n0\ten\tHi\n3\ten\tHi").unwrap_err().starts_with("line 4: "));
        assert!(parse("0 en Hi").is_err() && parse("0\ten").is_err());
        assert_eq!(parse("2\tde\ta\\nb").unwrap()[0].prompt, "a\nb");
        assert!(judge(&[]).accuracy() < f64::EPSILON);
    }
}

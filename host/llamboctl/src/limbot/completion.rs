//! What Tab completes: commands, models, tiers, and paths for `/save`.

use rustyline::{
    Context, Helper,
    completion::{Completer, FilenameCompleter, Pair},
    highlight::Highlighter,
    hint::Hinter,
    validate::{ValidationContext, ValidationResult, Validator},
};

use super::slash::{self, COMMANDS};

pub(super) struct Completion {
    /// Names of the models that the host had last.
    pub(super) models: Vec<String>,
    files: FilenameCompleter,
}

impl Completion {
    pub(super) fn new() -> Self {
        Self { models: Vec::new(), files: FilenameCompleter::new() }
    }

    /// Where the word under the cursor begins, and what it may become.
    fn words(&self, line: &str) -> (usize, Vec<Pair>) {
        let Some((name, rest)) = line.split_once(' ') else {
            let known = COMMANDS.iter().map(|(known, argument, _)| {
                let space = if argument.is_empty() { "" } else { " " };
                (*known, format!("{known}{space}"))
            });
            return (0, pairs(known, line));
        };
        let rest = rest.trim_start();
        let start = line.len() - rest.len();
        let words: Vec<&str> = match name {
            "/model" => self.models.iter().map(String::as_str).collect(),
            "/tier" => vec!["0", "1", "2", "any"],
            "/history" => vec!["all"],
            _ => Vec::new(),
        };
        (start, pairs(words.into_iter().map(|word| (word, word.to_owned())), rest))
    }
}

fn pairs<'a>(words: impl Iterator<Item = (&'a str, String)>, begun: &str) -> Vec<Pair> {
    let fitting = words.filter(|(word, _)| word.starts_with(begun));
    fitting.map(|(word, replacement)| Pair { display: word.to_owned(), replacement }).collect()
}

impl Helper for Completion {}

impl Highlighter for Completion {}

impl Hinter for Completion {
    type Hint = String;
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let line = &line[..pos];
        if line.starts_with("/save ") {
            return self.files.complete_path(line, pos);
        }
        Ok(if line.starts_with('/') { self.words(line) } else { (pos, Vec::new()) })
    }
}

impl Validator for Completion {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if slash::goes_on(context.input()) { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(line: &str) -> (usize, Vec<String>) {
        let completion = Completion { models: vec!["builtin:demo".into(), "qwen".into()], ..Completion::new() };
        let (start, pairs) = completion.words(line);
        (start, pairs.into_iter().map(|pair| pair.replacement).collect())
    }

    #[test]
    fn commands_and_what_follows_them_are_completed() {
        assert_eq!(completed("/he"), (0, vec!["/help".into()]));
        assert_eq!(completed("/s"), (0, vec!["/status".into(), "/save ".into()]));
        assert_eq!(completed("/model "), (7, vec!["builtin:demo".into(), "qwen".into()]));
        assert_eq!(completed("/model b"), (7, vec!["builtin:demo".into()]));
        assert_eq!(completed("/tier a"), (6, vec!["any".into()]));
        assert_eq!(completed("/clear "), (7, vec![]));
    }
}

//! What Tab completes: commands, flags, their values, files, and what the host has.

use std::ffi::OsString;

use clap::Command;
use clap_complete::engine::{self, ArgValueCandidates, CompletionCandidate};
use rustyline::{
    Context, Helper,
    completion::{Completer, Pair, escape, unescape},
    highlight::Highlighter,
    hint::Hinter,
    validate::{ValidationContext, ValidationResult, Validator},
};

use super::{
    live::{Live, Names},
    script,
    words::{self, BUILT_IN},
};

pub(super) struct Completion {
    /// llamboctl's command line, with the shell's own commands and what the host has.
    commands: Command,
}

impl Completion {
    pub(super) fn new(live: Live) -> Self {
        Self::with(move |names| live.names(names))
    }

    fn with(names: impl Fn(Names) -> Vec<String> + Clone + Send + Sync + 'static) -> Self {
        let mut commands = told(words::commands(), "", &names).disable_help_subcommand(true);
        for (name, _, what) in BUILT_IN {
            commands = commands.subcommand(Command::new(name).about(what).disable_help_flag(true));
        }
        Self { commands }
    }

    /// Where the word under the cursor begins, and what it may become.
    fn words(&self, line: &str) -> (usize, Vec<Pair>) {
        let nothing = (line.len(), Vec::new());
        let start = word_start(line);
        let Ok(mut words) = shell_words::split(&line[..start]) else { return nothing };
        let mut commands = self.commands.clone();
        match words.first().map(String::as_str) {
            // they take another command's words
            Some("watch" | "help") => {
                words.remove(0);
                while words.first().is_some_and(|word| word == "--interval" || word == "--times") {
                    words.drain(..2.min(words.len()));
                }
            }
            Some("set") => return choices(["-e", "+e", "-x", "+x"], start, &line[start..]),
            _ => {}
        }
        let begun = unescape(&line[start..], Some('\\')).into_owned();
        let index = words.len();
        words.push(begun.clone());
        let args: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        let found = engine::complete(&mut commands, args, index, std::env::current_dir().ok().as_deref()).unwrap_or_default();
        let mut found: Vec<String> =
            found.iter().map(CompletionCandidate::get_value).filter_map(|value| value.to_str().map(ToOwned::to_owned)).collect();
        found.retain(|value| value.starts_with(&begun));
        // flags are there for who begins one; they are many, and hide what else may stand here
        if begun.is_empty() && found.iter().any(|value| !value.starts_with('-')) {
            found.retain(|value| !value.starts_with('-'));
        }
        let is_one = found.len() == 1;
        let pair = |value: String| {
            let goes_on = value.ends_with('/') || value.ends_with('=');
            let mut replacement = escape(value.clone(), Some('\\'), is_special, rustyline::completion::Quote::None);
            if is_one && !goes_on {
                replacement.push(' ');
            }
            Pair { display: value, replacement }
        };
        (start, found.into_iter().map(pair).collect())
    }
}

fn choices<const N: usize>(words: [&str; N], start: usize, begun: &str) -> (usize, Vec<Pair>) {
    let fitting = words.into_iter().filter(|word| word.starts_with(begun));
    (start, fitting.map(|word| Pair { display: word.to_owned(), replacement: word.to_owned() }).collect())
}

/// Where the last word of a line begins.
fn word_start(line: &str) -> usize {
    let mut start = 0;
    let mut is_escaped = false;
    for (at, c) in line.char_indices() {
        if !is_escaped && c.is_whitespace() {
            start = at + c.len_utf8();
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    start
}

/// What needs a backslash to be part of a word.
fn is_special(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\'' | '"' | '\\' | '#')
}

/// The command line with the host's names where they may stand.
fn told(command: Command, path: &str, names: &(impl Fn(Names) -> Vec<String> + Clone + Send + Sync + 'static)) -> Command {
    let command = command.mut_args(|arg| {
        let value = arg.get_value_names().and_then(<[_]>::first).map_or("", |name| name.as_str());
        let Some(of) = named(path, arg.get_id().as_str(), value) else { return arg };
        let names = names.clone();
        arg.add(ArgValueCandidates::new(move || names(of).into_iter().map(CompletionCandidate::new).collect()))
    });
    let path = path.to_owned();
    let names = names.clone();
    command.mut_subcommands(move |below| {
        let name = below.get_name().to_owned();
        told(below, if path.is_empty() { &name } else { &path }, &names)
    })
}

/// What an argument of a command names on the host.
fn named(command: &str, id: &str, value: &str) -> Option<Names> {
    match (command, id, value) {
        (_, _, "NODE") => Some(Names::Nodes),
        (_, _, "TYPE") => Some(Names::Types),
        (_, "model", _) => Some(Names::Models),
        ("balancer", "strategy", _) => Some(Names::Strategies),
        ("session", "id", _) => Some(Names::Sessions),
        ("module", "name", "name" | "NAME") => Some(Names::Modules),
        _ => None,
    }
}

impl Helper for Completion {}

impl Highlighter for Completion {}

impl Hinter for Completion {
    type Hint = String;
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        Ok(self.words(&line[..pos]))
    }
}

impl Validator for Completion {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if script::goes_on(context.input()) { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(line: &str) -> (usize, Vec<String>) {
        let completion = Completion::with(|names| match names {
            Names::Nodes => vec!["tiny-0001".into(), "tiny-0002".into()],
            Names::Types => vec!["medium".into(), "tiny".into()],
            Names::Models => vec!["builtin:demo".into()],
            Names::Strategies => vec!["random".into(), "round-robin".into()],
            Names::Sessions => vec!["s-1".into()],
            Names::Modules => vec!["agent".into()],
        });
        let (start, pairs) = completion.words(line);
        (start, pairs.into_iter().map(|pair| pair.replacement).collect())
    }

    #[test]
    fn commands_and_flags_are_completed() {
        assert_eq!(completed("stat"), (0, vec!["status ".into()]));
        assert_eq!(completed("wa"), (0, vec!["wake".into(), "watch".into()]));
        assert_eq!(completed("nodes "), (6, vec!["list ".into()]));
        assert_eq!(completed("spawn --cou"), (6, vec!["--count ".into()]));
        let (_, all) = completed("");
        assert!(
            all.contains(&"balancer".to_owned())
                && all.contains(&"exit".to_owned())
                && all.iter().all(|word| !word.starts_with('-'))
        );
        assert_eq!(completed("set -"), (4, vec!["-e".into(), "-x".into()]));
    }

    #[test]
    fn what_the_host_has_is_completed() {
        for (line, expected) in [
            ("spawn --type ", vec!["medium", "tiny"]),
            ("spawn --type=t", vec!["--type=tiny "]),
            ("drain tiny-0001 tiny", vec!["tiny-0001", "tiny-0002"]),
            ("hibernate tiny-0001", vec!["tiny-0001 "]),
            ("infer x --model b", vec!["builtin:demo "]),
            ("balancer --strategy ra", vec!["random "]),
            ("session show ", vec!["s-1 "]),
            ("module unload a", vec!["agent "]),
            ("fault inject --kind s", vec!["slow", "stall"]),
            ("watch --interval 1s nodes list --type m", vec!["medium "]),
            ("help ba", vec!["balancer "]),
            ("infer 'open quote --model b", vec![]),
        ] {
            assert_eq!(completed(line).1, expected, "{line}");
        }
    }

    #[test]
    fn a_file_with_a_space_is_one_word() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("my cluster.yaml"), "").unwrap();
        let path = folder.path();
        let (_, found) = completed(&format!("config validate {}/my", path.display()));
        assert_eq!(found, [format!("{}/my\\ cluster.yaml ", path.display())]);
        let (start, found) = completed(&format!("config validate {}/my\\ cl", path.display()));
        assert_eq!((start, found.len()), (16, 1));
    }
}

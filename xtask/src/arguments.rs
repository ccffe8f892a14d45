//! Words after a command: flags, values and the rest. Small on purpose: an argument parser with derive macros would
//! take longer to compile than all of xtask.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Exit status for wrong usage, the same as `llamboctl`'s (`EX_USAGE` of sysexits.h).
pub(crate) const USAGE: u8 = 64;

/// Why a command did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The words make no sense: exit status [`USAGE`].
    Usage(String),
    /// What was asked for did not work: exit status 1.
    Failed(String),
}

impl Failure {
    /// A failure that says `what` could not be done and why.
    pub(crate) fn because(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::Failed(format!("{what}: {why}"))
    }
}

/// The flags a command knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flags {
    /// Flags followed by a value, as `--name VALUE` or `--name=VALUE`.
    pub(crate) values: &'static [&'static str],
    /// Flags that stand alone.
    pub(crate) switches: &'static [&'static str],
    pub(crate) rest: Rest,
}

/// What happens to words that are no flag of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    Refused,
    /// Kept in order, unknown flags too, to be handed to another program.
    Kept,
}

/// The words of one call, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parsed {
    values: BTreeMap<&'static str, String>,
    switches: Vec<&'static str>,
    pub(crate) rest: Vec<String>,
}

impl Parsed {
    pub(crate) fn has(&self, switch: &str) -> bool {
        self.switches.contains(&switch)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The value of flag `name`, if it was given.
    ///
    /// # Errors
    /// [`Failure::Usage`] when it is not a `T`.
    pub(crate) fn get<T: FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        self.text(name)
            .map(|text| text.parse().map_err(|_| Failure::Usage(format!("`{name} {text}` is not a value that it takes"))))
            .transpose()
    }

    /// The number given with flag `name`, or `default`.
    ///
    /// # Errors
    /// [`Failure::Usage`] when it is not a whole number of at least 1.
    pub(crate) fn count(&self, name: &str, default: u32) -> Result<u32, Failure> {
        match self.get(name)? {
            None => Ok(default),
            Some(0) => Err(Failure::Usage(format!("`{name}` must be at least 1"))),
            Some(number) => Ok(number),
        }
    }
}

/// Takes `words` apart; `--` ends the flags.
///
/// # Errors
/// [`Failure::Usage`] for a flag without its value, an unknown flag, or a word that the command does not take.
pub(crate) fn parse(flags: Flags, words: &[String]) -> Result<Parsed, Failure> {
    let mut parsed = Parsed::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            if flags.rest == Rest::Kept {
                // the program behind may need the mark as much as we do
                parsed.rest.push(word.clone());
            }
            parsed.rest.extend(words.cloned());
            break;
        }
        let (name, inline) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        if let Some(name) = flags.values.iter().find(|known| **known == name) {
            let value = inline.or_else(|| words.next().cloned());
            let value = value.ok_or_else(|| Failure::Usage(format!("`{name}` needs a value")))?;
            parsed.values.insert(name, value);
        } else if let Some(name) = flags.switches.iter().find(|known| **known == name && inline.is_none()) {
            parsed.switches.push(name);
        } else {
            parsed.rest.push(word.clone());
        }
    }
    match (flags.rest, parsed.rest.first()) {
        (Rest::Refused, Some(word)) => Err(Failure::Usage(format!("`{word}` is not understood here"))),
        _ => Ok(parsed),
    }
}

/// A file as it is meant from where the command was typed, for those that look from elsewhere; built-in models stay what they are.
pub(crate) fn from_here(path: &str) -> String {
    if path.starts_with("builtin:") {
        return path.to_owned();
    }
    std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_meant_from_here_and_built_in_models_are_no_files() {
        assert!(std::path::Path::new(&from_here("out.json")).is_absolute());
        assert_eq!(from_here("builtin:demo"), "builtin:demo");
    }

    const FLAGS: Flags = Flags { values: &["--isolates", "--json"], switches: &["--keep"], rest: Rest::Refused };

    fn parse_words(flags: Flags, line: &str) -> Result<Parsed, Failure> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(flags, &words)
    }

    #[test]
    fn values_come_after_a_space_or_an_equals_sign() {
        let parsed = parse_words(FLAGS, "--isolates 12 --json=out=1.json --keep").unwrap();
        assert_eq!(parsed.count("--isolates", 1), Ok(12));
        assert_eq!(parsed.text("--json"), Some("out=1.json"));
        assert!(parsed.has("--keep"));
    }

    #[test]
    fn what_is_left_out_takes_the_default() {
        let parsed = parse_words(FLAGS, "").unwrap();
        assert_eq!(parsed.count("--isolates", 7), Ok(7));
        assert!(!parsed.has("--keep"));
    }

    #[test]
    fn nonsense_is_named() {
        for (line, named) in [
            ("--isolates", "`--isolates` needs a value"),
            ("--keepp", "`--keepp`"),
            ("--keep=1", "`--keep=1`"),
            ("word", "`word`"),
        ] {
            let Err(Failure::Usage(message)) = parse_words(FLAGS, line) else { panic!("`{line}` was taken") };
            assert!(message.contains(named), "{message}");
        }
        let parsed = parse_words(FLAGS, "--isolates many").unwrap();
        assert!(matches!(parsed.count("--isolates", 1), Err(Failure::Usage(message)) if message.contains("many")));
        assert!(matches!(parse_words(FLAGS, "--isolates 0").unwrap().count("--isolates", 1), Err(Failure::Usage(_))));
    }

    #[test]
    fn words_for_another_program_keep_their_order_and_marks() {
        let flags = Flags { rest: Rest::Kept, ..FLAGS };
        let parsed = parse_words(flags, "-E test(x) --keep name -- --keep --nocapture").unwrap();
        assert!(parsed.has("--keep"));
        assert_eq!(parsed.rest, ["-E", "test(x)", "name", "--", "--keep", "--nocapture"]);
    }
}

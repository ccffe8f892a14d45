//! Reads values out of the tree, notes what is wrong with them and goes on.
//!
//! Whatever cannot be read is `None`, the same as a key that is left out: the caller puts its default there and need not know,
//! because nothing decoded leaves this crate once an error was noted.

use std::{cell::RefCell, fmt, ops::RangeInclusive, time::Duration};

use serde_yaml::Location;

use crate::{
    ConfigError, ConfigErrors,
    spelling::{listed, nearest, shown},
    tree::{Key, Kind, Node},
    units,
};

/// Collects the errors of one file.
pub(crate) struct Decoder<'a> {
    file: &'a str,
    errors: RefCell<Vec<ConfigError>>,
}

/// One value, with the path and the place of the key it stands at.
#[derive(Clone)]
pub(crate) struct Value<'a> {
    decoder: &'a Decoder<'a>,
    node: &'a Node,
    /// Where the key stands, or the value itself when it has none.
    key_at: Location,
    pub(crate) path: String,
}

/// A map whose keys are known.
pub(crate) struct Map<'a> {
    decoder: &'a Decoder<'a>,
    path: String,
    at: Location,
    keys: &'static [&'static str],
    entries: &'a [(Key, Node)],
    /// Keys that an unknown one was probably meant to be: they are not missing as well.
    misspelt: Vec<&'static str>,
}

// === impl Decoder ===

impl<'a> Decoder<'a> {
    pub(crate) fn new(file: &'a str) -> Self {
        Self { file, errors: RefCell::default() }
    }

    pub(crate) fn root(&'a self, node: &'a Node) -> Value<'a> {
        Value { decoder: self, node, key_at: node.defined, path: String::new() }
    }

    /// All errors noted, if any.
    pub(crate) fn finish(self) -> Result<(), ConfigErrors> {
        ConfigErrors::new(self.errors.into_inner()).map_or(Ok(()), Err)
    }

    fn note(&self, at: Location, path: &str, message: String) {
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        self.errors.borrow_mut().push(ConfigError {
            file: self.file.to_owned(),
            // An empty document has no place of its own; its first character will do.
            line: number(at.line().max(1)),
            column: number(at.column().max(1)),
            path: path.to_owned(),
            message,
        });
    }
}

// === impl Value ===

impl<'a> Value<'a> {
    /// Notes that this value is wrong: `but` says why, or what it must be, and `advice` what to do.
    pub(crate) fn wrong(&self, but: impl fmt::Display, advice: impl fmt::Display) {
        let subject = if self.path.is_empty() { "the file".to_owned() } else { format!("`{}`", self.path) };
        let message = format!("{subject} is {}, but {but}; {advice}", self.node.value.found());
        self.decoder.note(self.node.defined, &self.path, message);
    }

    /// The same of a value that must not be repeated.
    pub(crate) fn wrong_secret(&self, but: &str, advice: &str) {
        self.decoder.note(self.node.defined, &self.path, format!("`{}` {but}; {advice}", self.path));
    }

    /// Notes that the key itself, one the user chose, is wrong.
    pub(crate) fn wrong_key(&self, what: &str) {
        self.decoder.note(self.key_at, &self.path, format!("`{}` {what}", self.path));
    }

    /// An empty value is never taken for a default: too often it is an indentation slip.
    fn filled(&self) -> Option<&'a Kind> {
        if matches!(self.node.value, Kind::Empty) {
            let message = format!("`{}` is empty; give it a value, or remove the key if it has a default", self.path);
            self.decoder.note(self.key_at, &self.path, message);
            return None;
        }
        Some(&self.node.value)
    }

    pub(crate) fn text(&self) -> Option<&'a str> {
        match self.filled()? {
            Kind::Text(text) if !text.trim().is_empty() => Some(text),
            Kind::Text(_) => {
                self.wrong("must have at least one character", "give it a value or remove the key");
                None
            }
            Kind::List(_) | Kind::Map(_) => {
                self.wrong("must be one text", "write one text");
                None
            }
            _ => {
                self.wrong("must be text", "put it in quotes if that is what you mean");
                None
            }
        }
    }

    /// The text, if it is one; whatever else it is goes unnoted.
    pub(crate) fn as_text(&self) -> Option<&'a str> {
        if let Kind::Text(text) = &self.node.value { Some(text) } else { None }
    }

    pub(crate) fn switch(&self) -> Option<bool> {
        if let Kind::Switch(value) = self.filled()? {
            return Some(*value);
        }
        self.wrong("must be `true` or `false`", "write one of them, without quotes");
        None
    }

    fn whole<T: Copy + Into<u64> + TryFrom<u64>>(&self, range: &RangeInclusive<T>) -> Option<T> {
        let range = (*range.start()).into()..=(*range.end()).into();
        let must = format!("must be a whole number from {} to {}", range.start(), range.end());
        let (too_low, value) = match self.filled()? {
            Kind::Whole(value) => (value < range.start(), Some(*value)),
            Kind::Negative(_) => (true, None),
            // 1e3 is as good a way to write 1000.
            Kind::Real(value) if value.fract() == 0.0 && value.abs() < 1e15 => {
                let whole = format!("{value:.0}").parse::<u64>().ok();
                (whole.is_none_or(|whole| whole < *range.start()), whole)
            }
            Kind::Real(value) if value.fract() == 0.0 => (*value < 0.0, None),
            _ => {
                self.wrong(must, "write a whole number");
                return None;
            }
        };
        let value = value.filter(|value| range.contains(value)).and_then(|value| T::try_from(value).ok());
        if value.is_none() {
            self.wrong(must, if too_low { "raise it" } else { "lower it" });
        }
        value
    }

    fn number(&self, range: &RangeInclusive<f64>) -> Option<f64> {
        let value = match self.filled()? {
            Kind::Real(value) => Some(*value),
            #[expect(clippy::cast_precision_loss, reason = "what is that large is out of range")]
            Kind::Whole(value) => Some(*value as f64),
            Kind::Negative(_) => Some(f64::NEG_INFINITY),
            _ => None,
        };
        self.measured(value, range, f64::to_string, "a number")
    }

    fn size(&self, range: &RangeInclusive<u64>) -> Option<u64> {
        let value = match self.filled()? {
            Kind::Whole(bytes) => Some(*bytes),
            Kind::Text(text) => units::parse_size(text),
            _ => None,
        };
        self.measured(value, range, |bytes| units::show_size(*bytes), units::SIZE_EXAMPLE)
    }

    fn duration(&self, range: &RangeInclusive<Duration>) -> Option<Duration> {
        let value = match self.filled()? {
            Kind::Text(text) => units::parse_duration(text),
            _ => None,
        };
        self.measured(value, range, |duration| units::show_duration(*duration), units::DURATION_EXAMPLE)
    }

    fn measured<T: PartialOrd + Copy>(
        &self,
        value: Option<T>,
        range: &RangeInclusive<T>,
        show: fn(&T) -> String,
        example: &str,
    ) -> Option<T> {
        match value {
            None => self.wrong(format_args!("must be {example}"), "write it like that"),
            Some(value) if range.contains(&value) => return Some(value),
            Some(value) => {
                let advice = if value < *range.start() { "raise it" } else { "lower it" };
                self.wrong(format_args!("must be from {} to {}", show(range.start()), show(range.end())), advice);
            }
        }
        None
    }

    fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let names = || choices.iter().map(|(name, _)| *name);
        let text = match self.filled()? {
            Kind::Text(text) => text.as_str(),
            _ => "",
        };
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            self.wrong(format_args!("must be one of {}", listed(names())), meant(text, names(), "choose one of them"));
        }
        found
    }

    /// The values of a list.
    pub(crate) fn list(&self) -> Option<impl Iterator<Item = Value<'a>> + use<'a>> {
        let Kind::List(items) = self.filled()? else {
            self.wrong("must be a list", "begin each entry with `- `");
            return None;
        };
        let (decoder, path) = (self.decoder, self.path.clone());
        Some(items.iter().enumerate().map(move |(n, node)| {
            let path = format!("{path}[{n}]");
            Value { decoder, node, key_at: node.defined, path }
        }))
    }

    /// The entries of a map whose keys are names that the user gives.
    pub(crate) fn named(&self) -> Option<Vec<(&'a str, Value<'a>)>> {
        let Kind::Map(entries) = self.filled()? else {
            self.wrong("must be a map", "write each entry as `name:` with its keys indented below");
            return None;
        };
        self.note_repeated(entries);
        Some(entries.iter().map(|(key, node)| (key.value.as_str(), self.child(key, node))).collect())
    }

    /// A map with these keys; an empty value is a map without any. Notes keys that are unknown or repeated.
    pub(crate) fn map(&self, keys: &'static [&'static str]) -> Option<Map<'a>> {
        let entries = match &self.node.value {
            Kind::Map(entries) => entries.as_slice(),
            Kind::Empty => &[],
            _ => {
                let keys = listed(keys.iter().copied());
                self.wrong(format_args!("must be a map with keys such as {keys}"), "indent its keys below it, one a line");
                return None;
            }
        };
        self.note_repeated(entries);
        let mut misspelt = Vec::new();
        for (key, node) in entries.iter().filter(|(key, _)| !keys.contains(&key.value.as_str())) {
            let child = self.child(key, node);
            let suggestion = nearest(&key.value, keys.iter().copied());
            misspelt.extend(suggestion);
            let known = format!("remove it; known here: {}", listed(keys.iter().copied()));
            let advice = suggestion.map_or(known, |key| format!("did you mean `{key}`?"));
            self.decoder.note(key.defined, &child.path, format!("`{}` is not a known key; {advice}", child.path));
        }
        Some(Map { decoder: self.decoder, path: self.path.clone(), at: self.key_at, keys, entries, misspelt })
    }

    fn child(&self, key: &'a Key, node: &'a Node) -> Value<'a> {
        Value { decoder: self.decoder, node, key_at: key.defined, path: joined(&self.path, &key.value) }
    }

    fn note_repeated(&self, entries: &'a [(Key, Node)]) {
        let mut seen = std::collections::HashMap::new();
        for (key, _) in entries {
            let first = *seen.entry(key.value.as_str()).or_insert(key.defined);
            if first != key.defined {
                let path = joined(&self.path, &key.value);
                let message = format!("`{path}` is already set in line {}; remove one of them", first.line());
                self.decoder.note(key.defined, &path, message);
            }
        }
    }
}

// === impl Map ===

impl<'a> Map<'a> {
    /// The value at that key, if it is there.
    pub(crate) fn get(&self, key: &'static str) -> Option<Value<'a>> {
        debug_assert!(self.keys.contains(&key), "`{key}` is read but would be reported as unknown");
        let (key, node) = self.entries.iter().find(|(name, _)| name.value == key)?;
        Some(Value { decoder: self.decoder, node, key_at: key.defined, path: joined(&self.path, &key.value) })
    }

    /// The value at that key; without one, notes that it is missing.
    pub(crate) fn require(&self, key: &'static str, advice: &str) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() && !self.misspelt.contains(&key) {
            let path = joined(&self.path, key);
            self.decoder.note(self.at, &path, format!("`{path}` is missing; {advice}"));
        }
        value
    }

    /// A section; empty when it is left out.
    pub(crate) fn section(&self, key: &'static str, keys: &'static [&'static str]) -> Map<'a> {
        let empty =
            Map { decoder: self.decoder, path: joined(&self.path, key), at: self.at, keys, entries: &[], misspelt: vec![] };
        self.get(key).and_then(|value| value.map(keys)).unwrap_or(empty)
    }

    pub(crate) fn switch(&self, key: &'static str) -> Option<bool> {
        self.get(key)?.switch()
    }

    pub(crate) fn whole<T: Copy + Into<u64> + TryFrom<u64>>(&self, key: &'static str, range: RangeInclusive<T>) -> Option<T> {
        self.get(key)?.whole(&range)
    }

    pub(crate) fn number(&self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        self.get(key)?.number(&range)
    }

    pub(crate) fn size(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        self.get(key)?.size(&range)
    }

    pub(crate) fn duration(&self, key: &'static str, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.get(key)?.duration(&range)
    }

    pub(crate) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        self.get(key)?.choice(choices)
    }
}

/// Advice that names what was probably meant, or else says `otherwise`.
pub(crate) fn meant<'a>(written: &str, names: impl IntoIterator<Item = &'a str>, otherwise: &str) -> String {
    nearest(written, names).map_or_else(|| otherwise.to_owned(), |name| format!("did you mean `{}`?", shown(name, 60)))
}

fn joined(path: &str, key: &str) -> String {
    let key = shown(key, 60);
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

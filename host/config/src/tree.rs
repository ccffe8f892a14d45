//! YAML or JSON text as a tree of values that know where they stand.
//!
//! The tree keeps what a decoder needs to report more than one mistake: it takes any shape of document, and keeps a key that
//! is written twice. Only text that is not YAML at all ends here.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_yaml::{
    DuplicateKeyPolicy, Error, Location, MessageFormatter, NonFiniteFloatPolicy, Options, Spanned, UserMessageFormatter,
};

use crate::{ConfigError, ConfigErrors, spelling::shown};

/// Values and keys a file may have. Aliases count each time they are used, so that a few lines cannot become a large tree.
const MAX_NODES: usize = 100_000;

/// Levels of nesting. The schema has four.
const MAX_DEPTH: usize = 32;

/// A value and its place. For an alias that is where the value is written, not where it is used.
pub(crate) type Node = Spanned<Kind>;

/// A key of a map and its place.
pub(crate) type Key = Spanned<String>;

#[derive(Debug)]
pub(crate) enum Kind {
    Empty,
    Switch(bool),
    Whole(u64),
    Negative(i64),
    Real(f64),
    Text(String),
    List(Vec<Node>),
    /// In file order; a key may occur twice.
    Map(Vec<(Key, Node)>),
}

/// Reads a document of any shape.
///
/// # Errors
/// One error: the text is not YAML, has more than one document, or is larger than the limits.
pub(crate) fn parse(text: &str, file: &str) -> Result<Node, ConfigErrors> {
    serde_yaml::from_str_with_options(text, options()).map_err(|error| {
        let place = |part: fn(&Location) -> u64| error.location().map_or(0, |l| u32::try_from(part(&l)).unwrap_or(u32::MAX));
        ConfigErrors::one(ConfigError {
            file: file.to_owned(),
            line: place(Location::line),
            column: place(Location::column),
            path: String::new(),
            message: explain(&error),
        })
    })
}

fn options() -> Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_depth: MAX_DEPTH,
            max_aliases: MAX_NODES,
            max_anchors: MAX_NODES,
            max_merge_keys: MAX_NODES,
            // Many types may well share one anchor; what aliases cost is bounded by the events they replay.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: MAX_NODES,
            max_replay_stack_depth: MAX_DEPTH,
        },
        // Generic maps see every entry under this policy, also one whose key was there before.
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        reject_unsupported_tags: true,
        emit_comments: false,
        with_snippet: false,
    }
}

fn explain(error: &Error) -> String {
    match error.without_snippet() {
        Error::AliasError { error, .. } => explain(error),
        Error::ExternalMessage { msg, .. } => {
            let reason = shown(msg, 200);
            format!("this is not YAML: {reason}; check the indentation, quotes and brackets here and in the line before")
        }
        Error::MultipleDocuments { .. } => {
            "a second document begins, but a configuration is one; remove the `---` and what follows, or merge it".to_owned()
        }
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } | Error::AliasReplayStackDepthExceeded { .. } => {
            format!(
                "the file has more than {MAX_NODES} values or {MAX_DEPTH} levels, with what its aliases repeat; make it smaller"
            )
        }
        Error::UnknownAnchor { .. } => "no anchor of that name stands above; write the value, or give one the anchor".to_owned(),
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            "the alias stands inside what it repeats; write the value instead".to_owned()
        }
        // Values may be anything here, so that these can only be about keys.
        Error::Unexpected { .. } | Error::NullIntoString { .. } => "this key is not text; write one key and a colon".to_owned(),
        other => format!("{}; write it without that", shown(&UserMessageFormatter.format_message(other), 200)),
    }
}

// === impl Kind ===

impl Kind {
    /// What it is, for a message that goes on after `is`.
    pub(crate) fn found(&self) -> String {
        match self {
            Self::Empty => "empty".to_owned(),
            Self::Switch(value) => value.to_string(),
            Self::Whole(value) => value.to_string(),
            Self::Negative(value) => value.to_string(),
            Self::Real(value) => value.to_string(),
            Self::Text(value) if value.is_empty() => "an empty text".to_owned(),
            Self::Text(value) => format!("`{}`", shown(value, 60)),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Empty)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Switch(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Whole(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(u64::try_from(value).map_or(Kind::Negative(value), Kind::Whole))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        Ok(Kind::Real(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Kind, E> {
        Ok(Kind::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Kind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Kind, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Kind::Map(map))
    }
}

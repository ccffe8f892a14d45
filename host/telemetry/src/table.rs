//! What metrics there are, as they describe themselves, and the table of them for people.
//!
//! A description ends with its labels: `Requests ended, by model and reason: stop, length`. What stands behind the colon are values, or more to know.

use std::{collections::BTreeMap, fmt::Write, sync::Mutex};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values in buckets, with their sum and count.
    Histogram,
}

/// One metric as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Without the suffixes of a histogram's samples.
    pub name: String,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// What it is measured in; empty for a number of things.
    pub unit: &'static str,
    /// What it means, with the labels at the end.
    pub meaning: String,
}

/// All metrics by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing(Vec<Described>);

/// Listens to descriptions and records nothing.
#[derive(Debug, Default)]
struct Listener(Mutex<BTreeMap<String, Described>>);

/// What `tell` describes to the recorder.
pub fn describe(tell: impl FnOnce()) -> Listing {
    let listener = Listener::default();
    metrics::with_local_recorder(&listener, tell);
    let described = listener.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Listing(described.into_values().collect())
}

/// The labels that a description names, in its order.
pub fn labels_of(meaning: &str) -> Vec<&str> {
    let Some((_, rest)) = meaning.rsplit_once(", by ") else { return Vec::new() };
    let names = rest.split(':').next().unwrap_or_default();
    names.split(", ").flat_map(|part| part.split(" and ")).map(str::trim).filter(|name| !name.is_empty()).collect()
}

// === impl Listing ===

impl Listing {
    /// Each metric, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Described> {
        self.0.iter()
    }

    /// As Markdown. `labels` says what each label means.
    pub fn markdown(&self, labels: &[(&str, &str)]) -> String {
        let mut text = String::from("| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n");
        for Described { name, kind, unit, meaning } in &self.0 {
            let named: Vec<String> = labels_of(meaning).iter().map(|label| format!("`{label}`")).collect();
            let meaning = meaning.replace('|', "\\|");
            // writing into a String cannot fail
            let _ = writeln!(text, "| `{name}` | {} | {unit} | {} | {meaning} |", kind.as_str(), named.join(" "));
        }
        text.push_str("\n| label | meaning |\n|---|---|\n");
        for (label, meaning) in labels {
            let _ = writeln!(text, "| `{label}` | {meaning} |");
        }
        text
    }
}

impl Kind {
    /// As Prometheus calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

// === impl Listener ===

impl Listener {
    fn hear(&self, name: &KeyName, kind: Kind, unit: Option<Unit>, meaning: &SharedString) {
        let name = name.as_str().to_owned();
        let unit = unit.as_ref().map_or("", Unit::as_str);
        let described = Described { name: name.clone(), kind, unit, meaning: meaning.to_string() };
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(name, described);
    }
}

impl Recorder for Listener {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.hear(&key, Kind::Counter, unit, &description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.hear(&key, Kind::Gauge, unit, &description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.hear(&key, Kind::Histogram, unit, &description);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_described_is_listed_once_and_by_name() {
        let listing = describe(|| {
            metrics::describe_histogram!("b_seconds", Unit::Seconds, "Time, by model");
            metrics::describe_counter!("a_total", "Ends | more, by model and reason: stop, length");
            metrics::describe_counter!("a_total", "Ends | more, by model and reason: stop, length");
        });
        let names: Vec<_> = listing.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["a_total", "b_seconds"]);
        let table = listing.markdown(&[("model", "whose")]);
        assert!(table.contains("| `a_total` | counter |  | `model` `reason` | Ends \\| more"), "{table}");
        assert!(table.contains("| `b_seconds` | histogram | seconds | `model` |"), "{table}");
        assert!(table.contains("| `model` | whose |"), "{table}");
    }

    #[test]
    fn labels_stand_at_the_end_of_a_description() {
        assert_eq!(labels_of("Calls, by method, kind and code: OK, ..."), ["method", "kind", "code"]);
        assert_eq!(labels_of("Sequences that made room for one that waited, by model"), ["model"]);
        assert_eq!(labels_of("Requests that wait for a node"), Vec::<&str>::new());
    }
}

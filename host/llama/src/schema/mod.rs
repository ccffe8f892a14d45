//! What a JSON Schema may cost, decided before llguidance compiles it: nothing stops that compiler once it runs.
//!
//! Its own limits hold between two steps of an automaton, and most of what clients can write runs into them. What does
//! not is bounded here. A step of an intersection pairs every byte set of one pattern with those of all the others, so that
//! its cost is a product over the patterns that meet at a place (`weight`). Parts that are joined with themselves by `$ref`
//! double every time. Patterns of `patternProperties`, options of `oneOf` and the properties of an object are compared in
//! pairs. What meets where is found as llguidance joins schemas: `allOf`, siblings and `$ref` multiply, `anyOf`, `oneOf` and
//! `enum` add.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    rc::Rc,
};

use serde_json::{Map, Value};

use self::{
    document::Document,
    part::{MAX_JOINED, Part, TRUE, all, any},
    weight::{MAX_MEETING, Meeting, weight},
};

mod document;
mod part;
#[cfg(test)]
mod tests;
mod weight;

/// All such products of a schema together.
const MAX_WEIGHT: u64 = 65_536;
/// Patterns that llguidance looks into by itself to see whether any text matches: about half a millisecond for each.
const MAX_CHECKS: u64 = 2048;
/// Alternatives at one place where they are joined with something else, which is done with each.
const MAX_ALTERNATIVES: u64 = 1024;
/// Properties of one object. What llguidance does for all of them grows by their square.
const MAX_PROPERTIES: usize = 2048;
/// Options of one `oneOf`, which are compared in pairs.
const MAX_ONE_OF: usize = 512;
/// Steps of this check itself, each well below a microsecond.
const MAX_STEPS: usize = 500_000;
/// Each format is a pattern, and these are the heaviest.
const FORMAT_WEIGHT: u64 = 12;
/// Keywords that lay other schemas upon the place where they stand.
const APPLIED: [&str; 4] = ["allOf", "anyOf", "oneOf", "$ref"];
/// Keywords whose values are joined with those of others at the same place, as far as this matters here.
const JOINED: [&str; 17] = [
    "allOf", "anyOf", "oneOf", "$ref", "pattern", "format", "minLength", "maxLength", "const", "enum", "properties",
    "patternProperties", "additionalProperties", "items", "prefixItems", "additionalItems", "required",
];

/// # Errors
/// What is too much, where, and what to do, for people.
pub(crate) fn check(schema: &Value) -> Result<(), String> {
    let mut checker = Checker::new(Document::new(schema)?);
    let mut places = vec![Part::One(schema)];
    while let Some(place) = places.pop() {
        checker.visit(&place, &mut places)?;
    }
    Ok(())
}

struct Checker<'a> {
    document: Document<'a>,
    weights: HashMap<&'a str, u64>,
    /// `None` while it is being computed: a schema that refers to itself.
    meetings: HashMap<*const Value, Option<Meeting>>,
    inner: HashMap<*const Value, Option<Rc<Inner<'a>>>>,
    visited: HashSet<Vec<usize>>,
    n_steps: usize,
    n_weight: u64,
    n_checks: u64,
}

/// What holds inside of the objects and arrays at a place.
#[derive(Clone, Default)]
struct Inner<'a> {
    named: BTreeMap<&'a str, Part<'a>>,
    /// For properties without a schema of their own.
    rest: Option<Part<'a>>,
    items: Option<Part<'a>>,
    /// Of `patternProperties`, and how often they are compared in pairs.
    patterns: BTreeSet<&'a str>,
    n_times: u64,
}

impl<'a> Checker<'a> {
    fn new(document: Document<'a>) -> Self {
        Self {
            document,
            weights: HashMap::new(),
            meetings: HashMap::new(),
            inner: HashMap::new(),
            visited: HashSet::new(),
            n_steps: 0,
            n_weight: 0,
            n_checks: 0,
        }
    }

    fn spend(&mut self, n: usize) -> Result<(), String> {
        self.n_steps = self.n_steps.saturating_add(n);
        if self.n_steps > MAX_STEPS {
            return Err("the JSON Schema joins too many of its parts with each other; use fewer `allOf`, `anyOf` and `$ref`, \
                        or smaller schemas in them"
                .into());
        }
        Ok(())
    }

    /// Charges what meets at `place`, and opens the places within.
    fn visit(&mut self, place: &Part<'a>, open: &mut Vec<Part<'a>>) -> Result<(), String> {
        self.spend(1)?;
        if let Part::Any(options, _) = place {
            // alternatives do not meet
            open.extend(options.iter().cloned());
            return Ok(());
        }
        if !self.is_new(place)? {
            return Ok(());
        }
        if let Some(alternatives) = self.alone(place)? {
            open.push(alternatives);
            return Ok(());
        }
        let meeting = self.meeting(place)?;
        if meeting.n_met > 0 && meeting.most > MAX_MEETING {
            return Err(format!(
                "the JSON Schema at `{}`: the patterns and formats that meet there are too much together; join them into one \
                 `pattern`, or drop some",
                self.document.pointer(place)
            ));
        }
        let n_alternatives = meeting.n_free.saturating_add(meeting.n_single);
        if n_alternatives > MAX_ALTERNATIVES {
            return Err(format!(
                "the JSON Schema at `{}` joins alternatives into {n_alternatives}, and may into {MAX_ALTERNATIVES}; use fewer \
                 `anyOf` and `oneOf` beside others",
                self.document.pointer(place)
            ));
        }
        self.n_weight = self.n_weight.saturating_add(meeting.met);
        self.n_checks = self.n_checks.saturating_add(meeting.n_met + if meeting.has_length { meeting.n_single } else { 0 });
        let inner = self.inner(place)?;
        if inner.named.len() > MAX_PROPERTIES {
            return Err(format!(
                "the JSON Schema at `{}` has {} properties, and may have {MAX_PROPERTIES}",
                self.document.pointer(place),
                inner.named.len()
            ));
        }
        if inner.patterns.len() > 1 {
            let n_patterns = inner.patterns.len() as u64;
            self.n_checks = self.n_checks.saturating_add((n_patterns * (n_patterns - 1) / 2).saturating_mul(inner.n_times));
            let weight: u64 = inner.patterns.iter().map(|pattern| self.weight(pattern)).sum();
            self.n_weight = self.n_weight.saturating_add(weight.saturating_mul(weight).saturating_mul(inner.n_times));
        }
        if self.n_weight > MAX_WEIGHT || self.n_checks > MAX_CHECKS {
            return Err(format!(
                "the JSON Schema at `{}`: there, or there and elsewhere together, too many patterns meet others or lengths, or \
                 too many `patternProperties` stand beside each other; use fewer or simpler patterns",
                self.document.pointer(place)
            ));
        }
        self.spend(inner.named.len())?;
        open.extend(inner.named.values().chain(&inner.rest).chain(&inner.items).cloned());
        Ok(())
    }

    /// What a place is by one keyword that nothing is joined with.
    fn alone(&self, place: &Part<'a>) -> Result<Option<Part<'a>>, String> {
        let Part::One(Value::Object(members)) = place else { return Ok(None) };
        let mut joined = members.iter().filter(|(keyword, _)| JOINED.contains(&keyword.as_str()));
        let (Some((keyword, value)), None) = (joined.next(), joined.next()) else { return Ok(None) };
        if !APPLIED.contains(&keyword.as_str()) {
            return Ok(None);
        }
        let part = self.applied(keyword, value)?;
        Ok(Some(part).filter(|part| !matches!(part, Part::All(..))))
    }

    fn is_new(&mut self, place: &Part<'a>) -> Result<bool, String> {
        let mut key = Vec::new();
        place.write_key(&mut key);
        self.spend(key.len() / 4)?;
        Ok(self.visited.insert(key))
    }

    fn meeting(&mut self, part: &Part<'a>) -> Result<Meeting, String> {
        self.spend(1)?;
        match part {
            Part::One(schema) => self.meeting_of(schema),
            Part::All(parts, _) => parts.iter().try_fold(Meeting::FREE, |all, part| Ok(all.and(self.meeting(part)?))),
            Part::Any(parts, _) => {
                let mut sum = self.meeting(&parts[0])?;
                for part in &parts[1..] {
                    sum = sum.or(self.meeting(part)?);
                }
                Ok(sum)
            }
        }
    }

    fn meeting_of(&mut self, schema: &'a Value) -> Result<Meeting, String> {
        let Value::Object(members) = schema else { return Ok(Meeting::FREE) };
        if let Some(known) = self.meetings.get(&std::ptr::from_ref(schema)) {
            return Ok(known.unwrap_or(Meeting::FREE));
        }
        self.meetings.insert(schema, None);
        let mut all = Meeting::FREE;
        for (keyword, value) in members {
            let one = match (keyword.as_str(), value) {
                ("pattern", Value::String(pattern)) => Meeting::single(self.weight(pattern)),
                ("format", Value::String(_)) => Meeting::single(FORMAT_WEIGHT),
                ("minLength" | "maxLength", _) => Meeting { has_length: true, ..Meeting::FREE },
                // texts within an object are joined as those that stand alone
                ("const", Value::String(_) | Value::Array(_) | Value::Object(_)) => Meeting::texts(1),
                ("enum", Value::Array(values)) => Meeting::texts(values.iter().filter(|value| is_text(value)).count()),
                ("allOf" | "anyOf" | "oneOf" | "$ref", _) => {
                    let parts = self.applied(keyword, value)?;
                    self.meeting(&parts)?
                }
                _ => continue,
            };
            all = all.and(one);
        }
        self.meetings.insert(schema, Some(all));
        Ok(all)
    }

    /// What a keyword lays upon the place where it stands.
    fn applied(&self, keyword: &str, value: &'a Value) -> Result<Part<'a>, String> {
        let parts = || value.as_array().into_iter().flatten().map(Part::One).collect::<Vec<_>>();
        match keyword {
            "$ref" => Ok(value.as_str().map_or(Part::One(&TRUE), |reference| self.document.targets(reference))),
            "allOf" => all(parts()).ok_or_else(|| self.too_many_joined(value)),
            "oneOf" if parts().len() > MAX_ONE_OF => Err(format!(
                "the JSON Schema at `{}` has {} options, and may have {MAX_ONE_OF}; `anyOf` may have more",
                self.document.pointer(&Part::One(value)),
                parts().len()
            )),
            _ => Ok(any(parts())),
        }
    }

    fn too_many_joined(&self, value: &'a Value) -> String {
        let place = self.document.pointer(&Part::One(value));
        format!("the JSON Schema at `{place}` joins more than {MAX_JOINED} schemas; use fewer `allOf` and `$ref`")
    }

    fn inner(&mut self, part: &Part<'a>) -> Result<Rc<Inner<'a>>, String> {
        self.spend(1)?;
        match part {
            Part::One(schema) => self.inner_of(schema),
            Part::All(parts, _) => {
                let mut joined = Inner::default();
                for part in parts.iter() {
                    let other = self.inner(part)?;
                    self.join(&mut joined, &other)?;
                }
                Ok(Rc::new(joined))
            }
            Part::Any(parts, _) => {
                let options = parts.iter().map(|part| self.inner(part)).collect::<Result<Vec<_>, _>>()?;
                self.alternatives(&options).map(Rc::new)
            }
        }
    }

    fn inner_of(&mut self, schema: &'a Value) -> Result<Rc<Inner<'a>>, String> {
        let Value::Object(members) = schema else { return Ok(Rc::default()) };
        if let Some(known) = self.inner.get(&std::ptr::from_ref(schema)) {
            return Ok(known.clone().unwrap_or_default());
        }
        self.inner.insert(schema, None);
        let mut inner = self.own(members)?;
        for (keyword, value) in members {
            if APPLIED.contains(&keyword.as_str()) {
                let parts = self.applied(keyword, value)?;
                let other = self.inner(&parts)?;
                self.join(&mut inner, &other)?;
            }
        }
        let inner = Rc::new(inner);
        self.inner.insert(schema, Some(Rc::clone(&inner)));
        Ok(inner)
    }

    /// What a schema says about what is inside, without the schemas it applies.
    fn own(&mut self, members: &'a Map<String, Value>) -> Result<Inner<'a>, String> {
        let object = |key: &str| members.get(key).and_then(Value::as_object);
        let mut inner = Inner::default();
        let patterns = object("patternProperties");
        let matched: Vec<_> = patterns.into_iter().flat_map(Map::values).map(Part::One).collect();
        inner.patterns = patterns.into_iter().flat_map(Map::keys).map(String::as_str).collect();
        inner.n_times = u64::from(!inner.patterns.is_empty());
        for (name, schema) in object("properties").into_iter().flatten() {
            self.spend(1 + matched.len())?;
            // at most one of the patterns matches the name
            let mut options = matched.clone();
            options.push(Part::One(&TRUE));
            let part = all(vec![Part::One(schema), any(options)]).ok_or_else(|| self.too_many_joined(schema))?;
            inner.named.insert(name, part);
        }
        let rest: Vec<_> = matched.into_iter().chain(members.get("additionalProperties").map(Part::One)).collect();
        inner.rest = (!rest.is_empty()).then(|| any(rest));
        let required = members.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for name in required {
            self.spend(1)?;
            let rest = || inner.rest.clone().unwrap_or(Part::One(&TRUE));
            inner.named.entry(name).or_insert_with(rest);
        }
        let each = ["items", "prefixItems", "additionalItems"].into_iter().filter_map(|key| members.get(key));
        let items: Vec<_> = each.flat_map(|value| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)).collect();
        self.spend(items.len())?;
        inner.items = (!items.is_empty()).then(|| any(items.into_iter().map(Part::One).collect()));
        Ok(inner)
    }

    fn join(&mut self, into: &mut Inner<'a>, other: &Inner<'a>) -> Result<(), String> {
        self.spend(other.named.len() + if other.rest.is_some() { into.named.len() } else { 0 })?;
        let too_large = "the JSON Schema joins too many schemas into one place; use fewer `allOf` and `$ref`";
        let both = |a: &Part<'a>, b: &Part<'a>| all(vec![a.clone(), b.clone()]).ok_or_else(|| too_large.to_owned());
        if let Some(rest) = &other.rest {
            for (name, part) in &mut into.named {
                if !other.named.contains_key(name) {
                    *part = both(part, rest)?;
                }
            }
        }
        for (name, part) in &other.named {
            let before = into.named.get(name).or(into.rest.as_ref());
            let part = before.map_or_else(|| Ok(part.clone()), |before| both(before, part))?;
            into.named.insert(name, part);
        }
        for (into, other) in [(&mut into.rest, &other.rest), (&mut into.items, &other.items)] {
            *into = match (into.take(), other) {
                (Some(a), Some(b)) => Some(both(&a, b)?),
                (a, b) => a.or_else(|| b.clone()),
            };
        }
        self.spend(other.patterns.len())?;
        into.patterns.extend(&other.patterns);
        into.n_times = into.n_times.saturating_add(other.n_times);
        Ok(())
    }

    fn alternatives(&mut self, options: &[Rc<Inner<'a>>]) -> Result<Inner<'a>, String> {
        let mut inner = Inner::default();
        let names: BTreeSet<_> = options.iter().flat_map(|option| option.named.keys().copied()).collect();
        self.spend(names.len().saturating_mul(options.len()))?;
        let or_free = |part: Option<&Part<'a>>| part.map_or(Part::One(&TRUE), Part::clone);
        for name in names {
            let parts = options.iter().map(|option| or_free(option.named.get(name).or(option.rest.as_ref())));
            inner.named.insert(name, any(parts.collect()));
        }
        if options.iter().any(|option| option.rest.is_some()) {
            inner.rest = Some(any(options.iter().map(|option| or_free(option.rest.as_ref())).collect()));
        }
        if options.iter().any(|option| option.items.is_some()) {
            inner.items = Some(any(options.iter().map(|option| or_free(option.items.as_ref())).collect()));
        }
        inner.patterns = options.iter().map(|option| &option.patterns).max_by_key(|p| p.len()).cloned().unwrap_or_default();
        inner.n_times = options.iter().fold(0, |n, option| n.saturating_add(option.n_times));
        Ok(inner)
    }

    fn weight(&mut self, pattern: &'a str) -> u64 {
        *self.weights.entry(pattern).or_insert_with(|| weight(pattern))
    }
}

/// Can have a text in it.
fn is_text(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Array(_) | Value::Object(_))
}

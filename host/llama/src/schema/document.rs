//! The text of a schema: where its values stand, and what its references mean.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::part::{Part, any};

/// Levels of a schema's JSON. An object in an object takes two.
const MAX_DEPTH: usize = 64;
const MAX_REFERENCES: usize = 200;

pub(super) struct Document<'a> {
    root: &'a Value,
    /// Where every value stands: in which, and under which name.
    parents: HashMap<*const Value, (&'a Value, String)>,
    /// What a reference may be relative to, the document first.
    resources: Vec<&'a Value>,
    anchors: HashMap<&'a str, Vec<&'a Value>>,
}

impl<'a> Document<'a> {
    /// Looks at every value once.
    ///
    /// # Errors
    /// It is too deep, or refers too often.
    pub(super) fn new(root: &'a Value) -> Result<Self, String> {
        let mut document = Self { root, parents: HashMap::new(), resources: vec![root], anchors: HashMap::new() };
        let (mut open, mut n_references) = (vec![(root, 0)], 0);
        while let Some((value, depth)) = open.pop() {
            if depth > MAX_DEPTH {
                return Err(format!("the JSON Schema is nested more than {MAX_DEPTH} deep"));
            }
            let mut enter = |inner: &'a Value, name: String| {
                document.parents.insert(std::ptr::from_ref(inner), (value, name));
                open.push((inner, depth + 1));
            };
            match value {
                Value::Array(items) => items.iter().enumerate().for_each(|(i, item)| enter(item, i.to_string())),
                Value::Object(members) => {
                    n_references += usize::from(members.contains_key("$ref"));
                    members.iter().for_each(|(name, member)| enter(member, name.clone()));
                    document.name(value, members);
                }
                _ => {}
            }
        }
        if n_references > MAX_REFERENCES {
            return Err(format!("the JSON Schema has {n_references} `$ref`s, and may have {MAX_REFERENCES}"));
        }
        Ok(document)
    }

    fn name(&mut self, value: &'a Value, members: &'a Map<String, Value>) {
        let text = |key: &str| members.get(key).and_then(Value::as_str);
        for id in [text("$id"), text("id")].into_iter().flatten() {
            match id.split_once('#') {
                Some(("", anchor)) => self.anchors.entry(anchor).or_default().push(value),
                _ if !std::ptr::eq(value, self.root) => self.resources.push(value),
                _ => {}
            }
        }
        if let Some(anchor) = text("$anchor") {
            self.anchors.entry(anchor).or_default().push(value);
        }
    }

    /// All that a reference may mean; nothing where it leaves the document, which llguidance does not.
    pub(super) fn targets(&self, reference: &str) -> Part<'a> {
        let (_, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let fragment = percent_decoded(fragment);
        let found: Vec<_> = if fragment.is_empty() || fragment.starts_with('/') {
            self.resources.iter().filter_map(|resource| resource.pointer(&fragment)).map(Part::One).collect()
        } else {
            self.anchors.get(fragment.as_str()).into_iter().flatten().map(|value| Part::One(value)).collect()
        };
        any(found)
    }

    /// Where the first schema of a place stands, as a JSON pointer.
    pub(super) fn pointer(&self, part: &Part<'a>) -> String {
        let mut value = match part {
            Part::One(value) => *value,
            Part::All(parts, _) | Part::Any(parts, _) => {
                return parts.first().map_or_else(String::new, |part| self.pointer(part));
            }
        };
        let mut names = Vec::new();
        while let Some((parent, name)) = self.parents.get(&std::ptr::from_ref(value)) {
            names.push(name.replace('~', "~0").replace('/', "~1"));
            value = parent;
        }
        let pointer = names.iter().rev().fold(String::from("#"), |pointer, name| pointer + "/" + name);
        if pointer.chars().count() > 160 { pointer.chars().take(160).chain(['…']).collect() } else { pointer }
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = if byte == b'%' { after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()) } else { None };
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(code) => (bytes.push(code), rest = &after[2..]),
            None => (bytes.push(byte), rest = after),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

//! A grammar as one list of elements: repetitions and groups are rules of their own, as llama.cpp writes them out.

use std::collections::HashMap;

use super::{Alternatives, Item, Rules, What, characters::Characters};

pub(super) type Position = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// One character of this set.
    One(u32),
    Rule(u32),
    End,
}

pub(super) struct Program {
    elements: Vec<Element>,
    sets: Vec<Characters>,
    /// Where the alternatives of each rule begin.
    rules: Vec<Vec<Position>>,
    root: u32,
    /// The first of each kind of character: those that stand in the same sets.
    kinds: Vec<u32>,
    ascii: [u32; 128],
}

/// What a program is made of, as it grows.
struct Writer<'a> {
    read: &'a Rules,
    elements: Vec<Element>,
    sets: HashMap<&'a Characters, u32>,
    rules: Vec<Vec<Position>>,
}

// === impl Program ===

impl Program {
    pub(super) fn new(read: &Rules) -> Self {
        let rules = vec![Vec::new(); read.bodies.len()];
        let mut writer = Writer { read, elements: Vec::new(), sets: HashMap::new(), rules };
        for (rule, body) in read.bodies.iter().enumerate() {
            writer.rules[rule] = writer.alternatives(body);
        }
        let mut sets = vec![Vec::new(); writer.sets.len()];
        for (characters, at) in writer.sets {
            sets[at as usize].clone_from(characters);
        }
        let edges = sets.iter().flatten().flat_map(|(first, last)| [*first, last + 1]);
        let mut kinds: Vec<u32> = std::iter::once(0).chain(edges).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let mut program = Self {
            elements: writer.elements,
            sets,
            rules: writer.rules,
            root: narrow(read.names["root"]),
            kinds,
            ascii: [0; 128],
        };
        program.ascii = std::array::from_fn(|c| program.kind_among_all(narrow(c)));
        program
    }

    pub(super) fn root(&self) -> &[Position] {
        self.alternatives(self.root)
    }

    pub(super) fn element(&self, at: Position) -> Element {
        self.elements[at as usize]
    }

    pub(super) fn alternatives(&self, rule: u32) -> &[Position] {
        &self.rules[rule as usize]
    }

    pub(super) fn characters(&self, set: u32) -> &Characters {
        &self.sets[set as usize]
    }

    /// Characters of one kind are the same to this grammar.
    pub(super) fn kind(&self, c: u32) -> u32 {
        self.ascii.get(c as usize).copied().unwrap_or_else(|| self.kind_among_all(c))
    }

    fn kind_among_all(&self, c: u32) -> u32 {
        narrow(self.kinds.partition_point(|first| *first <= c) - 1)
    }

    /// The first character of a kind.
    pub(super) fn first_of(&self, kind: u32) -> u32 {
        self.kinds[kind as usize]
    }
}

/// A grammar has no more than `MAX_ELEMENTS` of anything.
fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

// === impl Writer ===

impl<'a> Writer<'a> {
    fn alternatives(&mut self, alternatives: &'a Alternatives) -> Vec<Position> {
        // inner rules first: a sequence stands in one piece
        let sequences: Vec<Vec<Element>> = alternatives.iter().map(|sequence| self.sequence(sequence)).collect();
        sequences.into_iter().map(|sequence| self.write(sequence)).collect()
    }

    fn write(&mut self, sequence: Vec<Element>) -> Position {
        let at = narrow(self.elements.len());
        self.elements.extend(sequence);
        self.elements.push(Element::End);
        at
    }

    fn rule(&mut self, alternatives: Vec<Position>) -> Element {
        self.rules.push(alternatives);
        Element::Rule(narrow(self.rules.len() - 1))
    }

    fn sequence(&mut self, items: &'a [Item]) -> Vec<Element> {
        let mut sequence = Vec::new();
        for item in items {
            let one: Vec<Element> = match &item.what {
                What::Text(text) => text.iter().map(|characters| self.one(characters)).collect(),
                What::Rule(name) => vec![Element::Rule(narrow(self.read.names[name]))],
                What::Group(inner) => {
                    let alternatives = self.alternatives(inner);
                    vec![self.rule(alternatives)]
                }
            };
            for _ in 0..item.min {
                sequence.extend(&one);
            }
            sequence.extend(self.rest(&one, item));
        }
        sequence
    }

    /// What may come behind the repetitions that there must be: `S' ::= S S' |`, or so many rules, each of which names the one before it.
    fn rest(&mut self, one: &[Element], item: &Item) -> Option<Element> {
        let nothing = self.elements.len();
        let n_optional = item.max.map_or(1, |max| max - item.min);
        if n_optional == 0 {
            return None;
        }
        self.elements.push(Element::End);
        let mut last: Option<Element> = None;
        for _ in 0..n_optional {
            let own = Element::Rule(narrow(self.rules.len()));
            let next = if item.max.is_none() { Some(own) } else { last };
            let more = self.write(one.iter().copied().chain(next).collect());
            last = Some(self.rule(vec![more, narrow(nothing)]));
        }
        last
    }

    fn one(&mut self, characters: &'a Characters) -> Element {
        let next = narrow(self.sets.len());
        Element::One(*self.sets.entry(characters).or_insert(next))
    }
}

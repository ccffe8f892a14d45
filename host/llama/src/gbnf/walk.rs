//! Where in a grammar a text is, and what can follow it there.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use super::{
    Rules, Vocabulary, characters,
    program::{Element, Position, Program},
    stacks::{BOTTOM, Budget, ONLY_EMPTY, SetId, Stacks, TooMuch},
};

/// Work for one token: elements of the grammar that are looked at. For all tokens of a vocabulary, JSON takes 13,000 at first and next to none
/// later. So many take about 15 milliseconds of the thread that decodes for everybody.
const MAX_STEPS: usize = 100_000;
/// Memory of one text, in tops of stacks and steps that are remembered, about 40 bytes each: four megabytes. JSON takes 24,000. Beyond it all
/// is forgotten but where the text is.
const MAX_SIZE: usize = 100_000;

/// A text in a grammar.
#[derive(Clone)]
pub(crate) struct Walk {
    program: Arc<Program>,
    stacks: Stacks,
    /// Where a kind of character leads from a set of stacks, and the begun ones.
    known: HashMap<(SetId, u32), Option<SetId>, BuildHasherDefault<Mixer>>,
    seen: HashSet<(Position, SetId)>,
    place: Place,
    n_characters: usize,
}

/// Where a text is: its stacks, and the character of which not all bytes are there.
#[derive(Clone, Copy)]
struct Place {
    set: SetId,
    begun: Option<Begun>,
}

/// A character of which not all bytes are there.
#[derive(Clone, Copy)]
struct Begun {
    value: u32,
    n_missing: u32,
    /// The least that so many bytes may stand for.
    least: u32,
}

/// What a byte does to the characters before it.
enum Decoded {
    Character(u32),
    Begun(Begun),
    Invalid,
}

/// Spreads small numbers: the walk looks up one step for every byte of a vocabulary.
#[derive(Clone, Default)]
struct Mixer(u64);

// === impl Walk ===

impl Walk {
    /// # Errors
    /// A sentence that says what is wrong with the grammar.
    pub(crate) fn new(grammar: &str) -> Result<Self, String> {
        let mut walk = Self {
            program: Arc::new(Program::new(&Rules::checked(grammar)?)),
            stacks: Stacks::new(),
            known: HashMap::default(),
            seen: HashSet::new(),
            place: Place { set: ONLY_EMPTY, begun: None },
            n_characters: 0,
        };
        let start = walk.program.root().iter().map(|at| (*at, ONLY_EMPTY)).collect();
        let start = walk.tops(start, &mut Budget(MAX_STEPS)).map_err(|TooMuch| walk.too_much())?;
        walk.place.set = start.ok_or("nothing can be written by its rule `root`")?;
        Ok(walk)
    }

    /// Whether the text can be over here.
    pub(crate) fn can_end(&self) -> bool {
        // the bottom is the last of all tops
        self.place.begun.is_none() && self.stacks.tops(self.place.set).last().is_some_and(|(top, _)| *top == BOTTOM)
    }

    /// Goes on by the text of a token; `false`, and where it was: the text cannot follow.
    ///
    /// # Errors
    /// A sentence: there are too many ways to read it.
    pub(crate) fn accept(&mut self, text: &[u8]) -> Result<bool, String> {
        let (mut place, mut budget) = (self.place, Budget(MAX_STEPS));
        for &byte in text {
            match self.step(place, byte, &mut budget) {
                Ok(Some(next)) => place = next,
                Ok(None) => return Ok(false),
                Err(TooMuch) => return Err(self.too_much()),
            }
        }
        self.place = place;
        self.n_characters += text.iter().filter(|byte| **byte >> 6 != 0b10).count();
        self.forget()?;
        Ok(true)
    }

    /// Calls `refuse` with every token that cannot come next.
    ///
    /// # Errors
    /// As of [`Walk::accept`], for what could come.
    pub(crate) fn refused(&mut self, vocabulary: &Vocabulary, refuse: impl FnMut(u32)) -> Result<(), String> {
        let (place, can_end, mut budget) = (self.place, self.can_end(), Budget(MAX_STEPS));
        let walked = vocabulary.refused(place, can_end, |place, byte| self.step(place, byte, &mut budget), refuse);
        walked.map_err(|TooMuch| self.too_much())?;
        self.forget()
    }

    fn too_much(&self) -> String {
        format!(
            "after {} characters there are too many ways to read on: telling them apart takes more than {MAX_STEPS} steps for one token; \
             write its alternatives and optional parts so that the next character decides between them",
            self.n_characters
        )
    }

    /// Keeps what is remembered within bounds.
    fn forget(&mut self) -> Result<(), String> {
        if self.size() <= MAX_SIZE {
            return Ok(());
        }
        self.known = HashMap::default();
        self.place.set = self.stacks.keep(self.place.set);
        if self.size() <= MAX_SIZE / 2 {
            return Ok(());
        }
        Err(format!(
            "after {} characters more of its rules are open than can be remembered; let them nest less",
            self.n_characters
        ))
    }

    fn size(&self) -> usize {
        self.stacks.size() + self.known.len()
    }

    fn step(&mut self, place: Place, byte: u8, budget: &mut Budget) -> Result<Option<Place>, TooMuch> {
        match decode(place.begun, byte) {
            Decoded::Character(c) => Ok(self.after(place.set, c, budget)?.map(|set| Place { set, begun: None })),
            Decoded::Begun(begun) => {
                let next = Place { begun: Some(begun), ..place };
                Ok(self.can_become(place.set, begun, budget)?.then_some(next))
            }
            Decoded::Invalid => Ok(None),
        }
    }

    /// Whether a character that begins so can come.
    fn can_become(&mut self, set: SetId, begun: Begun, budget: &mut Budget) -> Result<bool, TooMuch> {
        let key = (set, begun.key());
        if let Some(known) = self.known.get(&key) {
            return Ok(known.is_some());
        }
        let (low, high) = begun.range();
        let tops = self.stacks.tops(set);
        let is_one = |at: Position| self.set_at(at).is_some_and(|set| characters::reach(self.program.characters(set), low, high));
        let found = tops.iter().position(|(top, _)| *top != BOTTOM && is_one(*top));
        // no element is gone into, which is most of a step
        budget.spend(1 + found.unwrap_or(tops.len()) / 8)?;
        self.known.insert(key, found.map(|_| set));
        Ok(found.is_some())
    }

    fn set_at(&self, at: Position) -> Option<u32> {
        if let Element::One(set) = self.program.element(at) { Some(set) } else { None }
    }

    /// The stacks that are left, and what becomes of them, behind one character.
    fn after(&mut self, set: SetId, c: u32, budget: &mut Budget) -> Result<Option<SetId>, TooMuch> {
        let kind = self.program.kind(c);
        if let Some(known) = self.known.get(&(set, kind)) {
            return Ok(*known);
        }
        let tops = self.stacks.tops(set);
        budget.spend(tops.len() + 1)?;
        let c = self.program.first_of(kind);
        let takes = |at: Position| self.set_at(at).is_some_and(|set| characters::reach(self.program.characters(set), c, c));
        let open = tops.iter().filter(|(top, _)| *top != BOTTOM && takes(*top)).map(|(top, under)| (top + 1, *under)).collect();
        let next = self.tops(open, budget)?;
        self.known.insert((set, kind), next);
        Ok(next)
    }

    /// Goes into rules and out of them until every stack has a character on top, or is empty.
    fn tops(&mut self, mut open: Vec<(Position, SetId)>, budget: &mut Budget) -> Result<Option<SetId>, TooMuch> {
        let program = Arc::clone(&self.program);
        let mut found = Vec::new();
        self.seen.clear();
        while let Some((at, under)) = open.pop() {
            budget.spend(1)?;
            if !self.seen.insert((at, under)) {
                continue;
            }
            if at == BOTTOM {
                found.push((at, under));
                continue;
            }
            match program.element(at) {
                Element::One(_) => found.push((at, under)),
                Element::End => {
                    let tops = self.stacks.tops(under);
                    budget.spend(tops.len())?;
                    open.extend(tops);
                }
                Element::Rule(rule) => {
                    // a rule at the end of another leaves nothing to come back to
                    let is_last = program.element(at + 1) == Element::End;
                    let under = if is_last { under } else { self.stacks.push(at + 1, under) };
                    let alternatives = program.alternatives(rule);
                    budget.spend(alternatives.len())?;
                    open.extend(alternatives.iter().map(|alternative| (*alternative, under)));
                }
            }
        }
        if found.is_empty() { Ok(None) } else { self.stacks.collect(&mut found, budget).map(Some) }
    }
}

// === impl Begun ===

impl Begun {
    /// The characters it can become; none if the first is beyond the last.
    fn range(self) -> (u32, u32) {
        let low = self.value << (6 * self.n_missing);
        (low.max(self.least), low | ((1 << (6 * self.n_missing)) - 1))
    }

    /// Beyond all kinds of characters; a value has no more than 15 bits while a byte is missing, and the least follows from both.
    fn key(self) -> u32 {
        1 << 31 | self.n_missing << 24 | u32::from(self.least > 0x7ff) << 23 | u32::from(self.least > 0xffff) << 22 | self.value
    }
}

fn decode(begun: Option<Begun>, byte: u8) -> Decoded {
    let low = |bits: u32| u32::from(byte) & ((1 << bits) - 1);
    match (begun, byte) {
        (None, 0x01..=0x7f) => Decoded::Character(u32::from(byte)),
        (None, 0xc2..=0xdf) => Decoded::Begun(Begun { value: low(5), n_missing: 1, least: 0x80 }),
        (None, 0xe0..=0xef) => Decoded::Begun(Begun { value: low(4), n_missing: 2, least: 0x800 }),
        (None, 0xf0..=0xf4) => Decoded::Begun(Begun { value: low(3), n_missing: 3, least: 0x1_0000 }),
        (Some(Begun { value, n_missing, least }), 0x80..=0xbf) => match value << 6 | low(6) {
            value if n_missing > 1 => Decoded::Begun(Begun { value, n_missing: n_missing - 1, least }),
            value if value >= least => Decoded::Character(value),
            _ => Decoded::Invalid,
        },
        _ => Decoded::Invalid,
    }
}

// === impl Mixer ===

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, n: u32) {
        // 2^64 divided by the golden ratio, as of Knuth's multiplicative hashing
        let mixed = (self.0 ^ u64::from(n)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it should do")]
mod tests;

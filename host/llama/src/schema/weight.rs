//! What patterns cost where they meet.

use std::collections::HashSet;

use regex_syntax::hir::{Class, HirKind, Look};

/// Product of the weights of the patterns that meet at one place. At this size one step takes some ten milliseconds.
pub(super) const MAX_MEETING: u64 = 4096;
/// Of a pattern that is not understood here: llguidance judges it, as long as it is alone.
const UNKNOWN_WEIGHT: u64 = MAX_MEETING + 1;

/// Bytes of a pattern that is looked into. People write no longer ones, and classes make them large.
const MAX_PATTERN: usize = 4096;

/// What holds for strings at a place, over all its alternatives: how many have no pattern, one, one that is a plain text,
/// and more than one. Weights are sums over alternatives of products over patterns.
#[derive(Clone, Copy)]
pub(super) struct Meeting {
    pub(super) n_free: u64,
    pub(super) n_single: u64,
    pub(super) single: u64,
    pub(super) n_text: u64,
    pub(super) n_met: u64,
    pub(super) met: u64,
    /// The largest product of one alternative.
    pub(super) most: u64,
    pub(super) has_length: bool,
}

// === impl Meeting ===

impl Meeting {
    pub(super) const FREE: Self =
        Self { n_free: 1, n_single: 0, single: 0, n_text: 0, n_met: 0, met: 0, most: 1, has_length: false };

    pub(super) fn single(weight: u64) -> Self {
        Self { n_free: 0, n_single: 1, single: weight, most: weight, ..Self::FREE }
    }

    /// `n` texts, one of which it must be. None are still one alternative: another type.
    pub(super) fn texts(n: usize) -> Self {
        Self { n_free: u64::from(n == 0), n_text: n as u64, most: if n == 0 { 1 } else { 2 }, ..Self::FREE }
    }

    pub(super) fn and(self, other: Self) -> Self {
        let n = |m: Self| m.n_free.saturating_add(m.n_single).saturating_add(m.n_text).saturating_add(m.n_met);
        // a text weighs 2, so that none is joined with itself for ever
        let weight = |m: Self| m.n_free.saturating_add(m.single).saturating_add(m.n_text.saturating_mul(2)).saturating_add(m.met);
        let one = |free: fn(&Self) -> u64, held: fn(&Self) -> u64| {
            free(&self).saturating_mul(held(&other)).saturating_add(held(&self).saturating_mul(free(&other)))
        };
        let n_free = self.n_free.saturating_mul(other.n_free);
        let (n_single, single) = (one(|m| m.n_free, |m| m.n_single), one(|m| m.n_free, |m| m.single));
        let n_text = one(|m| m.n_free, |m| m.n_text);
        let n_others = n_free.saturating_add(n_single).saturating_add(n_text);
        let others = n_free.saturating_add(single).saturating_add(2_u64.saturating_mul(n_text));
        Self {
            n_free,
            n_single,
            single,
            n_text,
            n_met: n(self).saturating_mul(n(other)).saturating_sub(n_others),
            met: weight(self).saturating_mul(weight(other)).saturating_sub(others),
            most: self.most.saturating_mul(other.most),
            has_length: self.has_length || other.has_length,
        }
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self {
            n_free: self.n_free.saturating_add(other.n_free),
            n_single: self.n_single.saturating_add(other.n_single),
            single: self.single.saturating_add(other.single),
            n_text: self.n_text.saturating_add(other.n_text),
            n_met: self.n_met.saturating_add(other.n_met),
            met: self.met.saturating_add(other.met),
            most: self.most.max(other.most),
            has_length: self.has_length || other.has_length,
        }
    }
}

/// By how much a pattern multiplies a step of an intersection: the largest number of its different byte sets that share a
/// byte. No derivative of the pattern has others.
pub(super) fn weight(pattern: &str) -> u64 {
    if pattern.len() > MAX_PATTERN {
        return UNKNOWN_WEIGHT;
    }
    let Ok(hir) = regex_syntax::parse(pattern) else { return UNKNOWN_WEIGHT };
    let mut sets = HashSet::new();
    let looks = (hir.properties().look_set_prefix(), hir.properties().look_set_suffix());
    if !looks.0.contains(Look::Start) || !looks.1.contains(Look::End) {
        // a search: any characters before and behind
        sets.insert(vec![(0, u32::from(char::MAX))]);
    }
    let mut open = vec![&hir];
    while let Some(hir) = open.pop() {
        open.extend(hir.kind().subs());
        match hir.kind() {
            HirKind::Literal(literal) => sets.extend(literal.0.iter().map(|&byte| vec![(u32::from(byte), u32::from(byte))])),
            HirKind::Class(class) => drop(sets.insert(ranges(class))),
            _ => {}
        }
    }
    // what is not ASCII counts as one
    let mut counts = [0_u64; 129];
    for (first, last) in sets.iter().flat_map(|set| ascii(set)) {
        counts[first..=last].iter_mut().for_each(|count| *count += 1);
    }
    let overlap = counts.into_iter().max().unwrap_or(0);
    // sets that share nothing still are compared with each other
    overlap.max(sets.len() as u64 / 32).max(2)
}

fn ranges(class: &Class) -> Vec<(u32, u32)> {
    match class {
        Class::Unicode(class) => class.iter().map(|range| (u32::from(range.start()), u32::from(range.end()))).collect(),
        Class::Bytes(class) => class.iter().map(|range| (u32::from(range.start()), u32::from(range.end()))).collect(),
    }
}

/// The same within 0 to 128, where 128 stands for all else.
fn ascii(set: &[(u32, u32)]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let narrow = |c: u32| c.min(128) as usize;
    let mut has_others = false;
    set.iter().map(move |&(first, last)| (narrow(first), narrow(last))).filter(move |&(first, _)| {
        // many ranges beyond ASCII are still one set
        first < 128 || !std::mem::replace(&mut has_others, true)
    })
}

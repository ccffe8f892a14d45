//! Sets of characters, as ranges in order that do not touch each other.

/// What one character can be. Never NUL, which no text of a model holds, and nothing that is no character.
pub(super) type Characters = Vec<(u32, u32)>;

/// All there are, without NUL and the halves of surrogate pairs.
const ALL: [(u32, u32); 2] = [(1, 0xd7ff), (0xe000, 0x10_ffff)];

pub(super) fn any() -> Characters {
    ALL.to_vec()
}

/// The characters in the given ranges, or all others. A range that ends before it begins is empty.
pub(super) fn among(mut ranges: Vec<(u32, u32)>, is_negated: bool) -> Characters {
    ranges.retain(|(first, last)| first <= last);
    ranges.sort_unstable();
    let mut joined: Vec<(u32, u32)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    if is_negated {
        let ends = joined.iter().map(|(_, last)| last.saturating_add(1));
        let starts = std::iter::once(0).chain(ends);
        let stops = joined.iter().map(|(first, _)| first.checked_sub(1)).chain([Some(u32::MAX)]);
        joined =
            starts.zip(stops).filter_map(|(first, last)| last.filter(|last| first <= *last).map(|last| (first, last))).collect();
    }
    let within = |(first, last): (u32, u32)| {
        ALL.into_iter().map(move |all| (first.max(all.0), last.min(all.1))).filter(|(first, last)| first <= last)
    };
    joined.into_iter().flat_map(within).collect()
}

/// Whether one of them is from `low` to `high`; none is where `low` is the larger one.
pub(super) fn reach(characters: &Characters, low: u32, high: u32) -> bool {
    let at = characters.partition_point(|(_, last)| *last < low);
    characters.get(at).is_some_and(|(first, _)| (*first).max(low) <= high)
}

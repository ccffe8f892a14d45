//! The schemas that hold for one place of a text.

use std::rc::Rc;

use serde_json::Value;

/// Schemas that are joined into one place.
pub(super) const MAX_JOINED: usize = 4096;

pub(super) static TRUE: Value = Value::Bool(true);

/// The schemas that one place of a text must satisfy.
#[derive(Clone)]
pub(super) enum Part<'a> {
    One(&'a Value),
    All(Rc<[Part<'a>]>, usize),
    Any(Rc<[Part<'a>]>, usize),
}

// === impl Part ===

impl Part<'_> {
    pub(super) fn size(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::All(_, size) | Self::Any(_, size) => *size,
        }
    }

    /// Says nothing.
    pub(super) fn is_free(&self) -> bool {
        matches!(self, Self::One(Value::Bool(true)))
    }

    pub(super) fn write_key(&self, key: &mut Vec<usize>) {
        match self {
            Self::One(schema) => key.push(std::ptr::from_ref(*schema).addr()),
            Self::All(parts, _) | Self::Any(parts, _) => {
                // no address is that small
                key.push(if matches!(self, Self::All(..)) { 1 } else { 2 });
                parts.iter().for_each(|part| part.write_key(key));
                key.push(3);
            }
        }
    }
}

/// `None`: too many.
pub(super) fn all(parts: Vec<Part<'_>>) -> Option<Part<'_>> {
    let mut kept: Vec<_> = parts.into_iter().filter(|part| !part.is_free()).collect();
    let size = kept.iter().fold(0_usize, |size, part| size.saturating_add(part.size()));
    match kept.len() {
        0 => Some(Part::One(&TRUE)),
        1 => kept.pop(),
        _ => (size <= MAX_JOINED).then(|| Part::All(kept.into(), size)),
    }
}

pub(super) fn any(mut parts: Vec<Part<'_>>) -> Part<'_> {
    let size = parts.iter().fold(0_usize, |size, part| size.saturating_add(part.size()));
    if parts.iter().all(Part::is_free) {
        return Part::One(&TRUE);
    }
    if parts.len() == 1 { parts.remove(0) } else { Part::Any(parts.into(), size) }
}

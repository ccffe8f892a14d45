//! A member of a JSON object that may be missing, which clients tell from null.

use serde::Serialize;

/// Left out of the object, null in it, or there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Field<T> {
    #[default]
    Absent,
    Null,
    Told(T),
}

impl<T> Field<T> {
    /// For `skip_serializing_if`.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Null where there is nothing.
    pub(super) fn or_null(value: Option<T>) -> Self {
        value.map_or(Self::Null, Self::Told)
    }
}

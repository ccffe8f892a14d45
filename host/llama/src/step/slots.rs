//! Places of the batch, by sequence id.

use crate::sequence::Sequence;

/// Sequences that have a stream of the KV cache, by sequence id.
pub(crate) type Slots = Vec<Option<Box<Sequence>>>;

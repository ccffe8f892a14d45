use llambo_inference::{ModelName, TypeName};

/// A place in the index. Stable while its node is a member; taken by another node afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// The nodes that can take a request now: ready, not draining, with fewer requests in flight than they hold.
///
/// Every operation is O(1) or O(log n) in the number of nodes. The view does not change while a strategy looks at it.
pub trait Candidates {
    /// How many there are.
    fn len(&self) -> usize;

    /// The `i`-th of them, `i < len()`, in an arbitrary order that stays the same while the view does.
    fn nth(&self, i: usize) -> Option<Slot>;

    /// The first in ascending slot order after `slot`, beginning anew after the last; with `None` the first of all.
    /// `slot` itself need not be a candidate, and is the answer when it is the only one.
    fn next_after(&self, slot: Option<Slot>) -> Option<Slot>;

    /// The one with the fewest requests in flight; among equals, the next in the order of [`Self::next_after`].
    fn least_loaded(&self, after: Option<Slot>) -> Option<Slot>;

    /// The one whose share of the summed weights covers the point `fraction / 2^64`. Uniform fractions choose in proportion
    /// to weight.
    fn by_weight(&self, fraction: u64) -> Option<Slot>;

    /// Whether a member is one of them.
    fn contains(&self, slot: Slot) -> bool;

    /// How loaded a member is; all zero for a slot without one.
    fn load(&self, slot: Slot) -> LoadView;

    /// What was chosen before this request; it need not be a candidate any more.
    fn last(&self) -> Option<Slot>;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How loaded a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadView {
    /// Requests it serves now.
    pub in_flight: u32,
    /// Requests it can serve at once.
    pub capacity: u32,
    /// Its share under weighted strategies, relative to others.
    pub weight: f64,
    /// Time to its first token in microseconds, exponentially averaged over requests; 0 before the first.
    pub ttft_us: f32,
}

/// What a strategy may know of a request: never its text.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The model asked.
    pub model: &'a ModelName,
    /// The node type asked for, if one was.
    pub node_type: Option<&'a TypeName>,
    /// UTF-8 bytes of the prompt.
    pub n_prompt_bytes: usize,
    /// Members that have probably computed the beginning of the prompt, the longest first. They need not be candidates.
    pub cached: &'a [Cached],
}

/// A member that has probably computed the beginning of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached {
    /// Where the index has it.
    pub slot: Slot,
    /// UTF-8 bytes of the prompt.
    pub n_bytes: u32,
}

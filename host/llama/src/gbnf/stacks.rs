//! Sets of pushdown stacks, in which stacks that begin alike are one up to where they differ.
//!
//! A set is a list of tops, each with the set of what can lie under it; equal sets are one. `e ::= . e | . e "b" | . e "c" | .` has 3^n stacks
//! after n characters, and n sets of three tops each.

use std::{collections::HashMap, sync::Arc};

use super::program::Position;

/// A set of stacks.
pub(super) type SetId = u32;

/// The top of a stack that is empty.
pub(super) const BOTTOM: Position = Position::MAX;
/// The set that holds the empty stack alone.
pub(super) const ONLY_EMPTY: SetId = 0;

/// How far two sets may have to be compared downwards, within what a thread's stack has room for.
const MAX_UNION_DEPTH: usize = 1000;

/// What may be spent before something is given up.
pub(super) struct Budget(pub(super) usize);

/// It would cost more than may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMuch;

type Tops = Arc<[(Position, SetId)]>;

#[derive(Clone)]
pub(super) struct Stacks {
    sets: Vec<Tops>,
    ids: HashMap<Tops, SetId>,
    unions: HashMap<(SetId, SetId), SetId>,
    n_tops: usize,
}

// === impl Budget ===

impl Budget {
    pub(super) fn spend(&mut self, n: usize) -> Result<(), TooMuch> {
        self.0 = self.0.checked_sub(n).ok_or(TooMuch)?;
        Ok(())
    }
}

// === impl Stacks ===

impl Stacks {
    pub(super) fn new() -> Self {
        let mut stacks = Self { sets: Vec::new(), ids: HashMap::new(), unions: HashMap::new(), n_tops: 0 };
        // nothing can lie under the bottom, so that its own number does not matter
        stacks.add(&[(BOTTOM, ONLY_EMPTY)]);
        stacks
    }

    /// In order of the tops.
    pub(super) fn tops(&self, set: SetId) -> &[(Position, SetId)] {
        &self.sets[set as usize]
    }

    /// How much memory all this takes, in tops.
    pub(super) fn size(&self) -> usize {
        self.n_tops + self.sets.len() + self.unions.len()
    }

    /// The set of stacks with this top on those of another set.
    pub(super) fn push(&mut self, top: Position, under: SetId) -> SetId {
        self.add(&[(top, under)])
    }

    /// The set of these stacks, where tops may come more than once and in any order.
    pub(super) fn collect(&mut self, tops: &mut [(Position, SetId)], budget: &mut Budget) -> Result<SetId, TooMuch> {
        budget.spend(tops.len())?;
        tops.sort_unstable();
        let mut joined: Vec<(Position, SetId)> = Vec::with_capacity(tops.len());
        for &mut (top, under) in tops {
            match joined.last_mut() {
                Some(last) if last.0 == top => last.1 = self.union(last.1, under, 0, budget)?,
                _ => joined.push((top, under)),
            }
        }
        Ok(self.add(&joined))
    }

    fn add(&mut self, tops: &[(Position, SetId)]) -> SetId {
        if let Some(&set) = self.ids.get(tops) {
            return set;
        }
        let set = SetId::try_from(self.sets.len()).unwrap_or(SetId::MAX);
        let tops: Tops = tops.into();
        self.n_tops += tops.len();
        self.sets.push(Arc::clone(&tops));
        self.ids.insert(tops, set);
        set
    }

    fn union(&mut self, a: SetId, b: SetId, depth: usize, budget: &mut Budget) -> Result<SetId, TooMuch> {
        if a == b {
            return Ok(a);
        }
        let key = (a.min(b), a.max(b));
        if let Some(&known) = self.unions.get(&key) {
            return Ok(known);
        }
        let (mine, others) = (Arc::clone(&self.sets[key.0 as usize]), Arc::clone(&self.sets[key.1 as usize]));
        budget.spend(mine.len() + others.len())?;
        if depth > MAX_UNION_DEPTH {
            return Err(TooMuch);
        }
        let (mut mine, mut others) = (mine.iter().copied().peekable(), others.iter().copied().peekable());
        let mut joined = Vec::new();
        loop {
            joined.push(match (mine.peek().copied(), others.peek().copied()) {
                (Some(one), Some(other)) if one.0 == other.0 => {
                    mine.next();
                    others.next();
                    (one.0, self.union(one.1, other.1, depth + 1, budget)?)
                }
                (Some(one), other) if other.is_none_or(|other| one.0 < other.0) => {
                    mine.next();
                    one
                }
                (_, Some(other)) => {
                    others.next();
                    other
                }
                _ => break,
            });
        }
        let union = self.add(&joined);
        self.unions.insert(key, union);
        Ok(union)
    }

    /// Forgets all but what one set is made of, and says what that is called now.
    pub(super) fn keep(&mut self, set: SetId) -> SetId {
        // whatever lies under a top was there before it
        let mut is_kept = vec![false; self.sets.len()];
        is_kept[set as usize] = true;
        for at in (0..=set as usize).rev() {
            if is_kept[at] {
                self.sets[at].iter().for_each(|(_, under)| is_kept[*under as usize] = true);
            }
        }
        let before = std::mem::replace(self, Self::new());
        let mut now = vec![ONLY_EMPTY; before.sets.len()];
        for (at, tops) in before.sets.iter().enumerate().filter(|(at, _)| is_kept[*at]) {
            let tops: Vec<_> = tops.iter().map(|(top, under)| (*top, now[*under as usize])).collect();
            now[at] = self.add(&tops);
        }
        now[set as usize]
    }
}

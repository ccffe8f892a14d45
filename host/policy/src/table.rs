//! Which policies of one kind there are and what each is there for. Pure.
//!
//! ```text
//!   load ──► live ──(another is loaded or promoted)──► kept ──rollback──► live
//!   load --shadow / --share ──► shadow / canary ──promote──► live
//! ```

use std::sync::Arc;

use llambo_strategy::Role;

/// Earlier ones that are kept of each kind.
pub(crate) const KEPT: usize = 3;

/// The policies of one kind, each with its generation.
pub(crate) struct Table<P> {
    pub(crate) live: Option<Entry<P>>,
    pub(crate) canary: Option<(f64, Entry<P>)>,
    pub(crate) shadow: Option<Entry<P>>,
    /// In the order in which they went live first.
    kept: Vec<Entry<P>>,
    last_generation: u32,
    last_promotion: u32,
    /// It was gone back to what is built in: nothing is before that.
    is_at_bottom: bool,
}

/// A policy.
pub(crate) struct Entry<P> {
    pub(crate) generation: u32,
    pub(crate) policy: Arc<P>,
    /// Counts those that went live; 0 before it did.
    promotion: u32,
}

// === impl Entry ===

impl<P> Entry<P> {
    pub(crate) fn new(generation: u32, policy: Arc<P>) -> Self {
        Self { generation, policy, promotion: 0 }
    }
}

impl<P> Clone for Entry<P> {
    fn clone(&self) -> Self {
        Self { policy: Arc::clone(&self.policy), ..*self }
    }
}

// === impl Table ===

impl<P> Default for Table<P> {
    fn default() -> Self {
        Self {
            live: None,
            canary: None,
            shadow: None,
            kept: Vec::new(),
            last_generation: 0,
            last_promotion: 0,
            is_at_bottom: false,
        }
    }
}

impl<P> Table<P> {
    /// The generation of the next policy. Counted on even if that is never put in.
    pub(crate) fn next_generation(&mut self) -> u32 {
        self.last_generation += 1;
        self.last_generation
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_none() && self.canary.is_none() && self.shadow.is_none()
    }

    /// Puts one into a role; answers what was there. A former live one is kept.
    pub(crate) fn put(&mut self, role: Role, share: f64, entry: Entry<P>) -> Option<Entry<P>> {
        match role {
            Role::Live | Role::Kept => self.make_live(entry),
            Role::Canary => self.canary.replace((share, entry)).map(|(_, before)| before),
            Role::Shadow => self.shadow.replace(entry),
        }
    }

    /// Makes the canary live, or the shadow where there is no canary. Answers which it was, and what was live; `None`: there is neither.
    pub(crate) fn promote(&mut self) -> Option<(Entry<P>, Option<Entry<P>>)> {
        let entry = match self.canary.take() {
            Some((_, entry)) => entry,
            None => self.shadow.take()?,
        };
        let before = self.make_live(entry.clone());
        Some((entry, before))
    }

    /// Puts the one back that was live before the live one was for the first time; where there is none, nothing is live. Answers what was live, or `Err` if nothing
    /// can change.
    pub(crate) fn roll_back(&mut self) -> Result<Option<Entry<P>>, ()> {
        if self.is_at_bottom {
            return Err(());
        }
        let below = self.live.as_ref().map_or(u32::MAX, |live| live.promotion);
        let earlier = self.kept.iter().rposition(|kept| kept.promotion < below);
        match (earlier.map(|at| self.kept.remove(at)), self.live.is_some()) {
            (None, false) => Err(()),
            (None, true) => {
                self.is_at_bottom = true;
                Ok(self.take_live())
            }
            (Some(entry), _) => Ok(self.make_live(entry)),
        }
    }

    /// Takes one out of its role; a live one is kept.
    pub(crate) fn take(&mut self, role: Role) -> Option<Entry<P>> {
        match role {
            Role::Live => self.take_live(),
            Role::Canary => self.canary.take().map(|(_, entry)| entry),
            Role::Shadow => self.shadow.take(),
            Role::Kept => None,
        }
    }

    pub(crate) fn in_role(&self, role: Role) -> Option<&Entry<P>> {
        match role {
            Role::Live => self.live.as_ref(),
            Role::Canary => self.canary.as_ref().map(|(_, entry)| entry),
            Role::Shadow => self.shadow.as_ref(),
            Role::Kept => None,
        }
    }

    /// For which share the canary decides; `None` for all other roles.
    pub(crate) fn share(&self, role: Role) -> Option<f64> {
        self.canary.as_ref().filter(|_| role == Role::Canary).map(|(share, _)| *share)
    }

    /// All of them: the live one, canary, shadow, and those that are kept, the newest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Role, &Entry<P>)> {
        let roles = [Role::Live, Role::Canary, Role::Shadow];
        let present = roles.into_iter().filter_map(|role| Some((role, self.in_role(role)?)));
        present.chain(self.kept.iter().rev().map(|entry| (Role::Kept, entry)))
    }

    fn make_live(&mut self, mut entry: Entry<P>) -> Option<Entry<P>> {
        let before = self.take_live();
        self.is_at_bottom = false;
        if entry.promotion == 0 {
            self.last_promotion += 1;
            entry.promotion = self.last_promotion;
        }
        self.live = Some(entry);
        before
    }

    fn take_live(&mut self) -> Option<Entry<P>> {
        let before = self.live.take()?;
        self.kept.push(before.clone());
        self.kept.sort_by_key(|entry| entry.promotion);
        if self.kept.len() > KEPT {
            self.kept.remove(0);
        }
        Some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(table: &mut Table<()>, role: Role) -> u32 {
        let generation = table.next_generation();
        table.put(role, 0.1, Entry::new(generation, Arc::new(())));
        generation
    }

    fn shown(table: &Table<()>) -> String {
        table.all().map(|(role, entry)| format!("{}{}", &role.as_str()[..1], entry.generation)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn going_back_leads_over_every_generation_to_what_is_built_in() {
        let mut table = Table::default();
        assert_eq!((load(&mut table, Role::Live), load(&mut table, Role::Live), load(&mut table, Role::Live)), (1, 2, 3));
        assert_eq!(shown(&table), "l3 k2 k1");
        for (was, then) in [(3, "l2 k3 k1"), (2, "l1 k3 k2"), (1, "k3 k2 k1")] {
            assert_eq!(table.roll_back().map(|entry| entry.map(|entry| entry.generation)), Ok(Some(was)));
            assert_eq!(shown(&table), then);
        }
        assert!(table.roll_back().is_err() && Table::<()>::default().roll_back().is_err());
        // what was taken out comes back
        load(&mut table, Role::Live);
        table.take(Role::Live);
        assert!(matches!(table.roll_back(), Ok(None)));
        assert_eq!(shown(&table), "l4 k3 k2");
    }

    #[test]
    fn a_canary_is_promoted_before_a_shadow() {
        let mut table = Table::default();
        load(&mut table, Role::Live);
        load(&mut table, Role::Shadow);
        load(&mut table, Role::Canary);
        assert_eq!(shown(&table), "l1 c3 s2");
        assert!(table.promote().is_some_and(|(now, before)| now.generation == 3 && before.is_some_and(|b| b.generation == 1)));
        assert_eq!(shown(&table), "l3 s2 k1");
        assert!(table.promote().is_some());
        assert_eq!(shown(&table), "l2 k3 k1");
        assert!(table.promote().is_none());
        // back to what was live before, although that was loaded later
        assert!(table.roll_back().is_ok());
        assert_eq!(shown(&table), "l3 k2 k1");
    }

    #[test]
    fn only_so_many_are_kept() {
        let mut table = Table::default();
        (0..6).for_each(|_| _ = load(&mut table, Role::Live));
        assert_eq!(shown(&table), "l6 k5 k4 k3");
        assert!(table.take(Role::Live).is_some() && table.is_empty());
        assert_eq!(load(&mut table, Role::Live), 7);
    }
}

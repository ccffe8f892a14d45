//! What happens to nodes, for policies that keep count of them. Costs nothing until one asks, and ends by itself when none asks any more.

use std::collections::VecDeque;

/// Changes that are remembered: whoever is behind by more is told of all nodes anew. A second's worth under full load.
const REMEMBERED: usize = 1 << 16;

/// Numbers of nodes that changed, in order.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    changed: VecDeque<u64>,
    /// The number of the first change in `changed`; the first ever has 1.
    first: u64,
    is_on: bool,
    /// Changes since somebody asked.
    n_unasked: usize,
}

impl Feed {
    pub(crate) fn note(&mut self, node: u64) {
        if !self.is_on {
            return;
        }
        if self.n_unasked == REMEMBERED {
            // whoever asks next would be told of everything in any case
            (self.is_on, self.first) = (false, self.first + self.changed.len() as u64);
            self.changed = VecDeque::new();
            return;
        }
        if self.changed.len() == REMEMBERED {
            self.changed.pop_front();
            self.first += 1;
        }
        self.changed.push_back(node);
        self.n_unasked += 1;
    }

    /// The number of the last change; from here on changes are remembered.
    pub(crate) fn last(&mut self) -> u64 {
        (self.is_on, self.n_unasked) = (true, 0);
        self.first = self.first.max(1);
        self.first + self.changed.len() as u64 - 1
    }

    /// Nodes that changed after a change, in order, each as often as it did; `None` when that is too long ago.
    pub(crate) fn since(&mut self, change: u64) -> Option<Vec<u64>> {
        if !self.is_on || change + 1 < self.first {
            return None;
        }
        self.n_unasked = 0;
        let n_known = usize::try_from(change + 1 - self.first).ok().filter(|n| *n <= self.changed.len())?;
        Some(self.changed.range(n_known..).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hears_what_came_after_what_it_heard() {
        let mut feed = Feed::default();
        feed.note(1);
        let start = feed.last();
        assert_eq!(feed.since(start), Some(vec![]));
        feed.note(7);
        feed.note(8);
        assert_eq!(feed.since(start), Some(vec![7, 8]));
        let later = feed.last();
        feed.note(9);
        assert_eq!((feed.since(later), feed.since(start)), (Some(vec![9]), Some(vec![7, 8, 9])));
        assert_eq!(feed.since(later + 5), None);
    }

    #[test]
    fn who_is_far_behind_begins_anew() {
        let mut feed = Feed::default();
        let start = feed.last();
        (0..REMEMBERED as u64).for_each(|n| feed.note(n));
        assert!(feed.since(start).is_some());
        feed.note(0);
        assert_eq!(feed.since(start), None);
        assert!(feed.is_on && feed.changed.len() == REMEMBERED);
        (0..=REMEMBERED as u64).for_each(|n| feed.note(n));
        assert!(!feed.is_on && feed.changed.is_empty(), "nobody asks");
        let again = feed.last();
        feed.note(5);
        assert_eq!(feed.since(again), Some(vec![5]));
    }
}

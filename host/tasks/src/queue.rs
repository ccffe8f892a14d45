//! Which task is next: tenants take turns by weight, each tenant's tasks come in order. Knows keys and no tasks.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use llambo_inference::Priority;

/// Of so many tasks that are taken, one is a batch task as long as one waits, however many interactive ones do.
const BATCH_EVERY: u32 = 8;

/// Whose a task is, and how urgent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    pub(crate) tenant: String,
    /// Above 0.
    pub(crate) weight: f64,
    pub(crate) priority: Priority,
}

/// Tasks that wait. One that was called off stays until its turn comes: whoever takes it looks what became of it.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    interactive: Turns,
    batch: Turns,
    n_taken: u32,
    /// Those that wait for a time.
    later: BinaryHeap<Reverse<(Instant, i64)>>,
    places: HashMap<i64, Place>,
}

/// Tenants in turn: who has taken the least for its weight is next.
#[derive(Debug, Default)]
struct Turns {
    tenants: HashMap<String, Line>,
    /// What the last one that was taken had: where a tenant that comes begins.
    now: f64,
}

#[derive(Debug, Default)]
struct Line {
    keys: VecDeque<i64>,
    taken: f64,
    weight: f64,
}

// === impl Queue ===

impl Queue {
    pub(crate) fn push(&mut self, key: i64, place: &Place) {
        match place.priority {
            Priority::Interactive => self.interactive.push(key, place),
            Priority::Batch => self.batch.push(key, place),
        }
    }

    /// Not before `due`.
    pub(crate) fn push_later(&mut self, key: i64, place: Place, due: Instant) {
        self.later.push(Reverse((due, key)));
        self.places.insert(key, place);
    }

    pub(crate) fn pop(&mut self, now: Instant) -> Option<i64> {
        while let Some(Reverse((due, key))) = self.later.peek().copied()
            && due <= now
        {
            self.later.pop();
            if let Some(place) = self.places.remove(&key) {
                self.push(key, &place);
            }
        }
        self.n_taken = self.n_taken.wrapping_add(1);
        let (first, second) = match self.n_taken % BATCH_EVERY {
            0 => (&mut self.batch, &mut self.interactive),
            _ => (&mut self.interactive, &mut self.batch),
        };
        first.pop().or_else(|| second.pop())
    }

    /// How long until the next one that waits for a time is due.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Duration> {
        self.later.peek().map(|Reverse((due, _))| due.saturating_duration_since(now))
    }
}

// === impl Turns ===

impl Turns {
    fn push(&mut self, key: i64, place: &Place) {
        if !self.tenants.contains_key(&place.tenant) {
            self.tenants.insert(place.tenant.clone(), Line { taken: self.now, ..Line::default() });
        }
        if let Some(line) = self.tenants.get_mut(&place.tenant) {
            line.weight = place.weight;
            line.keys.push_back(key);
        }
    }

    fn pop(&mut self) -> Option<i64> {
        let by_turn = |(a, x): &(&String, &Line), (b, y): &(&String, &Line)| x.taken.total_cmp(&y.taken).then_with(|| a.cmp(b));
        let next = self.tenants.iter().min_by(|a, b| by_turn(a, b))?.0.clone();
        let line = self.tenants.get_mut(&next)?;
        let key = line.keys.pop_front();
        self.now = line.taken;
        line.taken += 1.0 / line.weight.max(f64::MIN_POSITIVE);
        // what it took before is forgotten with its last task: whoever comes later begins where the others are
        if line.keys.is_empty() {
            self.tenants.remove(&next);
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(tenant: &str, weight: f64, priority: Priority) -> Place {
        Place { tenant: tenant.into(), weight, priority }
    }

    fn taken(queue: &mut Queue, n: usize) -> Vec<i64> {
        (0..n).filter_map(|_| queue.pop(Instant::now())).collect()
    }

    #[test]
    fn tenants_take_turns_by_weight_and_each_in_order() {
        let mut queue = Queue::default();
        for key in 0..100 {
            queue.push(key, &place("a", 3.0, Priority::Batch));
        }
        for key in 100..200 {
            queue.push(key, &place("b", 1.0, Priority::Batch));
        }
        let first = taken(&mut queue, 40);
        let of_a: Vec<i64> = first.iter().copied().filter(|key| *key < 100).collect();
        assert_eq!(of_a, (0..30).collect::<Vec<_>>());
        queue.push(200, &place("c", 1.0, Priority::Batch));
        assert!(taken(&mut queue, 3).contains(&200), "who comes late does not wait for a hundred others");
        assert_eq!(taken(&mut queue, 1000).len(), 201 - 43);
        assert_eq!(queue.pop(Instant::now()), None);
    }

    #[test]
    fn interactive_tasks_come_first_and_batch_tasks_do_not_starve() {
        let mut queue = Queue::default();
        for key in 0..64 {
            queue.push(key, &place("a", 1.0, Priority::Batch));
            queue.push(100 + key, &place("a", 1.0, Priority::Interactive));
        }
        let n_batch = taken(&mut queue, 32).iter().filter(|key| **key < 100).count();
        assert_eq!(n_batch, 4);
    }

    #[test]
    fn what_waits_for_a_time_comes_then_and_not_before() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.push_later(1, place("a", 1.0, Priority::Batch), now + Duration::from_secs(5));
        queue.push_later(2, place("a", 1.0, Priority::Batch), now + Duration::from_secs(2));
        assert_eq!((queue.pop(now), queue.next_due(now)), (None, Some(Duration::from_secs(2))));
        assert_eq!((queue.pop(now + Duration::from_secs(3)), queue.pop(now + Duration::from_secs(3))), (Some(2), None));
        assert_eq!(queue.pop(now + Duration::from_secs(5)), Some(1));
    }
}

//! Turns: how many may do something costly at once, and how many may wait for it.

use std::sync::{Condvar, Mutex, PoisonError};

/// Given out to a few at once; the others block until one comes back.
pub(crate) struct Turns {
    n_at_once: usize,
    n_waiting: usize,
    taken: Mutex<Taken>,
    returned: Condvar,
}

#[derive(Default)]
struct Taken {
    n_taken: usize,
    n_waiting: usize,
}

/// Comes back when it is dropped, also by a panic.
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    pub(crate) fn new(n_at_once: usize, n_waiting: usize) -> Self {
        Self { n_at_once: n_at_once.max(1), n_waiting, taken: Mutex::default(), returned: Condvar::new() }
    }

    /// Waits for a turn. `None`: too many wait already.
    pub(crate) fn take(&self) -> Option<Turn<'_>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.n_taken >= self.n_at_once {
            if taken.n_waiting >= self.n_waiting {
                return None;
            }
            taken.n_waiting += 1;
            let is_full = |taken: &mut Taken| taken.n_taken >= self.n_at_once;
            taken = self.returned.wait_while(taken, is_full).unwrap_or_else(PoisonError::into_inner);
            taken.n_waiting -= 1;
        }
        taken.n_taken += 1;
        Some(Turn(self))
    }

    /// How many have a turn or wait for one, and how many may.
    pub(crate) fn load(&self) -> (usize, usize) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        (taken.n_taken + taken.n_waiting, self.n_at_once + self.n_waiting)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner).n_taken -= 1;
        self.0.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn no_more_than_allowed_run_at_once_and_all_come_to_their_turn() {
        let (turns, n_running, n_most) = (Turns::new(2, 64), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    let _turn = turns.take().expect("room to wait");
                    n_most.fetch_max(n_running.fetch_add(1, SeqCst) + 1, SeqCst);
                    thread::park_timeout(Duration::from_millis(2));
                    n_running.fetch_sub(1, SeqCst);
                });
            }
        });
        assert!(n_most.into_inner() <= 2);
        assert_eq!(turns.load(), (0, 66));
    }

    #[test]
    fn who_finds_too_many_waiting_is_sent_away() {
        let turns = Turns::new(1, 0);
        let first = turns.take();
        assert!(first.is_some() && turns.take().is_none());
        drop(first);
        assert!(turns.take().is_some());
    }

    #[test]
    fn a_panic_gives_the_turn_back() {
        let turns = Turns::new(1, 0);
        let ended = thread::scope(|scope| {
            scope
                .spawn(|| {
                    let _turn = turns.take();
                    std::panic::resume_unwind(Box::new("a compiler that gave up"));
                })
                .join()
        });
        assert!(ended.is_err() && turns.take().is_some());
    }
}

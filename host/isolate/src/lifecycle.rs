//! Where an isolate is in its life. Pure: it holds no guest, no file and no clock, and says what must become of those.
//!
//! ```text
//!            begin              end
//!     idle ─────────► serving ────────► idle          stop, wherever it is: idle and asleep ones stop at once,
//!      │ ▲               ▲                            serving and moving ones when their turn ends
//!      │ │ ends, awake   │ begin (wakes first)
//!      ▼ │               │
//!     moving ────────► asleep ────────► lost          lost: what was kept cannot be used
//!            ends, kept
//! ```

use std::time::{Duration, Instant};

use llambo_inference::NodeState;

use crate::health::Health;

/// An isolate's life.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    phase: Phase,
    /// Counts what the isolate was busy with: something that was given up says nothing about what came after it.
    turn: u64,
    health: Health,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    Serving,
    /// On its way to sleep, or back.
    Moving,
    Asleep,
    /// Busy with its last.
    Leaving,
    Stopped,
    Lost,
}

/// Something that an isolate is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) turn: u64,
    /// It must be woken first.
    pub(crate) is_asleep: bool,
    /// How long it should rest first.
    pub(crate) rest: Duration,
}

/// Why something was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is busy.
    Busy,
    /// It will never do anything again.
    Gone,
    /// There is nothing to do: it is where it should go.
    AlreadyThere,
}

/// What becomes of an isolate whose turn is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// It goes on, with its guest.
    Stays,
    /// It has stopped.
    Stops,
    /// The turn was over before.
    Stale,
}

// === impl Lifecycle ===

impl Lifecycle {
    /// One that begins its life asleep.
    pub(crate) fn asleep() -> Self {
        Self { phase: Phase::Asleep, ..Self::default() }
    }

    /// A request comes.
    pub(crate) fn begin(&mut self, now: Instant) -> Result<Begun, Refusal> {
        let is_asleep = self.phase == Phase::Asleep;
        match self.phase {
            Phase::Idle | Phase::Asleep => Ok(self.take(Phase::Serving, is_asleep, now)),
            _ => Err(self.refusal()),
        }
    }

    /// It goes to sleep.
    pub(crate) fn doze(&mut self, now: Instant) -> Result<Begun, Refusal> {
        match self.phase {
            Phase::Idle => Ok(self.take(Phase::Moving, false, now)),
            Phase::Asleep => Err(Refusal::AlreadyThere),
            _ => Err(self.refusal()),
        }
    }

    /// It is woken without a request.
    pub(crate) fn rouse(&mut self, now: Instant) -> Result<Begun, Refusal> {
        match self.phase {
            Phase::Asleep => Ok(self.take(Phase::Moving, true, now)),
            Phase::Idle => Err(Refusal::AlreadyThere),
            _ => Err(self.refusal()),
        }
    }

    fn take(&mut self, phase: Phase, is_asleep: bool, now: Instant) -> Begun {
        self.phase = phase;
        self.turn += 1;
        Begun { turn: self.turn, is_asleep, rest: self.health.rest(now) }
    }

    fn refusal(&self) -> Refusal {
        match self.phase {
            Phase::Serving | Phase::Moving => Refusal::Busy,
            _ => Refusal::Gone,
        }
    }

    /// What it was busy with is over, and it is awake.
    pub(crate) fn end(&mut self, turn: u64) -> After {
        self.end_in(turn, Phase::Idle)
    }

    /// The same, and it sleeps.
    pub(crate) fn end_asleep(&mut self, turn: u64) -> After {
        self.end_in(turn, Phase::Asleep)
    }

    /// The same, and what was kept of it cannot be used.
    pub(crate) fn end_lost(&mut self, turn: u64) -> After {
        self.end_in(turn, Phase::Lost)
    }

    fn end_in(&mut self, turn: u64, phase: Phase) -> After {
        if self.turn != turn || !matches!(self.phase, Phase::Serving | Phase::Moving | Phase::Leaving) {
            return After::Stale;
        }
        self.turn += 1;
        self.phase = if self.phase == Phase::Leaving { Phase::Stopped } else { phase };
        if self.phase == Phase::Stopped { After::Stops } else { After::Stays }
    }

    /// How a guest ended, well or badly. False when its turn is over.
    pub(crate) fn note(&mut self, turn: u64, well: bool, now: Instant) -> bool {
        let is_its_turn = self.turn == turn;
        if is_its_turn {
            self.health.note(well, now);
        }
        is_its_turn
    }

    pub(crate) fn is_turn(&self, turn: u64) -> bool {
        self.turn == turn
    }

    /// It is wanted no more. Whether it stops at once.
    pub(crate) fn stop(&mut self) -> bool {
        self.phase = match self.phase {
            Phase::Serving | Phase::Moving | Phase::Leaving => Phase::Leaving,
            Phase::Idle | Phase::Asleep | Phase::Stopped | Phase::Lost => Phase::Stopped,
        };
        self.phase == Phase::Stopped
    }

    /// As others see it.
    pub(crate) fn state(&self, now: Instant) -> NodeState {
        match self.phase {
            Phase::Idle if self.health.is_resting(now) => NodeState::Starting,
            Phase::Idle => NodeState::Ready,
            Phase::Serving | Phase::Moving => NodeState::Busy,
            Phase::Asleep => NodeState::Hibernated,
            Phase::Leaving => NodeState::Draining,
            Phase::Stopped => NodeState::Stopped,
            Phase::Lost => NodeState::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Act {
        Begin,
        Doze,
        Rouse,
        /// Ends what was begun so many turns ago, awake (0), asleep (1) or lost (2).
        End(usize, u8),
        Note(bool),
        Stop,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => Just(Act::Begin),
            2 => Just(Act::Doze),
            2 => Just(Act::Rouse),
            6 => (0usize..3, 0u8..3).prop_map(|(ago, how)| Act::End(ago, how)),
            1 => any::<bool>().prop_map(Act::Note),
            1 => Just(Act::Stop),
        ]
    }

    #[test]
    fn a_request_wakes_it_and_stopping_waits_for_it() {
        let (mut life, now) = (Lifecycle::default(), Instant::now());
        let doze = life.doze(now).unwrap();
        assert_eq!((life.state(now), life.begin(now)), (NodeState::Busy, Err(Refusal::Busy)));
        assert_eq!((life.end_asleep(doze.turn), life.state(now)), (After::Stays, NodeState::Hibernated));
        let served = life.begin(now).unwrap();
        assert!(served.is_asleep && !life.stop());
        assert_eq!((life.state(now), life.begin(now)), (NodeState::Draining, Err(Refusal::Gone)));
        assert_eq!((life.end(served.turn), life.state(now)), (After::Stops, NodeState::Stopped));
    }

    proptest! {
        /// Whatever happens in whatever order: one thing at a time, what was given up changes nothing, and the end is the end.
        #[test]
        fn one_thing_at_a_time_and_the_end_is_the_end(acts in prop::collection::vec(act(), 0..60)) {
            let (mut life, now) = (Lifecycle::default(), Instant::now());
            let mut turns: Vec<u64> = Vec::new();
            let mut busy: Option<u64> = None;
            let (mut asleep, mut stopping, mut lost) = (false, false, false);
            for act in acts {
                match act {
                    Act::Begin | Act::Doze | Act::Rouse => {
                        let begun = match act {
                            Act::Begin => life.begin(now),
                            Act::Doze => life.doze(now),
                            _ => life.rouse(now),
                        };
                        let there = match act {
                            Act::Begin => false,
                            Act::Doze => asleep,
                            _ => !asleep,
                        };
                        let expected = match () {
                            () if stopping || lost => Err(Refusal::Gone),
                            () if busy.is_some() => Err(Refusal::Busy),
                            () if there => Err(Refusal::AlreadyThere),
                            () => Ok(asleep),
                        };
                        prop_assert_eq!(begun.map(|begun| begun.is_asleep), expected);
                        if let Ok(begun) = begun {
                            prop_assert!(turns.iter().all(|turn| *turn < begun.turn), "each turn is a new one");
                            turns.push(begun.turn);
                            busy = Some(begun.turn);
                        }
                    }
                    Act::End(ago, how) => {
                        let Some(turn) = turns.iter().rev().nth(ago).copied() else { continue };
                        let after = match how {
                            0 => life.end(turn),
                            1 => life.end_asleep(turn),
                            _ => life.end_lost(turn),
                        };
                        if busy == Some(turn) {
                            busy = None;
                            prop_assert_eq!(after, if stopping { After::Stops } else { After::Stays });
                            (asleep, lost) = (how == 1 && !stopping, how == 2 && !stopping);
                        } else {
                            prop_assert_eq!(after, After::Stale);
                        }
                    }
                    Act::Note(well) => {
                        let turn = turns.last().copied().unwrap_or(0);
                        prop_assert_eq!(life.note(turn, well, now), busy == Some(turn) || turns.is_empty());
                    }
                    Act::Stop => {
                        stopping = true;
                        prop_assert_eq!(life.stop(), busy.is_none());
                    }
                }
                let state = life.state(now);
                let expected = match () {
                    () if stopping && busy.is_some() => NodeState::Draining,
                    () if stopping => NodeState::Stopped,
                    () if lost => NodeState::Failed,
                    () if busy.is_some() => NodeState::Busy,
                    () if asleep => NodeState::Hibernated,
                    () => NodeState::Ready,
                };
                prop_assert!(state == expected || (expected == NodeState::Ready && state == NodeState::Starting), "{:?}", state);
            }
        }
    }
}

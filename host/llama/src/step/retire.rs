//! Who leaves: ended, cancelled, past the deadline, or with a reader that stalls.

use std::time::Duration;

use llambo_inference::{InferenceError, Instant};

use crate::sequence::Sequence;

/// What becomes of a sequence.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It goes on, or waits for its reader to take the rest.
    Stays,
    /// It has said everything.
    Delivered,
    /// It ends here, for this reason.
    Ends(InferenceError),
}

/// Decides, and sends what a reader that was behind can take now.
pub(crate) fn fate(sequence: &mut Sequence, now: Instant, stall_timeout: Duration) -> Fate {
    if sequence.paused_since.is_some() {
        sequence.flush(now);
    }
    if sequence.is_delivered() {
        return Fate::Delivered;
    }
    if sequence.events.is_cancelled() {
        return Fate::Ends(InferenceError::Cancelled);
    }
    if sequence.deadline.is_some_and(|deadline| deadline <= now) {
        return Fate::Ends(InferenceError::DeadlineExceeded { n_generated: sequence.n_generated });
    }
    match sequence.paused_since {
        Some(since) if now.duration_since(since) >= stall_timeout => Fate::Ends(InferenceError::stalled(stall_timeout)),
        _ => Fate::Stays,
    }
}

/// When [`fate`] may change without anybody waking the engine.
pub(crate) fn next_check(sequence: &Sequence, stall_timeout: Duration) -> Option<Instant> {
    let stalls = sequence.paused_since.map(|since| since + stall_timeout);
    [stalls, sequence.deadline].into_iter().flatten().min()
}

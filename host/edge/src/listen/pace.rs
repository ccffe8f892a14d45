//! How far a connection has come, as its socket and its requests see it: what tells a slow head from a slow answer.
//!
//! ```text
//!  HTTP/1:  Head ──request──► Busy ──answer over──► Idle ──first byte──► Head
//!  HTTP/2:  Head ──request──► Free          gRPC:  Head ──preface──► Free
//! ```
//!
//! Only `Head` is timed here. An HTTP/2 connection without requests is watched by pings, an idle HTTP/1 one by hyper.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::access::Protocol;

/// What an HTTP/2 client says first, in bytes (RFC 9113, 3.4).
const PREFACE_BYTES: u32 = 24;

const HEAD: u64 = 0;
const IDLE: u64 = 1;
const BUSY: u64 = 2;
const FREE: u64 = 3;
const STATES: u64 = 4;

/// Shared by a socket and the service behind it, which are polled by one task: there are no races to lose.
#[derive(Debug)]
pub(super) struct Pace {
    /// The state, and above it the number of the head.
    state: AtomicU64,
    /// Bytes of the preface that a gRPC client still owes.
    owed: AtomicU32,
}

// === impl Pace ===

impl Pace {
    pub(super) fn new(protocol: Protocol) -> Self {
        let owed = if protocol == Protocol::Grpc { PREFACE_BYTES } else { 0 };
        Self { state: AtomicU64::new(HEAD), owed: AtomicU32::new(owed) }
    }

    /// Bytes came from the client.
    pub(super) fn received(&self, n_bytes: usize) {
        let (number, state) = self.load();
        let owed = self.owed.load(Ordering::Relaxed);
        if state == IDLE {
            self.store(number + 1, HEAD);
        } else if state == HEAD && owed > 0 {
            let left = owed.saturating_sub(u32::try_from(n_bytes).unwrap_or(u32::MAX));
            self.owed.store(left, Ordering::Relaxed);
            if left == 0 {
                self.store(number, FREE);
            }
        }
    }

    /// A request's head is complete. `multiplexed`: further ones may come beside it.
    pub(super) fn begin(&self, multiplexed: bool) {
        let (number, _) = self.load();
        self.store(number, if multiplexed { FREE } else { BUSY });
    }

    /// Its answer is over.
    pub(super) fn end(&self) {
        let (number, state) = self.load();
        if state == BUSY {
            self.store(number, IDLE);
        }
    }

    /// The number of the head that is waited for, if one is.
    pub(super) fn head(&self) -> Option<u64> {
        let (number, state) = self.load();
        (state == HEAD).then_some(number)
    }

    fn load(&self) -> (u64, u64) {
        let state = self.state.load(Ordering::Relaxed);
        (state / STATES, state % STATES)
    }

    fn store(&self, number: u64, state: u64) {
        self.state.store(number * STATES + state, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_head_of_http_1_is_timed_by_itself() {
        let pace = Pace::new(Protocol::Http);
        assert_eq!(pace.head(), Some(0));
        pace.received(1);
        assert_eq!(pace.head(), Some(0));
        pace.begin(false);
        pace.received(100);
        assert_eq!(pace.head(), None);
        pace.end();
        assert_eq!(pace.head(), None);
        pace.received(1);
        assert_eq!(pace.head(), Some(1));
    }

    #[test]
    fn a_preface_or_a_multiplexed_request_ends_the_watch() {
        let grpc = Pace::new(Protocol::Grpc);
        grpc.received(23);
        assert_eq!(grpc.head(), Some(0));
        grpc.received(1);
        assert_eq!(grpc.head(), None);
        let http = Pace::new(Protocol::Http);
        http.received(500);
        http.begin(true);
        http.end();
        http.received(9);
        assert_eq!(http.head(), None);
    }
}

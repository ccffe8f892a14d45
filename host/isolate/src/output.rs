//! What a guest says, on its way to the client: whole UTF-8, counted, at the client's pace.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use llambo_inference::{AnswerEvent, InferenceError};
use tokio::sync::{Mutex, mpsc};

use crate::limits::{Exhausted, Limits};

/// Pieces between a guest and its client: enough that neither waits for the other's every step.
pub(crate) const CHANNEL_PIECES: usize = 16;

/// One piece at most: well below the 4 MiB that clients take in one message.
const PIECE_BYTES: usize = 64 << 10;
/// What a piece without tokens counts as at least, in bytes of a second's worth.
const PIECE_COSTS: usize = 4096;
/// Waits that are shorter are put off: waking a guest for each piece would cost more than the pieces.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);

pub(crate) type Event = Result<AnswerEvent, InferenceError>;

/// The guest's end of an answer, for all that speak for it.
#[derive(Clone)]
pub(crate) struct Voice(Arc<Shared>);

struct Shared {
    sender: Mutex<Sender>,
    /// Tokens that the guest was given and has not sent on in any form.
    unsent_tokens: AtomicU32,
}

struct Sender {
    events: mpsc::Sender<Event>,
    n_bytes: u64,
    /// Bytes in all at most.
    limit: u64,
    /// Bytes in a second, beyond the first second's; and what counts as sent.
    rate: u64,
    n_paced: u64,
    began: Instant,
    /// The start of a character that is not whole yet, and the tokens it came with.
    held: Vec<u8>,
    held_tokens: u32,
}

// === impl Voice ===

impl Voice {
    /// For as much as `limits` allow.
    pub(crate) fn new(events: mpsc::Sender<Event>, limits: &Limits) -> Self {
        let sender = Mutex::new(Sender {
            events,
            n_bytes: 0,
            limit: limits.output_bytes,
            rate: limits.output_bytes_per_second,
            n_paced: 0,
            began: Instant::now(),
            held: Vec::new(),
            held_tokens: 0,
        });
        Self(Arc::new(Shared { sender, unsent_tokens: AtomicU32::new(0) }))
    }

    /// The guest was given tokens: they count with what it says next.
    pub(crate) fn note(&self, n_tokens: u32) {
        self.0.unsent_tokens.fetch_add(n_tokens, Ordering::Relaxed);
    }

    /// Sends what is whole of `piece` and keeps the rest. False when nobody reads any more.
    ///
    /// # Errors
    /// More bytes in all than the limit.
    pub(crate) async fn say(&self, piece: &[u8]) -> Result<bool, Exhausted> {
        let n_tokens = self.0.unsent_tokens.swap(0, Ordering::Relaxed);
        self.0.sender.lock().await.send(piece, n_tokens).await
    }

    /// Sends what is left: a character that never became whole, and tokens without text.
    pub(crate) async fn finish(&self) {
        self.0.sender.lock().await.finish().await;
    }
}

// === impl Sender ===

impl Sender {
    async fn send(&mut self, piece: &[u8], n_tokens: u32) -> Result<bool, Exhausted> {
        let limit = self.limit;
        if self.n_bytes.saturating_add(piece.len() as u64) > limit {
            return Err(Exhausted::output(limit));
        }
        self.held.extend_from_slice(piece);
        self.held_tokens = self.held_tokens.saturating_add(n_tokens);
        let text = take_whole(&mut self.held);
        // what the client gets is what counts: a byte that is no text becomes three
        self.n_bytes = self.n_bytes.saturating_add(text.len() as u64);
        if self.n_bytes > limit {
            return Err(Exhausted::output(limit));
        }
        // many small pieces cost as much as a few large ones; those that tokens came with are paid for
        self.n_paced = self.n_paced.saturating_add(if n_tokens == 0 { text.len().max(PIECE_COSTS) } else { text.len() } as u64);
        let ahead = ahead(self.n_paced, self.rate, self.began.elapsed());
        if ahead >= SHORTEST_WAIT {
            tokio::time::sleep(ahead).await;
        }
        let mut rest = text.as_str();
        loop {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE_BYTES));
            let is_read = self.forward(piece.to_owned()).await;
            if after.is_empty() || !is_read {
                return Ok(is_read);
            }
            rest = after;
        }
    }

    async fn finish(&mut self) {
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned();
        self.forward(text).await;
    }

    async fn forward(&mut self, text: String) -> bool {
        if text.is_empty() {
            return !self.events.is_closed();
        }
        let piece = AnswerEvent::Piece { text, n_tokens: std::mem::take(&mut self.held_tokens) };
        self.events.send(Ok(piece)).await.is_ok()
    }
}

/// How long one that sent `n_bytes` within `elapsed` waits. A whole second's worth may come at once.
fn ahead(n_bytes: u64, rate: u64, elapsed: Duration) -> Duration {
    let due = Duration::try_from_secs_f64(n_bytes.saturating_sub(rate) as f64 / rate as f64);
    due.unwrap_or(Duration::MAX).saturating_sub(elapsed)
}

/// Takes all of `bytes` but the start of a character that may still become whole. What can never become whole is replaced by
/// U+FFFD, as everywhere.
fn take_whole(bytes: &mut Vec<u8>) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes.as_slice();
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                rest = &[];
                break;
            }
            Err(error) => {
                let (valid, after) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                let Some(n_bad) = error.error_len() else {
                    rest = after;
                    break;
                };
                text.push(char::REPLACEMENT_CHARACTER);
                rest = &after[n_bad..];
            }
        }
    }
    *bytes = rest.to_vec();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_waits_until_it_is_whole() {
        let mut held = Vec::new();
        let mut said = String::new();
        for byte in "é🦙!".bytes() {
            held.push(byte);
            said += &take_whole(&mut held);
        }
        assert_eq!((said.as_str(), held.len()), ("é🦙!", 0));
    }

    #[tokio::test]
    async fn what_the_client_gets_is_what_counts() {
        let (events, _reader) = mpsc::channel(CHANNEL_PIECES);
        let voice = Voice::new(events, &Limits { output_bytes: 6, ..Limits::default() });
        assert!(voice.say(b"\xff\xff").await.unwrap());
        assert!(voice.say(b"x").await.is_err(), "two bytes that are no text became six");
    }

    #[test]
    fn a_flood_is_slowed_to_its_rate() {
        let seconds = Duration::from_secs_f64;
        assert_eq!(ahead(1000, 1000, Duration::ZERO), Duration::ZERO);
        assert_eq!(ahead(1500, 1000, seconds(0.2)), seconds(0.3));
        assert_eq!(ahead(1500, 1000, seconds(0.6)), Duration::ZERO);
    }

    #[test]
    fn what_never_becomes_whole_is_replaced() {
        let mut held = b"a\xff\xfeb\xf0\x9f".to_vec();
        assert_eq!(take_whole(&mut held), "a\u{fffd}\u{fffd}b");
        assert_eq!(held, b"\xf0\x9f");
        held.push(b'x');
        assert_eq!(take_whole(&mut held), "\u{fffd}x");
    }
}

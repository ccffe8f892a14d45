//! Where a command reads and writes: its prompt, its answer, and what it says about itself.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError, StreamResult},
};

use crate::output::Voice;

/// Written at a time at most.
const WRITE_BYTES: usize = 4096;
/// What is kept of what a command says about itself: a panic's message.
const TAIL_BYTES: usize = 1024;

/// Standard output: the answer.
pub(super) fn stdout(voice: Voice) -> impl StdoutStream + 'static {
    Piped(move || Box::new(StdoutPipe { voice: voice.clone(), pending: Vec::new(), failed: None }) as Box<dyn OutputStream>)
}

/// A stream whose pipes are made by a function. No terminal.
struct Piped<F>(F);

struct StdoutPipe {
    voice: Voice,
    /// Written, and not said yet.
    pending: Vec<u8>,
    failed: Option<StreamError>,
}

/// Standard error: its end is kept, to say why a command failed.
#[derive(Clone, Default)]
pub(super) struct Stderr(Arc<Mutex<VecDeque<u8>>>);

// === impl Piped ===

impl<F> IsTerminal for Piped<F> {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl<F: Fn() -> Box<dyn OutputStream> + Send> StdoutStream for Piped<F> {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // of WASI's third version alone, which is not linked
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        (self.0)()
    }
}

// === impl StdoutPipe ===

impl StdoutPipe {
    async fn say(&mut self, bytes: &[u8]) -> StreamResult<()> {
        match self.voice.say(bytes).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(StreamError::Closed),
            Err(exhausted) => Err(StreamError::Trap(exhausted.into())),
        }
    }
}

#[async_trait]
impl Pollable for StdoutPipe {
    async fn ready(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty()
            && let Err(error) = self.say(&pending).await
        {
            self.failed = Some(error);
        }
    }
}

#[async_trait]
impl OutputStream for StdoutPipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.pending.extend_from_slice(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match self.failed.take() {
            Some(error) => Err(error),
            None if self.pending.is_empty() => Ok(WRITE_BYTES),
            None => Ok(0),
        }
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.ready().await;
        self.failed.take().map_or(Ok(()), Err)?;
        self.say(&bytes).await
    }
}

// === impl Stderr ===

impl Stderr {
    pub(super) fn stream(&self) -> impl StdoutStream + 'static {
        let this = self.clone();
        Piped(move || Box::new(this.clone()) as Box<dyn OutputStream>)
    }

    /// The last lines that were written.
    pub(super) fn tail(&self) -> String {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = tail.iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

#[async_trait]
impl Pollable for Stderr {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Stderr {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        let excess = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..excess);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

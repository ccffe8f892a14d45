//! The end of an engine's thread.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread::JoinHandle,
    time::Duration,
};

use llambo_inference::ModelName;

/// No step takes longer than this, unless something is wrong in it.
const LAST_STEP: Duration = Duration::from_secs(10);

/// A thread that is told to end and waited for, though not forever: a host that is told to end does.
pub(crate) struct EngineThread {
    thread: Option<JoinHandle<()>>,
    /// Its other end goes with the thread.
    is_gone: Receiver<()>,
}

// === impl EngineThread ===

impl EngineThread {
    pub(crate) fn new(thread: JoinHandle<()>, is_gone: Receiver<()>) -> Self {
        Self { thread: Some(thread), is_gone }
    }

    /// Waits for the end of its step: no stream is left, so that it is between two of them or asleep.
    pub(crate) fn end(&mut self, model: &ModelName) {
        let Some(thread) = self.thread.take() else { return };
        if matches!(self.is_gone.recv_timeout(LAST_STEP), Err(RecvTimeoutError::Timeout)) {
            tracing::error!(%model, "the engine thread has been in one step for {} s, and is left to itself", LAST_STEP.as_secs());
        } else if thread.join().is_err() {
            tracing::error!(%model, "the engine thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn a_thread_that_ends_is_waited_for() {
        let (gone, is_gone) = sync_channel::<()>(1);
        let (told, heard) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            let _gone = gone;
            std::thread::park_timeout(Duration::from_millis(20));
            told.send(()).unwrap();
        });
        EngineThread::new(thread, is_gone).end(&"m".into());
        assert_eq!(heard.try_recv(), Ok(()));
    }
}

//! Between an answer and a connection. A transport whose client takes nothing asks for nothing either, so that an answer
//! left to it would keep its node for as long as the connection lasts. Somebody else looks on, and gives up.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep_until},
};

/// The transport's end. Dropping it cancels the answer.
pub(crate) struct Pumped<T> {
    answer: Arc<Mutex<Watched<T>>>,
    watch: AbortHandle,
}

/// An answer that its transport reads and its watch takes away. Held by either only for as long as a look takes.
struct Watched<T> {
    answer: Option<Pin<Box<dyn Stream<Item = T> + Send>>>,
    /// When the transport last took something and has not asked since; `None` while it waits for the answer, which is not its fault.
    idle_since: Option<Instant>,
    /// What is said instead of the rest.
    last_word: Option<T>,
}

/// Lets the transport read `answer` at its client's pace, and drops it when the client took nothing for as long as `patience`; `stalled` says so.
pub(crate) fn pump<T: Send + 'static>(
    answer: impl Stream<Item = T> + Send + 'static,
    patience: Duration,
    stalled: impl FnOnce(Duration) -> T + Send + 'static,
) -> Pumped<T> {
    let watched = Watched { answer: Some(Box::pin(answer)), idle_since: Some(Instant::now()), last_word: None };
    let answer = Arc::new(Mutex::new(watched));
    // ends when it has given up, or is aborted by the drop of the other end
    let watch = tokio::spawn(watch(Arc::clone(&answer), patience, stalled)).abort_handle();
    Pumped { answer, watch }
}

async fn watch<T: Send>(answer: Arc<Mutex<Watched<T>>>, patience: Duration, stalled: impl FnOnce(Duration) -> T + Send) {
    loop {
        let idle_since = lock(&answer).idle_since;
        let now = Instant::now();
        let until = idle_since.unwrap_or(now) + patience;
        if until > now {
            sleep_until(until).await;
            continue;
        }
        let given_up = {
            let mut watched = lock(&answer);
            // it may have come back between the two looks
            if watched.idle_since != idle_since {
                continue;
            }
            if watched.answer.is_some() {
                watched.last_word = Some(stalled(patience));
            }
            watched.answer.take()
        };
        // its node is free from here on; the client is told when it reads again
        drop(given_up);
        return;
    }
}

/// Whoever panicked while polling the answer has been told so by its own task.
fn lock<T>(answer: &Mutex<Watched<T>>) -> MutexGuard<'_, Watched<T>> {
    answer.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Pumped ===

impl<T> Stream for Pumped<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut watched = lock(&self.answer);
        let Some(answer) = &mut watched.answer else { return Poll::Ready(watched.last_word.take()) };
        let item = answer.poll_next_unpin(cx);
        match &item {
            Poll::Pending => watched.idle_since = None,
            Poll::Ready(Some(_)) => watched.idle_since = Some(Instant::now()),
            Poll::Ready(None) => watched.answer = None,
        }
        item
    }
}

impl<T> Drop for Pumped<T> {
    fn drop(&mut self) {
        self.watch.abort();
        // at once: an aborted task is dropped when its runtime comes to it
        let given_up = lock(&self.answer).answer.take();
        drop(given_up);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::stream;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);
    const NEARLY: Duration = Duration::from_millis(4999);

    /// Says the same for ever, and who holds it.
    fn endless() -> (Arc<()>, impl Stream<Item = &'static str>) {
        let held = Arc::new(());
        let lease = Arc::clone(&held);
        let endless = stream::repeat_with(move || {
            let _ = &lease;
            "piece"
        });
        (held, endless)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_gives_its_node_back_and_is_told() {
        let (held, endless) = endless();
        let mut pumped = pump(endless, PATIENCE, |_| "stalled");
        assert_eq!(pumped.next().await, Some("piece"));
        tokio::time::sleep(NEARLY).await;
        assert_eq!(Arc::strong_count(&held), 2, "it still has time");
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(Arc::strong_count(&held), 1, "the answer is gone while its client still sleeps");
        assert_eq!(pumped.collect::<Vec<_>>().await, ["stalled"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_something_now_and_then_keeps_its_answer() {
        let (held, endless) = endless();
        let mut pumped = pump(endless, PATIENCE, |_| "stalled");
        for _ in 0..20 {
            tokio::time::sleep(NEARLY).await;
            assert_eq!(pumped.next().await, Some("piece"));
        }
        drop(pumped);
        assert_eq!(Arc::strong_count(&held), 1, "who goes cancels at once");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_an_answer_is_not_idle() {
        let late = stream::once(tokio::time::sleep(PATIENCE * 10)).map(|()| "piece");
        assert_eq!(pump(late, PATIENCE, |_| "stalled").collect::<Vec<_>>().await, ["piece"]);
    }
}
